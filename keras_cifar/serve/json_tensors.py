"""TensorFlow Serving's JSON form of tensors: by row ("instances") or by column ("inputs")."""

import base64
import binascii
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from grpc import StatusCode

from keras_cifar.serve.errors import ServingError, invalid
from keras_cifar.serve.json_body import shortened
from keras_cifar.serve.predict import DEFAULT_SIGNATURE
from keras_cifar.serve.servable import Arrays

ROWS, COLUMNS = "instances", "inputs"
_B64 = "b64"


def signature_name(body: Mapping[str, Any]) -> str:
    """Returns which signature a body asks for."""
    name = body.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(name, str):
        raise invalid(f"'signature_name' key must be a string value. Got: {shortened(name)}")
    return name or DEFAULT_SIGNATURE


def request_format(body: Mapping[str, Any]) -> str:
    """Returns "instances" or "inputs", whichever the body has."""
    present = [key for key in (ROWS, COLUMNS) if key in body]
    if not present:
        raise invalid("Missing 'inputs' or 'instances' key")
    if len(present) > 1:
        raise invalid(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        )
    return present[0]


def read_inputs(body: Mapping[str, Any], infos: Mapping[str, Any]) -> Arrays:
    """Reads the tensors of a Predict request.

    Args:
        body: as `parse_body` gave it.
        infos: the signature's inputs, tensorflow.TensorInfo by name.

    Raises:
        ServingError: they are not what the signature takes; the text is TensorFlow Serving's.
    """
    key = request_format(body)
    if key == COLUMNS:
        return _read_columns(body[key], infos)
    rows = body[key]
    if not isinstance(rows, list):
        raise invalid("Expecting 'instances' to be an list/array")
    if not rows:
        raise invalid("No values in 'instances' array")
    if not _is_named(rows[0]):
        return _read_plain_rows(rows, infos)
    return _read_named_rows(rows, infos)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_encoded(value)


def is_encoded(value: Any) -> bool:
    """Returns whether a value is the JSON form of bytes: {"b64": ...}."""
    return isinstance(value, dict) and set(value) == {_B64}


def _read_columns(columns: Any, infos: Mapping[str, Any]) -> Arrays:
    if not _is_named(columns):
        if len(infos) != 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                f"required as per tensorinfo_map: {sorted(infos)}"
            )
        (name,) = infos
        columns = {name: columns}
    missing = [name for name in infos if name not in columns]
    if missing:
        raise invalid(f"Missing named input: {missing[0]} in 'inputs' object.")
    return {name: _tensor(columns[name], _dtype(info)) for name, info in infos.items()}


def _read_plain_rows(rows: list[Any], infos: Mapping[str, Any]) -> Arrays:
    if len(infos) != 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            f"required as per tensorinfo_map: {sorted(infos)}"
        )
    for position, row in enumerate(rows):
        if _is_named(row):
            raise invalid(f"Expecting value/list but got object at item {position} of input list")
    ((name, info),) = infos.items()
    return {name: _stacked(rows, _dtype(info))}


def _read_named_rows(rows: list[Any], infos: Mapping[str, Any]) -> Arrays:
    for position, row in enumerate(rows):
        if not _is_named(row):
            raise invalid(f"Expecting object but got {_kind(row)} at item {position} of input list")
        with _in_row(position):
            for name in row:
                if name not in infos:
                    raise invalid(f"JSON object: does not have named input: {name}")
            if len(row) != len(infos):
                raise invalid(
                    f"JSON object: {shortened(row)} keys must be equal to: "
                    f"{','.join(sorted(infos))}"
                )
    return {
        name: _stacked([row[name] for row in rows], _dtype(info)) for name, info in infos.items()
    }


def _kind(value: Any) -> str:
    return "list" if isinstance(value, list) else "value"


@contextmanager
def _in_row(position: int) -> Iterator[None]:
    """Says of an error in which row it is."""
    try:
        yield
    except ServingError as error:
        raise ServingError(
            error.code,
            f"Failed to process element: {position} of 'instances' list. "
            f"Error: {error.code.name}: {error.message}",
        ) from error


def _dtype(info: Any) -> tf.DType:
    return tf.as_dtype(info.dtype)


def _stacked(rows: list[Any], dtype: tf.DType) -> npt.NDArray[Any]:
    """Returns rows of one shape as one array."""
    quick = _quick(rows, dtype)
    if quick is not None:
        return quick
    arrays: list[npt.NDArray[Any]] = []
    for position, row in enumerate(rows):
        with _in_row(position):
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


