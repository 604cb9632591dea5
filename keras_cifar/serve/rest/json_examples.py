"""TensorFlow Serving's JSON form of tf.Examples, and of the classes and values in return."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_cifar.serve.rest.json_body import shortened
from keras_cifar.serve.rest.json_inputs import signature_name
from keras_cifar.serve.rest.json_outputs import shortest
from keras_cifar.serve.rest.json_values import decoded, is_encoded, json_kind
from keras_cifar.serve.serving_error import invalid

_INT64 = range(-(2**63), 2**63)


def read_request(body: Mapping[str, Any], request: Any, *, method: str) -> None:
    """Fills in a ClassificationRequest or RegressionRequest but for its model.

    Args:
        body: as `parse_body` gave it.
        request: of package tensorflow.serving.
        method: "classify" or "regress", for the messages.

    Raises:
        ServingError: the body holds no examples; the text is TensorFlow Serving's.
    """
    if "signature_name" in body:
        request.model_spec.signature_name = signature_name(body)
    if "examples" not in body:
        raise invalid(f"When method is {method}, key 'examples' is expected and was not found")
    examples = body["examples"]
    if not isinstance(examples, list):
        raise invalid(f"Expecting 'examples' value to be a list/array. Got: {shortened(examples)}")
    if not examples:
        raise invalid("Invalid argument: 'examples' value must not be an empty list/array")
    parent = request.input.example_list
    if "context" in body:
        parent = request.input.example_list_with_context
        _fill(parent.context, body["context"])
    for example in examples:
        _fill(parent.examples.add(), example)


def _fill(example: Any, features: Any) -> None:
    if not isinstance(features, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_kind(features)}")
    for name, value in features.items():
        _fill_feature(example.features.feature[name], name, value)


def _fill_feature(feature: Any, name: str, value: Any) -> None:
    kinds: set[str] = set()
    for item in value if isinstance(value, list) else [value]:
        kind, content = _typed(item, name)
        if kinds and kind not in kinds:
            (expected,) = kinds
            raise invalid(
                f"Unexpected element type in feature: {name} expecting type: {expected} got: {kind}"
            )
        kinds.add(kind)
        getattr(feature, f"{kind}_list").value.append(content)


def _typed(value: Any, name: str) -> tuple[str, Any]:
    """Returns the list of a tf.Feature that a value belongs to, and the value as it goes there."""
    if isinstance(value, str):
        return "bytes", value.encode()
    if is_encoded(value):
        return "bytes", decoded(value)
    if isinstance(value, float):
        return "float", value
    if isinstance(value, int):  # true and false too
        if int(value) not in _INT64:
            raise invalid(f"Feature: {name} has a number out of range. Only int64_t is supported")
        return "int64", int(value)
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {json_kind(value)}")


def classifications(result: Any) -> list[list[tuple[str, float]]]:
    """Returns a ClassificationResult's (label, score) pairs, for each example."""
    return [
        [(entry.label, shortest(np.float32(entry.score))) for entry in example.classes]
        for example in result.classifications
    ]


def regressions(result: Any) -> list[float]:
    """Returns a RegressionResult's value for each example."""
    return [shortest(np.float32(regression.value)) for regression in result.regressions]
