"""Images -> class probabilities, from a model on this machine or from a server."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from keras_cifar.client.answers import Answer, Failure, Prediction, Refusal
from keras_cifar.client.folders import find_images
from keras_cifar.client.image_files import predict_files, stream_predictions
from keras_cifar.client.rest_client import RestClient
from keras_cifar.client.server_client import VersionStatus
from keras_cifar.client.server_errors import (
    AccessDeniedError,
    BadResponseError,
    InvalidInputError,
    ModelNotFoundError,
    RequestTooLargeError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
    UntrustedServerError,
)

if TYPE_CHECKING:
    from keras_cifar.client.grpc_client import GrpcClient
    from keras_cifar.client.local_model import prepare_image

__all__ = [
    "AccessDeniedError",
    "Answer",
    "BadResponseError",
    "Failure",
    "GrpcClient",
    "InvalidInputError",
    "ModelNotFoundError",
    "Prediction",
    "Refusal",
    "RequestTooLargeError",
    "RestClient",
    "ServerError",
    "ServerTimeoutError",
    "ServerUnavailableError",
    "UntrustedServerError",
    "VersionStatus",
    "find_images",
    "predict_files",
    "prepare_image",
    "stream_predictions",
]


# Not imported above: they load TensorFlow, which takes seconds and which REST has no need of.
_WITH_TENSORFLOW = {
    "GrpcClient": "keras_cifar.client.grpc_client",
    "prepare_image": "keras_cifar.client.local_model",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TENSORFLOW:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WITH_TENSORFLOW[name]), name)