def _tensor(value: Any, dtype: tf.DType) -> npt.NDArray[Any]:
    quick = _quick(value, dtype)
    return _filled(value, dtype) if quick is None else quick


def _quick(value: Any, dtype: tf.DType) -> npt.NDArray[Any] | None:
    """Returns numbers as an array by NumPy, a hundred times faster; None where it would not do."""
    if _type_name(dtype) not in _JSON_TYPES or not (dtype.is_integer or dtype.is_floating):
        return None
    try:
        array = np.array(value)
    except (ValueError, OverflowError):  # lists of unequal length
        return None
    # Mixed with numbers, a truth value passes for 0 or 1.
    if array.dtype.kind not in ("iu" if dtype.is_integer else "iuf"):
        return None
    return _narrowed(array, dtype)


def _narrowed(array: npt.NDArray[Any], dtype: tf.DType) -> npt.NDArray[Any]:
    """Returns numbers in the type of a tensor; unlike TensorFlow Serving, refuses what overflows.

    Too large for a float is infinite, in both.
    """
    if dtype.is_integer and array.size:
        low, high = array.min(), array.max()
        if low < dtype.min or high > dtype.max:
            worst = low if low < dtype.min else high
            raise invalid(
                f"JSON Value: {worst} is out of the range of {_type_name(dtype)}: "
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
    elif _type_name(dtype) not in _JSON_TYPES:
        raise ServingError(
            StatusCode.UNIMPLEMENTED,
            f"Conversion of JSON Value: {shortened(value)} to type: {_type_name(dtype)}",
        )
    elif isinstance(value, (int, float) if dtype.is_floating else int) and type(value) is not bool:
        return _float(value) if dtype.is_floating else value
    raise invalid(
        f"JSON Value: {shortened(value)} Type: {json_kind(value)} "
        f"is not of expected type: {_type_name(dtype)}"
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
_JSON_TYPES = {"float", "double", "bool", "string"} | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}


def _type_name(dtype: tf.DType) -> str:
    names = {tf.float32: "float", tf.float64: "double", tf.half: "half"}
    return names.get(dtype) or str(dtype.name)


def decoded(value: Mapping[str, Any]) -> bytes:
    """Returns the bytes of {"b64": ...}; raises ServingError if that is not base64."""
    text = value[_B64]
    try:
        if isinstance(text, str):
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        pass
    raise invalid(f"Unable to base64 decode {shortened(text)} to string")


def predictions_json(outputs: Arrays, *, key: str) -> bytes:
    """Writes the outputs of a Predict request.

    Args:
        outputs: by name; a single one's name is left out.
        key: "instances" for a list of rows under "predictions", "inputs" for "outputs".

    Raises:
        ServingError: an output has no form in JSON, or cannot be split into rows.
    """
    values = {name: _json_values(array, name) for name, array in outputs.items()}
    if key == COLUMNS:
        return _dumped({"outputs": values if len(values) > 1 else next(iter(values.values()))})
    if any(not array.ndim for array in outputs.values()):
        names = [name for name, array in outputs.items() if not array.ndim]
        raise invalid(f"Tensor name: {names[0]} has no shape information")
    sizes = {len(array) for array in outputs.values()}
    if len(sizes) > 1:
        raise invalid(f"Tensors have inconsistent batch size: {', '.join(map(str, sorted(sizes)))}")
    if len(values) == 1:
        return _dumped({"predictions": next(iter(values.values()))})
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return _dumped({"predictions": rows})


def _json_values(array: npt.NDArray[Any], name: str) -> Any:
    dtype = tf.as_dtype(array.dtype)
    if _type_name(dtype) not in _JSON_TYPES:
        raise invalid(f"Failed to write JSON value for tensor type: {_type_name(dtype)}")
    if dtype == tf.string:
        return _strings(array.tolist(), as_bytes=name.endswith("_bytes"))
    if dtype == tf.float32:
        return shortest(array)
    return array.tolist()


def shortest(array: npt.NDArray[Any]) -> Any:
    """Returns the doubles that print shortest among those that are read as the same float32s."""
    return array.astype(np.str_).astype(np.float64).tolist()


def _strings(value: Any, *, as_bytes: bool) -> Any:
    if isinstance(value, list):
        return [_strings(item, as_bytes=as_bytes) for item in value]
    if as_bytes:
        return {_B64: base64.b64encode(value).decode()}
    return value.decode(errors="replace")


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()
