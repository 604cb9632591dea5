"""TensorFlow Serving's configuration files in text format, and what is allowed in them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from keras_cifar.machine import usable_cores
from keras_cifar.serve.models.model_config import ModelConfig, model_configs
from keras_cifar.serving import METRICS_PATH, Batching

# The two messages that the package with TensorFlow Serving's stubs lacks, by the names and types
# in session_bundle_config.proto and monitoring_config.proto. They are made here at run time, as
# protobuf's own parser of text needs their classes; it has no use for field numbers.
_BATCHING_FIELDS = {
    "max_batch_size": "Int64Value",
    "batch_timeout_micros": "Int64Value",
    "max_enqueued_batches": "Int64Value",
    "num_batch_threads": "Int64Value",
    "thread_pool_name": "StringValue",
    "allowed_batch_sizes": "repeated int64",
    "pad_variable_length_inputs": "bool",
    "enable_large_batch_splitting": "BoolValue",
    "max_execution_batch_size": "Int64Value",
}


def read_batching(path: Path) -> Batching:
    """Reads a batching_parameters.txt; what it leaves out has TensorFlow Serving's defaults.

    Raises:
        OSError: it cannot be read, or does not hold what is allowed.
    """
    message = _parse(path, _message("BatchingParameters", _BATCHING_FIELDS))
    for name in (name for name, kind in _BATCHING_FIELDS.items() if kind == "Int64Value"):
        value, least = getattr(message, name).value, 0 if name == "batch_timeout_micros" else 1
        if message.HasField(name) and value < least:
            raise OSError(f"{path}: {name}: got {value}, expected {least} or more.")
    if message.pad_variable_length_inputs:
        raise OSError(f"{path}: pad_variable_length_inputs: got true, which is not supported here.")
    sizes = tuple(message.allowed_batch_sizes)
    limit = message.max_batch_size.value if message.HasField("max_batch_size") else 1000
    execution = message.max_execution_batch_size.value or limit
    splitting = message.enable_large_batch_splitting.value
    if splitting and execution != limit and not sizes:
        raise OSError(
            f"{path}: max_execution_batch_size: got {execution} without allowed_batch_sizes, which "
            f"is not supported here. Give allowed_batch_sizes, {execution} as the last one."
        )
    last = execution if splitting else limit
    if list(sizes) != sorted(set(sizes)) or any(size < 1 for size in sizes):
        raise OSError(f"{path}: allowed_batch_sizes must be positive and ascending; got {sizes}.")
    if sizes and sizes[-1] != last:
        raise OSError(
            f"{path}: Last entry in allowed_batch_sizes must match max_batch_size; "
            f"last entry was {sizes[-1]}, expected {last}."
        )
    enqueued = message.max_enqueued_batches.value
    return Batching(
        max_batch_size=limit,
        batch_timeout_micros=message.batch_timeout_micros.value,
        max_enqueued_batches=enqueued if message.HasField("max_enqueued_batches") else 10,
        num_batch_threads=message.num_batch_threads.value or usable_cores(),
        thread_pool_name=message.thread_pool_name.value,
        allowed_batch_sizes=sizes,
        enable_large_batch_splitting=splitting,
    )


def read_metrics_path(path: Path) -> str | None:
    """Reads a monitoring.config: where the metrics are, or None where they are off.

    Raises:
        OSError: it cannot be read or parsed, or names no path.
    """
    prometheus = _message("PrometheusConfig", {"enable": "bool", "path": "string"})
    config = _parse(path, _message("MonitoringConfig", {"prometheus_config": prometheus}))
    if not config.prometheus_config.enable:
        return None
    metrics_path = str(config.prometheus_config.path) or METRICS_PATH
    if not re.fullmatch(r"/[^?#\s]*", metrics_path):
        raise OSError(
            f"{path}: prometheus_config.path: got {metrics_path!r}, expected a path that begins "
            'with "/", without a query.'
        )
    return metrics_path


def read_models(path: Path) -> list[ModelConfig]:
    """Reads a models.config.

    Raises:
        OSError: it cannot be read or parsed.
        ServingError: as `model_configs`.
    """
    return model_configs(_parse(path, model_server_config_pb2.ModelServerConfig))


def _parse(path: Path, message_class: Any) -> Any:
    try:
        return text_format.Parse(path.read_text(), message_class())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        name = message_class.DESCRIPTOR.full_name
        raise OSError(f"{path}: Error parsing text-format {name}: {error}") from error


def _message(name: str, fields: Mapping[str, Any]) -> Any:
    """Returns a message class: field names, each with a type or the class of a message."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", syntax="proto3")
    file.package = "tensorflow.serving"
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name=name)
    for number, (field_name, kind) in enumerate(fields.items(), start=1):
        entry = message.field.add(name=field_name, number=number, label="LABEL_OPTIONAL")
        if not isinstance(kind, str):
            pool.AddSerializedFile(kind.DESCRIPTOR.file.serialized_pb)
            file.dependency.append(kind.DESCRIPTOR.file.name)
            entry.type, entry.type_name = entry.TYPE_MESSAGE, f".{kind.DESCRIPTOR.full_name}"
        elif kind.endswith("Value"):
            entry.type, entry.type_name = entry.TYPE_MESSAGE, f".google.protobuf.{kind}"
        elif kind == "repeated int64":
            entry.type, entry.label = entry.TYPE_INT64, entry.LABEL_REPEATED
        else:
            entry.type = {"bool": entry.TYPE_BOOL, "string": entry.TYPE_STRING}[kind]
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))
