"""TensorFlow Serving's gRPC services."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc import StatusCode
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from keras_cifar.serve.access_log import Record
from keras_cifar.serve.models.classify_regress import classify, multi_inference, regress
from keras_cifar.serve.models.model_config import model_configs
from keras_cifar.serve.models.model_info import SIGNATURES, model_metadata, model_status
from keras_cifar.serve.models.predict_tensors import predict
from keras_cifar.serve.models.registry import Models
from keras_cifar.serve.models.servable import Runtime
from keras_cifar.serve.serving_error import ServingError, invalid

_MAX_MESSAGE = 1024  # characters of an error; the rest is cut off
_FOREVER = 3600.0  # seconds
_log = logging.getLogger(__name__)


def add_services(server: grpc.Server, models: Models, *, runtime: Runtime) -> None:
    """Registers tensorflow.serving.PredictionService and .ModelService."""
    calls = _Calls(models, runtime)
    prediction = prediction_service_pb2_grpc.PredictionServiceServicer()
    prediction.Predict = calls.inference("Predict", predict)
    prediction.Classify = calls.inference("Classify", classify)
    prediction.Regress = calls.inference("Regress", regress)
    prediction.MultiInference = calls.inference("MultiInference", multi_inference)
    prediction.GetModelMetadata = calls.other("GetModelMetadata", calls.metadata)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    management = model_service_pb2_grpc.ModelServiceServicer()
    management.GetModelStatus = calls.other("GetModelStatus", calls.status)
    reload_config = calls.other("HandleReloadConfigRequest", calls.reload_config)
    management.HandleReloadConfigRequest = reload_config
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(management, server)


class _Calls:
    def __init__(self, models: Models, runtime: Runtime) -> None:
        self._models = models
        self._runtime = runtime

    def inference(self, name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a procedure that has a version of a model compute the answer."""

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            with self._recorded(name, request, context) as record:
                record.api = name
                deadline = time.time() + min(context.time_remaining(), _FOREVER)
                with _borrowed(self._models, _model_spec(request)) as servable:
                    record.model, record.version = servable.model, servable.version
                    record.examples = _examples(request)
                    return compute(servable, request, deadline=deadline)

        return answer

    def other(self, name: str, compute: Callable[[Any], Any]) -> Callable[..., Any]:
        """Returns a procedure that computes nothing with a model."""

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            with self._recorded(name, request, context):
                return compute(request)

        return answer

    @contextmanager
    def _recorded(self, name: str, request: Any, context: grpc.ServicerContext) -> Iterator[Record]:
        """Notes a call, and ends it with the error that came out of it."""
        record = Record("GRPC", name, context.peer(), request_bytes=request.ByteSize())
        try:
            yield record
        except ServingError as error:
            record.code = error.code
            context.abort(error.code, _cut(error.message))
        except Exception:
            record.code = StatusCode.INTERNAL
            _log.exception("%s", name)
            context.abort(StatusCode.INTERNAL, "internal error; the server's log has more")
        finally:
            record.close(self._runtime.metrics)

    def metadata(self, request: Any) -> Any:
        """Answers a GetModelMetadataRequest: signatures are all that there is."""
        spec = _model_spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURES:
                raise invalid(f"Metadata field {field} is not supported")
        with _borrowed(self._models, spec) as servable:
            return model_metadata(servable)

    def status(self, request: Any) -> Any:
        """Answers a GetModelStatusRequest; a label is not looked at."""
        spec = _model_spec(request)
        return model_status(self._models.statuses(spec.name, version=_version(spec)))

    def reload_config(self, request: Any) -> Any:
        """Answers a ReloadConfigRequest, when its models are available."""
        self._models.configure(model_configs(request.config))
        return model_management_pb2.ReloadConfigResponse()


def _model_spec(request: Any) -> Any:
    """Returns the ModelSpec of a request or, of several at once, of the first."""
    if request.DESCRIPTOR.name == "MultiInferenceRequest":
        if not request.HasField("input"):
            raise invalid("Input is empty")
        if not request.tasks:
            raise invalid("Inference request does not specify any task")
        request = request.tasks[0]
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    if not request.model_spec.name:
        raise invalid("ModelSpec has no name specified.")
    return request.model_spec


def _version(spec: Any) -> int | None:
    return spec.version.value if spec.HasField("version") else None


def _borrowed(models: Models, spec: Any) -> Any:
    label = spec.version_label if spec.HasField("version_label") else None
    return models.borrow(spec.name, version=_version(spec), label=label)


def _examples(request: Any) -> int:
    if request.DESCRIPTOR.name == "PredictRequest":
        shapes = [tensor.tensor_shape.dim for tensor in request.inputs.values()]
        return max((shape[0].size for shape in shapes if shape), default=0)
    kind = request.input.WhichOneof("kind")
    return len(getattr(request.input, kind).examples) if kind else 0


def _cut(message: str) -> str:
    is_long = len(message) > _MAX_MESSAGE
    return f"{message[:_MAX_MESSAGE]}...TRUNCATED" if is_long else message
