"""TensorFlow Serving's JSON form of a request: by row ("instances") or by column ("inputs")."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_cifar.serve.models.servable import Arrays
from keras_cifar.serve.rest.json_body import shortened
from keras_cifar.serve.rest.json_values import in_row, is_encoded, stacked, tensor
from keras_cifar.serve.serving_error import invalid
from keras_cifar.serving import DEFAULT_SIGNATURE

ROWS, COLUMNS = "instances", "inputs"


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
    dtypes = {name: tf.as_dtype(info.dtype) for name, info in infos.items()}
    if key == COLUMNS:
        return _read_columns(body[key], dtypes)
    rows = body[key]
    if not isinstance(rows, list):
        raise invalid("Expecting 'instances' to be an list/array")
    if not rows:
        raise invalid("No values in 'instances' array")
    if not _is_named(rows[0]):
        return _read_plain_rows(rows, dtypes)
    return _read_named_rows(rows, dtypes)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_encoded(value)


def _read_columns(columns: Any, dtypes: Mapping[str, tf.DType]) -> Arrays:
    if not _is_named(columns):
        if len(dtypes) != 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                f"required as per tensorinfo_map: {sorted(dtypes)}"
            )
        (name,) = dtypes
        columns = {name: columns}
    for name in dtypes:
        if name not in columns:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: tensor(columns[name], dtype) for name, dtype in dtypes.items()}


def _read_plain_rows(rows: list[Any], dtypes: Mapping[str, tf.DType]) -> Arrays:
    if len(dtypes) != 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            f"required as per tensorinfo_map: {sorted(dtypes)}"
        )
    for position, row in enumerate(rows):
        if _is_named(row):
            raise invalid(f"Expecting value/list but got object at item {position} of input list")
    ((name, dtype),) = dtypes.items()
    return {name: stacked(rows, dtype)}


def _read_named_rows(rows: list[Any], dtypes: Mapping[str, tf.DType]) -> Arrays:
    for position, row in enumerate(rows):
        if not _is_named(row):
            kind = "list" if isinstance(row, list) else "value"
            raise invalid(f"Expecting object but got {kind} at item {position} of input list")
        with in_row(position):
            for name in row:
                if name not in dtypes:
                    raise invalid(f"JSON object: does not have named input: {name}")
            if len(row) != len(dtypes):
                raise invalid(
                    f"JSON object: {shortened(row)} keys must be equal to: "
                    f"{','.join(sorted(dtypes))}"
                )
    return {name: stacked([row[name] for row in rows], dtype) for name, dtype in dtypes.items()}
