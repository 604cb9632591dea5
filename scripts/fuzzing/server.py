"""What clients send to the server, and the files that it is configured with.

The functions behind the sockets are called as uvicorn and grpcio call them. No server is started.
"""

import base64
import gzip
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from fuzzing.target import Target
from grpc import StatusCode
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

import keras_cifar.serve.page
from keras_cifar.cifar10 import IMAGE_SHAPE
from keras_cifar.deploy import deploy
from keras_cifar.image.decode import image_from_bytes
from keras_cifar.serve.access_log import Record
from keras_cifar.serve.models.classify_regress import CLASSIFY, REGRESS
from keras_cifar.serve.models.model_config import ModelConfig
from keras_cifar.serve.models.registry import Models
from keras_cifar.serve.models.servable import Runtime
from keras_cifar.serve.rest.json_body import unzipped
from keras_cifar.serve.rest.rest_api import RestApi
from keras_cifar.serve.rpc.grpc_api import add_services
from keras_cifar.serve.rpc.interceptors import MessageInterceptor
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import Limits
from keras_cifar.serve.text_config import read_batching, read_metrics_path, read_models
from keras_cifar.serving import BATCHING, BYTES_INPUT, IMAGE_INPUT

_PNG = (Path(keras_cifar.serve.page.__file__).parent / "samples" / "cat.png").read_bytes()
# An input may have the model loaded twice: as it asks for, and then again as it was.
_SECONDS_OF_RELOADING = 15.0
_LIMITS = Limits(body_bytes=2**20, pixels=1_000_000)
# In the order of the first byte of an input.
_PROCEDURES = (
    "PredictionService/Predict",
    "PredictionService/Classify",
    "PredictionService/Regress",
    "PredictionService/MultiInference",
    "PredictionService/GetModelMetadata",
    "ModelService/GetModelStatus",
    "ModelService/HandleReloadConfigRequest",
)


def _save_model(version: Path) -> None:
    """Writes a SavedModel with each kind of input that a request can hold; none takes long."""

    def colours(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"colours": tf.reduce_mean(tf.cast(image, tf.float32), [1, 2])}

    def decoded(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = tf.TensorSpec(IMAGE_SHAPE, tf.uint8)
        return colours(tf.map_fn(image_from_bytes, image_bytes, fn_output_signature=spec))

    def several(x: tf.Tensor, n: tf.Tensor, text: tf.Tensor, flag: tf.Tensor) -> Any:
        return {"x": x * 2, "n": n + 1, "text_bytes": text, "flag": ~flag}

    def parsed(inputs: tf.Tensor) -> tf.Tensor:
        return tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]

    pixels = tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, IMAGE_INPUT)
    types = {"x": tf.float32, "n": tf.int64, "text": tf.string, "flag": tf.bool}
    examples = tf.TensorSpec([None], tf.string, "inputs")
    signatures = {
        "serving_default": tf.function(colours, [pixels]),
        "image_bytes": tf.function(decoded, [tf.TensorSpec([None], tf.string, BYTES_INPUT)]),
        "several": tf.function(several, [tf.TensorSpec([None], t, n) for n, t in types.items()]),
        "classify": tf.function(lambda inputs: {"scores": parsed(inputs)}, [examples]),
        "regress": tf.function(lambda inputs: {"outputs": parsed(inputs)}, [examples]),
    }
    tf.saved_model.save(tf.Module(), str(version), signatures=signatures)


def _served(folder: Path) -> RestApi:
    _save_model(folder / "m" / "1")
    runtime = Runtime(BATCHING["cpu"], _LIMITS)
    models = Models(runtime=runtime, labels_may_wait=False)
    models.configure([ModelConfig("m", folder / "m", labels={"stable": 1})])
    return RestApi(models, runtime)


# REST


