"""The targets by name."""

from collections.abc import Callable
from pathlib import Path

from fuzzing import files, server
from fuzzing.target import Target

# Each takes an empty folder for its files.
TARGETS: dict[str, Callable[[Path], Target]] = {
    "rest": server.rest,
    "grpc": server.grpc_calls,
    "config": server.configs,
    "image": files.images,
    "archive": files.archives,
    "parquet": files.parquets,
    "tfds": files.tfds_folders,
    "keras": files.keras_models,
    "run": files.runs,
}
