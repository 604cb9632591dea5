"""Values in JSON: numbers, text and {"b64": ...} -> arrays."""

import base64
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from grpc import StatusCode

from keras_cifar.serve.rest.json_body import shortened
from keras_cifar.serve.serving_error import ServingError, invalid

BYTES_KEY = "b64"
_MAX_DIMENSIONS = 32  # of NumPy 1; of NumPy 2, 64
# Of base64, as absl reads it.
_ASCII_SPACE, _PADDING = b" \t\n\v\f\r", b"=."


def stacked(rows: list[Any], dtype: tf.DType) -> npt.NDArray[Any]:
    """Returns rows as one array.

    Raises:
        ServingError: they are not of one shape, or of another type.
    """
    quick = _quick(rows, dtype)
    if quick is not None:
        return quick
    arrays: list[npt.NDArray[Any]] = []
    for position, row in enumerate(rows):
        with in_row(position):
            array = _filled(row, dtype)
            if arrays and array.size != arrays[0].size:
                raise invalid(f"Expecting tensor size: {arrays[0].size} but got: {array.size}")
            if arrays and array.shape != arrays[0].shape:
                raise invalid(
                    f"Expecting shape {_brief(arrays[0].shape)} but got: {_brief(array.shape)}"
                )
            arrays.append(array)
    return np.stack(arrays)


def _brief(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def tensor(value: Any, dtype: tf.DType) -> npt.NDArray[Any]:
    """Returns a value, a list or lists of lists as an array.

    Raises:
        ServingError: the lists are of unequal length, or the values of another type.
    """
    quick = _quick(value, dtype)
    return _filled(value, dtype) if quick is None else quick


def _quick(value: Any, dtype: tf.DType) -> npt.NDArray[Any] | None:
    """Returns numbers as an array by NumPy, a hundred times faster; None where it would not do."""
    if type_name(dtype) not in JSON_TYPES or not (dtype.is_integer or dtype.is_floating):
        return None
    if (flat := _flattened(value)) is None:
        return None
    leaves, shape = flat
    # NumPy would take a truth value for 0 or 1, and for one long string among short ones, as much
    # memory as if all were that long.
    types = set(map(type, leaves))
    if not types <= ({int} if dtype.is_integer else {int, float}):
        return None
    try:
        array = np.array(leaves, np.float64 if float in types else np.int64)
    except OverflowError:  # numbers of over 63 bits
        return None
    return _narrowed(array.reshape(shape), dtype)


def _flattened(value: Any) -> tuple[list[Any], list[int]] | None:
    """Returns what is in lists of lists, and their shape; None if they are of unequal length.

    A level at a time: to look through all levels at once takes NumPy a microsecond a list, and as
    long as it looks no other thread runs.
    """
    level, shape = [value], list[int]()
    while level and type(level[0]) is list and len(shape) < _MAX_DIMENSIONS:
        if set(map(type, level)) != {list} or len(lengths := set(map(len, level))) != 1:
            return None
        shape.extend(lengths)
        level = list(chain.from_iterable(level))
    return level, shape


def _narrowed(array: npt.NDArray[Any], dtype: tf.DType) -> npt.NDArray[Any]:
    """Returns numbers in the type of a tensor; unlike TensorFlow Serving, refuses what overflows.

    Too large for a float is infinite, in both.
    """
    if dtype.is_integer and array.size:
        low, high = array.min(), array.max()
        if low < dtype.min or high > dtype.max:
            worst = low if low < dtype.min else high
            raise invalid(
                f"JSON Value: {worst} is out of the range of {type_name(dtype)}: "
                f"{dtype.min} to {dtype.max}"
            )
    with np.errstate(over="ignore"):
        return array.astype(dtype.as_numpy_dtype)


def _filled(value: Any, dtype: tf.DType) -> npt.NDArray[Any]:
    """Returns a value, a list or lists of lists as an array; says exactly what does not fit."""
    shape: list[int] = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    if len(shape) >= _MAX_DIMENSIONS:
        raise invalid(f"lists {len(shape)} deep: a tensor has at most {_MAX_DIMENSIONS} dimensions")
    leaves: list[Any] = []
    _collect(value, tuple(shape), dtype, leaves)
    if dtype == tf.string:
        array = np.empty(len(leaves), object)
        array[:] = leaves
        return array.reshape(shape)
    # Integers as Python's own, which hold any.
    kind: Any = object if dtype.is_integer else dtype.as_numpy_dtype
    with np.errstate(over="ignore"):
        return _narrowed(np.array(leaves, kind).reshape(shape), dtype)


def _collect(value: Any, shape: tuple[int, ...], dtype: tf.DType, leaves: list[Any]) -> None:
    """Appends the leaves of a value of `shape`, in their order."""
    stack = [(value, 0)]
    while stack:
        value, level = stack.pop()
        if not isinstance(value, list):
            if level != len(shape):
                raise invalid(
                    f"JSON Value: {shortened(value)} found at incorrect level: {level + 1} "
                    f"in the JSON DOM. Expected at level: {len(shape)}"
                )
            leaves.append(_leaf(value, dtype))
        elif level >= len(shape):
            raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        elif len(value) != shape[level]:
            raise invalid(
                f"Encountered list at unexpected size: {len(value)} at level: {level} "
                f"expected size: {shape[level]}"
            )
        else:
            stack.extend((item, level + 1) for item in reversed(value))


def _leaf(value: Any, dtype: tf.DType) -> Any:
    if dtype == tf.string:
        if is_encoded(value):
            return decoded(value)
        if isinstance(value, str):
            return value.encode()
    elif dtype == tf.bool:
        if isinstance(value, bool):
            return value
    elif type_name(dtype) not in JSON_TYPES:
        raise ServingError(
            StatusCode.UNIMPLEMENTED,
            f"Conversion of JSON Value: {shortened(value)} to type: {type_name(dtype)}",
        )
    elif isinstance(value, (int, float) if dtype.is_floating else int) and type(value) is not bool:
        return _float(value) if dtype.is_floating else value
    raise invalid(
        f"JSON Value: {shortened(value)} Type: {json_kind(value)} "
        f"is not of expected type: {type_name(dtype)}"
    )


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of over 308 digits
        return math.copysign(math.inf, value > 0 or -1)


def json_kind(value: Any) -> str:
    """Returns what JSON calls a value's type."""
    return _JSON_KINDS[type(value)]


_JSON_KINDS = {
    dict: "Object",
    list: "Array",
    str: "String",
    bool: "Bool",
    int: "Number",
    float: "Number",
    type(None): "Null",
}
# No half precision, no complex numbers: they have no form in JSON.
JSON_TYPES = {"float", "double", "bool", "string"} | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}


