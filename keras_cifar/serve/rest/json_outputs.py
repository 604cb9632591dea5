"""TensorFlow Serving's JSON form of an answer: by row ("predictions") or column ("outputs")."""

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_cifar.serve.models.servable import Arrays
from keras_cifar.serve.rest.json_inputs import COLUMNS
from keras_cifar.serve.rest.json_values import BYTES_KEY, JSON_TYPES, type_name
from keras_cifar.serve.serving_error import invalid


def predictions(outputs: Arrays, *, key: str) -> dict[str, Any]:
    """Returns the answer to a Predict request.

    Args:
        outputs: by name; a single one's name is left out.
        key: "instances" for a list of rows under "predictions", "inputs" for "outputs".

    Raises:
        ServingError: an output has no form in JSON, or cannot be split into rows.
    """
    values = {name: _json_values(array, name) for name, array in outputs.items()}
    if key == COLUMNS:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    for name, array in outputs.items():
        if not array.ndim:
            raise invalid(f"Tensor name: {name} has no shape information")
    sizes = {len(array) for array in outputs.values()}
    if len(sizes) > 1:
        raise invalid(f"Tensors have inconsistent batch size: {', '.join(map(str, sorted(sizes)))}")
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return {"predictions": rows}


def _json_values(array: npt.NDArray[Any], name: str) -> Any:
    dtype = tf.as_dtype(array.dtype)
    if type_name(dtype) not in JSON_TYPES:
        raise invalid(f"Failed to write JSON value for tensor type: {type_name(dtype)}")
    if dtype == tf.string:
        return _strings(array.tolist(), as_bytes=name.endswith("_bytes"))
    if dtype == tf.float32:
        return shortest(array)
    return array.tolist()


def shortest(array: npt.NDArray[Any] | np.float32) -> Any:
    """Returns the doubles that print shortest among those that are read as the same float32s."""
    return array.astype(np.str_).astype(np.float64).tolist()


def _strings(value: Any, *, as_bytes: bool) -> Any:
    if isinstance(value, list):
        return [_strings(item, as_bytes=as_bytes) for item in value]
    if as_bytes:
        return {BYTES_KEY: base64.b64encode(value).decode()}
    return value.decode(errors="replace")
