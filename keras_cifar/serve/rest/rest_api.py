"""TensorFlow Serving's REST API: who is asked what, and the answer in JSON."""

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format
from tensorflow_serving.apis import classification_pb2, model_pb2, regression_pb2

from keras_cifar.model_dir import MAX_VERSION
from keras_cifar.serve.access_log import Record
from keras_cifar.serve.models.classify_regress import classify, regress
from keras_cifar.serve.models.model_info import SIGNATURES, describe, model_status, signature_map
from keras_cifar.serve.models.predict_tensors import run
from keras_cifar.serve.models.registry import Models
from keras_cifar.serve.models.servable import Runtime, Servable
from keras_cifar.serve.rest.json_body import parse_body
from keras_cifar.serve.rest.json_examples import classifications, read_request, regressions
from keras_cifar.serve.rest.json_inputs import (
    ROWS,
    read_inputs,
    request_format,
    signature_name,
)
from keras_cifar.serve.rest.json_outputs import predictions
from keras_cifar.serve.serving_error import invalid

# As in TensorFlow Serving's http_rest_api_util.cc: a path with its query must match as a whole.
_CHOICE = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(
    rf"(?i)/v1/models/(?P<name>[^/:]+){_CHOICE}:(?P<method>classify|regress|predict)"
)
_GET = re.compile(rf"(?i)/v1/models(?:/(?P<name>[^/:]+))?{_CHOICE}(?P<metadata>/metadata)?")
_Compute = Callable[[float], Any]


@dataclass(frozen=True)
class RestApi:
    """TensorFlow Serving's REST API.

    Attributes:
        models: that may be asked.
        runtime: what they share.
    """

    models: Models
    runtime: Runtime

    def answer(
        self,
        method: str,
        target: str,
        *,
        body: bytes | bytearray,
        record: Record,
        deadline: float,
    ) -> bytes:
        """Answers a request.

        Args:
            method: of HTTP.
            target: the path as it was sent, with its query.
            body: uncompressed.
            record: where it is noted who answered, and how many examples.
            deadline: seconds since the epoch.

        Returns:
            JSON.

        Raises:
            ServingError: there is no answer.
        """
        if method == "POST" and (match := _POST.fullmatch(target)) and match["method"] in _READERS:
            record.api = match["method"].capitalize()
            result = self._infer(match, body, record=record, deadline=deadline)
        elif method == "GET" and (match := _GET.fullmatch(target)):
            result = _describe(self.models, match)
        else:
            raise invalid(f"Malformed request: {method} {target}")
        return json.dumps(result).encode()

    def _infer(
        self,
        match: re.Match[str],
        body: bytes | bytearray,
        *,
        record: Record,
        deadline: float,
    ) -> Any:
        with ExitStack() as borrowed:
            with self.runtime.memory.turn(len(body), deadline=deadline):
                parsed = parse_body(body, max_values=self.runtime.limits.values)
                servable = borrowed.enter_context(self.models.borrow(**_chosen(match)))
                record.model, record.version = servable.model, servable.version
                try:
                    compute = _READERS[match["method"]](servable, parsed, record=record)
                except UnicodeEncodeError as error:  # of text such as "\ud800"
                    text = "JSON Parse error: The surrogate pair in string is invalid."
                    raise invalid(text) from error
                del parsed  # before the next one is
            return compute(deadline)


def _chosen(match: re.Match[str]) -> dict[str, Any]:
    version, label = match["version"], match["label"]
    return {
        "name": unquote(match["name"]),
        "version": None if version is None else _number(version),
        "label": None if label is None else unquote(label),
    }


def _number(version: str) -> int:
    digits = version.lstrip("0") or "0"
    # Of thousands of digits, Python would refuse to make a number at all.
    if len(digits) > len(str(MAX_VERSION)) or int(digits) > MAX_VERSION:
        raise invalid(f"Failed to convert version: {version} to numeric.")
    return int(digits)


def _read_predict(servable: Servable, body: dict[str, Any], *, record: Record) -> _Compute:
    """Returns what computes the answer to a body, of which it keeps the tensors."""
    name = signature_name(body)
    if name not in servable.served:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    key = request_format(body)
    if key == ROWS and isinstance(body[key], list):
        servable.check_size(name, len(body[key]))  # before each of many rows is looked at
    inputs = read_inputs(body, servable.served[name].inputs)
    record.examples = max((len(array) for array in inputs.values() if array.ndim), default=0)
    return lambda deadline: predictions(run(servable, name, inputs, deadline=deadline), key=key)


def _read_examples(
    servable: Servable, body: dict[str, Any], *, method: str, record: Record
) -> _Compute:
    make_request, compute, as_json = _EXAMPLES[method]
    request = make_request()
    read_request(body, request, method=method)
    record.examples = len(body["examples"])
    return lambda deadline: {
        "results": as_json(compute(servable, request, deadline=deadline).result)
    }


_EXAMPLES: dict[str, tuple[Callable[[], Any], Callable[..., Any], Callable[[Any], Any]]] = {
    "classify": (classification_pb2.ClassificationRequest, classify, classifications),
    "regress": (regression_pb2.RegressionRequest, regress, regressions),
}
_READERS: dict[str, Callable[..., _Compute]] = {
    "predict": _read_predict,
    **{method: partial(_read_examples, method=method) for method in _EXAMPLES},
}


def _describe(models: Models, match: re.Match[str]) -> Any:
    if match["name"] is None:
        raise invalid("Missing model name in request.")
    chosen = _chosen(match)
    if match["metadata"] is None:
        # The label is not looked at, nor does TensorFlow Serving.
        statuses = models.statuses(chosen["name"], version=chosen["version"])
        return _as_dict(model_status(statuses))
    spec = model_pb2.ModelSpec()
    with models.borrow(**chosen) as servable:
        describe(servable, spec, signature_name="")
        metadata = {SIGNATURES: _as_dict(signature_map(servable))}
    return {"model_spec": _as_dict(spec), "metadata": metadata}


def _as_dict(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
