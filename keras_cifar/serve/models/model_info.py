"""What a server says of its models: which versions there are, what they take and give."""

from typing import Any

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from keras_cifar.serve.models.servable import Servable
from keras_cifar.serve.models.status import Status

SIGNATURES = "signature_def"


def describe(servable: Servable, model_spec: Any, *, signature_name: str) -> None:
    """Fills a tensorflow.serving.ModelSpec in: who answered."""
    model_spec.name = servable.model
    model_spec.version.value = servable.version
    model_spec.signature_name = signature_name


def model_metadata(servable: Servable) -> Any:
    """Returns a tensorflow.serving.GetModelMetadataResponse: a version and its signatures."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    describe(servable, response.model_spec, signature_name="")
    response.metadata[SIGNATURES].Pack(signature_map(servable))
    return response


def signature_map(servable: Servable) -> Any:
    """Returns a version's signatures as a tensorflow.serving.SignatureDefMap."""
    return get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)


def model_status(statuses: dict[int, Status]) -> Any:
    """Returns a tensorflow.serving.GetModelStatusResponse."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version, status in statuses.items():
        entry = response.model_version_status.add(version=version, state=int(status.state))
        entry.status.error_code = status.code.value[0]
        entry.status.error_message = status.message
    return response
