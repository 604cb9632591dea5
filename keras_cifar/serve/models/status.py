"""How a version of a model is, and what was wrong with it if it failed."""

from dataclasses import dataclass
from enum import IntEnum

import tensorflow as tf
from grpc import StatusCode

from keras_cifar.errors import described
from keras_cifar.serve.serving_error import ServingError, from_tensorflow


class State(IntEnum):
    """Of a version, by the names and numbers of get_model_status.proto."""

    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass
class Status:
    """How a version is, and what was wrong with it if it failed."""

    state: State
    code: StatusCode = StatusCode.OK
    message: str = ""


def failed_status(error: Exception) -> Status:
    """Returns the status of a version that an error kept from being loaded."""
    if isinstance(error, ServingError):
        return Status(State.END, error.code, error.message)
    if isinstance(error, tf.errors.OpError):
        return failed_status(from_tensorflow(error))
    if isinstance(error, OSError):
        return Status(State.END, StatusCode.NOT_FOUND, described(error))
    return Status(State.END, StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