def rest(folder: Path) -> Target:
    """A line with method and target, " gzip" behind them for a compressed body; then the body."""
    api = _served(folder)

    def check(content: bytes) -> None:
        line, _, body = content.partition(b"\n")
        method, _, target = line.decode("latin-1").partition(" ")
        if target.endswith(" gzip"):
            target = target.removesuffix(" gzip")
            body = bytes(unzipped(body, max_bytes=2**20, hold=lambda _: None))
        record = Record("REST", target, "", status=200)
        try:
            json.loads(api.answer(method, target, body=body, record=record, deadline=_soon()))
        except ServingError as error:
            if error.code is StatusCode.INTERNAL:  # never a client's mistake
                raise

    return Target(check, _rest_seeds())


def _soon() -> float:
    return time.time() + 30


def _rest_seeds() -> list[bytes]:
    image = np.zeros(IMAGE_SHAPE, int).tolist()
    encoded = {"b64": base64.b64encode(_PNG).decode()}
    several = {"x": 1.5, "n": 2**40, "text": "\u00e9", "flag": True}
    columns = {"x": [1, 2.5], "n": [1, 2], "text": ["a", {"b64": "aA=="}], "flag": [True, False]}
    example = {"x": [1.0], "more": [{"b64": "aA"}, "text"]}
    classify = {"signature_name": "classify", "examples": [example], "context": {"y": 1}}
    by_method: dict[str, list[Any]] = {
        "predict": [
            {"instances": [image]},
            {"instances": [{IMAGE_INPUT: image}, {IMAGE_INPUT: image}]},
            {"inputs": {IMAGE_INPUT: [image]}},
            {"signature_name": "image_bytes", "instances": [encoded]},
            {"signature_name": "image_bytes", "instances": [{BYTES_INPUT: encoded}]},
            {"signature_name": "image_bytes", "inputs": [encoded]},
            {"signature_name": "several", "instances": [several, several]},
            {"signature_name": "several", "inputs": columns},
            {"signature_name": "classify", "instances": [encoded]},
        ],
        "classify": [classify],
        "regress": [{**classify, "signature_name": "regress"}],
    }
    bodies = [
        (f"POST /v1/models/m:{method}", json.dumps(body).encode())
        for method, several_bodies in by_method.items()
        for body in several_bodies
    ]
    tokens = b'{"inputs": [NaN, -Infinity, 1e400, 1E-9, "\\ud83d\\ude00\\n"], "x": null} and more'
    text = b'{"a":[[["\\"\\"\\"\\"'
    targets = ("", "/m", "/m/versions/1", "/m/versions/1/metadata", "/m/labels/stable/metadata")
    return [
        *(line.encode() + b"\n" + body for line, body in bodies),
        *(f"GET /v1/models{target}\n".encode() for target in (*targets, "/%6d", "/%ff%00")),
        b"POST /v1/models/m/versions/1:predict gzip\n" + gzip.compress(bodies[0][1]),
        b"POST /v1/models/m/labels/stable:predict\n" + bodies[6][1],
        b"POST /v1/models/m/versions/18446744073709551615:regress\n{}",
        b"POST /v1/models/m:predict\n" + tokens,
        b"POST /v1/models/m:predict\n" + text,
    ]


# gRPC


class _Details(NamedTuple):
    """What grpcio tells of a call before it is decoded."""

    method: str
    invocation_metadata: Sequence[Any] = ()


class _Procedures:
    """Stands where a grpc.Server would, and keeps what is registered."""

    def __init__(self, interceptor: MessageInterceptor) -> None:
        self._interceptor = interceptor
        self._handlers: list[Any] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Called by the generated code."""
        self._handlers.extend(handlers)

    def find(self, method: str) -> Any:
        """Returns a procedure as the server has it, with what decodes before it."""
        details = _Details(f"/tensorflow.serving.{method}")
        found = (self._interceptor.intercept_service(h.service, details) for h in self._handlers)
        return next(filter(None, found))


class _RefusedError(Exception):
    """A call was ended with an error, as it may."""


class _Context:
    """Stands where a grpc.ServicerContext would."""

    def peer(self) -> str:
        return "fuzz"

    def time_remaining(self) -> float:
        return 30.0

    def is_active(self) -> bool:
        return True

    def abort(self, code: StatusCode, details: str) -> None:
        """Lets a bug through, which the server would write to its log."""
        if code is StatusCode.INTERNAL and details != "Exception deserializing request!":
            raise RuntimeError(details)
        raise _RefusedError


def grpc_calls(folder: Path) -> Target:
    """A byte for the procedure, then the request's bytes."""
    api = _served(folder)
    server = _Procedures(MessageInterceptor(_LIMITS, api.runtime.memory))
    add_services(server, api.models, runtime=api.runtime)  # type: ignore[arg-type]
    procedures = [server.find(method) for method in _PROCEDURES]

    def check(content: bytes) -> None:
        number = content[0] % len(procedures) if content else 0
        procedure = procedures[number]
        with suppress(_RefusedError):
            response = procedure.stream_unary(iter([content[1:]]), _Context())
            procedure.response_serializer(response)
        if _PROCEDURES[number].endswith("ReloadConfigRequest"):
            api.models.configure([ModelConfig("m", folder / "m", labels={"stable": 1})])

    requests = enumerate(_grpc_requests(folder))
    seeds = [bytes([n]) + r.SerializeToString() for n, several in requests for r in several]
    return Target(check, seeds, seconds=_SECONDS_OF_RELOADING)