def type_name(dtype: tf.DType) -> str:
    """Returns what TensorFlow Serving calls a type."""
    names = {tf.float32: "float", tf.float64: "double", tf.half: "half"}
    return names.get(dtype) or str(dtype.name)


def decoded(value: Mapping[str, Any]) -> bytes:
    """Returns the bytes of {"b64": ...}; raises ServingError if that is not base64.

    As absl's Base64Unescape does: white space may be anywhere, and the padding may be left out.
    """
    text = value[BYTES_KEY]
    if isinstance(text, str):
        with suppress(ValueError):
            packed = text.encode("ascii").translate(None, _ASCII_SPACE)
            content = packed.rstrip(_PADDING)
            missing = -len(content) % 4
            if len(packed) - len(content) in (0, missing):
                return base64.b64decode(content + b"=" * missing, validate=True)
    raise invalid(f"Unable to base64 decode {shortened(text)} to string")


def is_encoded(value: Any) -> bool:
    """Returns whether a value is the JSON form of bytes: {"b64": ...}."""
    return isinstance(value, dict) and set(value) == {BYTES_KEY}


@contextmanager
def in_row(position: int) -> Iterator[None]:
    """Says of an error in which row it is."""
    try:
        yield
    except ServingError as error:
        raise ServingError(
            error.code,
            f"Failed to process element: {position} of 'instances' list. "
            f"Error: {error.code.name}: {error.message}",
        ) from error
