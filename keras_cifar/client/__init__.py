"""Images -> class probabilities, from a model on this machine or from a server."""

from typing import TYPE_CHECKING, Any

from keras_cifar.client.errors import (
    AccessDeniedError,
    BadResponseError,
    InvalidInputError,
    ModelNotFoundError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
    UntrustedServerError,
)
from keras_cifar.client.files import predict_files
from keras_cifar.client.prediction import Answer, Failure, Prediction, Refusal
from keras_cifar.client.rest import RestClient
from keras_cifar.client.server import VersionStatus

if TYPE_CHECKING:
    from keras_cifar.client.grpc import GrpcClient
    from keras_cifar.client.local import prepare_image

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
    "RestClient",
    "ServerError",
    "ServerTimeoutError",
    "ServerUnavailableError",
    "UntrustedServerError",
    "VersionStatus",
    "predict_files",
    "prepare_image",
]


def __getattr__(name: str) -> Any:
    # Here and not above: these two load TensorFlow, which takes seconds and REST has no need of.
    if name == "GrpcClient":
        from keras_cifar.client.grpc import GrpcClient

        return GrpcClient
    if name == "prepare_image":
        from keras_cifar.client.local import prepare_image

        return prepare_image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
