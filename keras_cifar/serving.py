"""How a model is served: what export, deployment, servers and clients agree on."""

import re
from dataclasses import dataclass

# Of weights and arithmetic of an exported model.
EXPORT_PRECISIONS = ("float32", "bfloat16")
# The name that a model has on a server where the user does not say otherwise.
MODEL_NAME = "cifar10"
# The signature of a request that names none.
DEFAULT_SIGNATURE = "serving_default"
# Signatures, and what each one calls its only input.
IMAGE_SIGNATURE, IMAGE_INPUT = DEFAULT_SIGNATURE, "image"
BYTES_SIGNATURE, BYTES_INPUT = "image_bytes", "image_bytes"
# In the folder of a version: the requests that a server sends itself first, and where it is from.
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
ORIGIN_FILE = "origin.json"
# Where Prometheus finds a server's metrics, on the port of REST.
METRICS_PATH = "/monitoring/prometheus/metrics"
# Of each wait, 11 days: poll(2) counts milliseconds in 32 bits, and more overflows.
MAX_SECONDS = 1_000_000


@dataclass(frozen=True)
class Batching:
    """How a server makes batches of requests, by TensorFlow Serving's names.

    Attributes:
        max_batch_size: images that a request may have; of a batch too, without splitting.
        allowed_batch_sizes: ascending; a batch is filled up to the next of them.
        batch_timeout_micros: how long a batch waits to be filled, in microseconds.
        num_batch_threads: batches that are worked on at the same time.
        max_enqueued_batches: batches that may wait; beyond, requests are refused.
        enable_large_batch_splitting: whether a request may go on in the next batch.
        thread_pool_name: a label of the metrics.
    """

    max_batch_size: int
    allowed_batch_sizes: tuple[int, ...]
    batch_timeout_micros: int
    num_batch_threads: int
    max_enqueued_batches: int
    enable_large_batch_splitting: bool = True
    thread_pool_name: str = f"{MODEL_NAME}_batches"


# The batch sizes: on a CPU each image of the filling costs its time, hence small steps. On a GPU
# it costs next to nothing, and each size is compiled and kept, hence few. A request may have 128
# images on either, for a server sends itself all the warm-up requests of an export.
BATCHING = {
    "cpu": Batching(
        max_batch_size=128,
        allowed_batch_sizes=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64),
        batch_timeout_micros=0,
        num_batch_threads=2,
        max_enqueued_batches=16,
    ),
    "gpu": Batching(
        max_batch_size=128,
        allowed_batch_sizes=(1, 2, 4, 8, 16, 32, 64, 128),
        batch_timeout_micros=2000,
        num_batch_threads=4,
        max_enqueued_batches=16,
    ),
}
DEVICES = tuple(BATCHING)
# Not 2.21.0: nothing confirms that there is an image of it (November 2026).
_IMAGE = "tensorflow/serving:2.20.0"


def default_image(device: str) -> str:
    """Returns the Docker image of TensorFlow Serving for "cpu" or "gpu"."""
    return f"{_IMAGE}-gpu" if device == "gpu" else _IMAGE


def is_token(text: str) -> bool:
    """Returns whether a text can be a token: what a header carries as it is, without a space."""
    return bool(re.fullmatch(r"[!-~]+", text))
