"""The client of TensorFlow Serving's gRPC API. Its libraries bring TensorFlow with them."""

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import grpc
    import tensorflow as tf
    from google.protobuf import json_format
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("gRPC needs more: pip install 'keras-cifar[serve]'") from error

from keras_cifar.client.proxies import grpc_proxy
from keras_cifar.client.server_client import (
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    MAX_ANSWER_BYTES,
    MAX_ATTEMPTS,
    ServerClient,
    VersionStatus,
)
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
from keras_cifar.serving import BYTES_INPUT, BYTES_SIGNATURE, IMAGE_INPUT, IMAGE_SIGNATURE

_INPUTS = {BYTES_SIGNATURE: BYTES_INPUT, IMAGE_SIGNATURE: IMAGE_INPUT}
_RETRY = {
    "methodConfig": [
        {
            "name": [{"service": "tensorflow.serving.PredictionService", "method": "Predict"}],
            "retryPolicy": {
                "maxAttempts": MAX_ATTEMPTS,
                "initialBackoff": f"{FIRST_WAIT_SECONDS}s",
                "maxBackoff": f"{LONGEST_WAIT_SECONDS}s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS = {
    "grpc.service_config": json.dumps(_RETRY),
    # gRPC's own limit is 4 MiB; the servers' is 2 GiB.
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": MAX_ANSWER_BYTES,
    # So that whoever waits for a server notices it soon.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}
_ERRORS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: ServerTimeoutError,
    grpc.StatusCode.FAILED_PRECONDITION: InvalidInputError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInputError,
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.PERMISSION_DENIED: AccessDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ServerUnavailableError,
    grpc.StatusCode.UNAUTHENTICATED: AccessDeniedError,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: BadResponseError,
}
# gRPC lists what it tried before the reason of the last attempt.
_ABOUT_ADDRESSES = re.compile(r"^.*last error: [A-Z]+: (ipv[46]:\S+: )?")
_ADDRESS = re.compile(r"(dns:///?)?[^\s/]+:\d{1,5}|unix:[^\s]+")


@dataclass(eq=False)
class GrpcClient(ServerClient):
    """Asks by gRPC; see `ServerClient` for the settings. It needs the extra [serve].

    `address` is HOST:PORT, or unix:PATH. The connection is TLS if there is a `ca_certificate`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _ADDRESS.fullmatch(self.address):
            raise ValueError(f"address: got {self.address!r}, expected HOST:PORT.")
        self._proxy = grpc_proxy(self.address)
        options = [*_OPTIONS.items(), ("grpc.enable_http_proxy", int(self._proxy is not None))]
        if self.ca_certificate is None:
            self._channel = grpc.insecure_channel(self.address, options)
        else:
            credentials = grpc.ssl_channel_credentials(self.ca_certificate.read_bytes())
            self._channel = grpc.secure_channel(self.address, credentials, options)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _status(self) -> list[VersionStatus]:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._spec())
        response = self._call(self._models.GetModelStatus, request)
        states = get_model_status_pb2.ModelVersionStatus.State
        return [
            VersionStatus(found.version, states.Name(found.state), found.status.error_message)
            for found in response.model_version_status
        ]

    def _metadata(self, *, timeout_seconds: float) -> dict[str, Any]:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec(), metadata_field=["signature_def"]
        )
        response = self._call(
            self._predictions.GetModelMetadata, request, timeout_seconds=timeout_seconds
        )
        document: dict[str, Any] = json_format.MessageToDict(
            response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for field in document["metadata"].values():
            field.pop("@type", None)
        return document

    def _probabilities(
        self, signature: str, images: list[bytes] | npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.float64]:
        request = predict_pb2.PredictRequest(
            model_spec=self._spec(signature),
            inputs={_INPUTS[signature]: tf.make_tensor_proto(images)},
            output_filter=["probabilities"],
        )
        response = self._call(self._predictions.Predict, request)
        if "probabilities" not in response.outputs:
            raise self._error(BadResponseError, f"no probabilities, but {list(response.outputs)}")
        tensor = response.outputs["probabilities"]
        # Before it is unpacked: a few bytes may claim to be terabytes.
        shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
        self._check_shape(shape, images=len(images))
        try:
            kind = tf.as_dtype(tensor.dtype)
            # NumPy would make numbers of texts, of complex numbers, and of true and false.
            if not (kind.is_floating or kind.is_integer):
                raise TypeError(f"of type {kind.name}")
            return np.asarray(tf.make_ndarray(tensor), dtype=np.float64)
        except (OverflowError, TypeError, ValueError) as error:
            raise self._error(BadResponseError, "probabilities that are no numbers") from error

    def _spec(self, signature: str = "") -> Any:
        spec = model_pb2.ModelSpec(name=self.model_name, signature_name=signature)
        if self.version is not None:
            spec.version.value = self.version
        if self.label is not None:
            spec.version_label = self.label
        return spec

    def _call(self, method: Any, request: Any, *, timeout_seconds: float | None = None) -> Any:
        # Not call credentials, which gRPC sends by TLS alone: a proxy may have done that part.
        metadata = [("authorization", f"Bearer {self.token}")] if self.token else None
        try:
            timeout = timeout_seconds or self.timeout_seconds
            return method(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise self._error(*_described(error)) from error


def _described(error: Any) -> tuple[type[ServerError], str]:
    code, details = error.code(), error.details() or ""
    kind = _ERRORS.get(code, ServerError)
    reason = f"{code.name}: {_ABOUT_ADDRESSES.sub('', details)}"
    # gRPC calls these unavailable as well, but no waiting will mend them.
    if kind is ServerUnavailableError and "handshake failed" in details:
        kind = UntrustedServerError
    if kind is ServerUnavailableError and "Failed parsing HTTP/2" in details:
        kind = BadResponseError
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        # Only answers come packed.
        of_answer = "CLIENT: " in details or details.startswith("Decompressed ")
        kind = BadResponseError if of_answer else RequestTooLargeError
    return kind, reason