def _grpc_requests(folder: Path) -> list[list[Any]]:
    """Returns requests for each of the procedures."""
    spec = {"name": "m", "signature_name": ""}
    arrays = {
        "": {IMAGE_INPUT: np.zeros((1, *IMAGE_SHAPE), np.uint8)},
        "image_bytes": {BYTES_INPUT: np.array([_PNG], object)},
        "several": {"x": np.float32([1]), "n": [2**40], "text": ["a"], "flag": [True]},
    }
    predicts = []
    for name, inputs in arrays.items():
        request = predict_pb2.PredictRequest(model_spec={"name": "m", "signature_name": name})
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        predicts.append(request)
    filled = predict_pb2.PredictRequest(model_spec={"name": "m"})
    filled.inputs[IMAGE_INPUT].CopyFrom(tf.make_tensor_proto(0, tf.uint8, (1, *IMAGE_SHAPE)))
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=[1.0]))
    example = tf.train.Example(features=tf.train.Features(feature={"x": feature}))
    given = {"example_list_with_context": {"examples": [example], "context": example}}
    tasks = [
        {"model_spec": {**spec, "signature_name": "regress"}, "method_name": REGRESS},
        {"model_spec": {**spec, "signature_name": "classify"}, "method_name": CLASSIFY},
    ]
    config = {"name": "m", "base_path": str(folder / "m"), "version_labels": {"stable": 1}}
    return [
        [*predicts, filled],
        [classification_pb2.ClassificationRequest(model_spec=tasks[1]["model_spec"], input=given)],
        [regression_pb2.RegressionRequest(model_spec=tasks[0]["model_spec"], input=given)],
        [inference_pb2.MultiInferenceRequest(tasks=tasks, input=given)],
        [
            get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=spec, metadata_field=["signature_def"]
            )
        ],
        [get_model_status_pb2.GetModelStatusRequest(model_spec=spec)],
        [
            model_management_pb2.ReloadConfigRequest(
                config={"model_config_list": {"config": [config]}}
            )
        ],
    ]


# Configuration files


def configs(folder: Path) -> Target:
    """A byte for the kind of file, then its text."""
    path = folder / "file"
    readers = (read_models, read_batching, read_metrics_path)

    def check(content: bytes) -> None:
        path.write_bytes(content[1:])
        with suppress(OSError, ServingError):
            readers[content[0] % len(readers) if content else 0](path)

    version, kit = folder / "m" / "1", folder / "kit"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    deploy(version.parent, kit)
    names = ("models.config", "batching_parameters.txt", "monitoring.config")
    others = (
        b'model_config_list < config { name: "m", base_path: "/\\x61\\141b" } >',
        b"custom_model_config { [type.googleapis.com/google.protobuf.Int64Value] { value: 1 } }",
        b"max_batch_size { value: 0x7fffffffffffffff } allowed_batch_sizes: [1, 2]",
    )
    files = [bytes([number]) + (kit / name).read_bytes() for number, name in enumerate(names)]
    return Target(check, [*files, b"\0" + others[0], b"\0" + others[1], b"\1" + others[2]])
