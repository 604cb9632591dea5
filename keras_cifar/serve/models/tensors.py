"""tensorflow.TensorProto to arrays and back."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from keras_cifar.serve.serving_error import invalid

# The field that holds values of a type. `tf.make_tensor_proto` packs them into tensor_content,
# but TensorFlow Serving's clients have learnt to read these.
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    **dict.fromkeys([tf.uint8, tf.int8, tf.uint16, tf.int16, tf.int32], "int_val"),
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.half: "half_val",
    tf.bfloat16: "half_val",
}
_MAX_DIMENSIONS = 64  # of NumPy
# What each string takes beyond its bytes: tensorflow::tstring.
_STRING_BYTES = 24


def to_array(proto: Any, *, max_bytes: int, hold: Callable[[int], None]) -> npt.NDArray[Any]:
    """Returns a TensorProto's value.

    Args:
        proto: a few bytes of it may claim a value of any size, filled with one number.
        max_bytes: of the value; beyond, it is refused.
        hold: is told how many bytes there will be more in memory.

    Raises:
        ServingError: it is not well-formed, or too large.
    """
    try:
        dtype = tf.as_dtype(proto.dtype)
        shape = [dim.size for dim in proto.tensor_shape.dim]
        if len(shape) > _MAX_DIMENSIONS:  # whose product might have megabytes
            raise invalid(f"malformed tensor: {len(shape)} dimensions, at most {_MAX_DIMENSIONS}")
        if dtype in (tf.resource, tf.variant):
            raise invalid(f"tensor of type {dtype.name}: expected numbers or strings")
        size = _bytes(proto, dtype, math.prod(shape))
        if min(shape, default=0) < 0 or size > max_bytes:
            raise invalid(f"tensor of shape {shape}: expected at most {max_bytes} bytes")
        hold(size)
        return np.asarray(tf.make_ndarray(proto))
    except (TypeError, ValueError, OverflowError) as error:
        raise invalid(f"malformed tensor: {error}") from error


def _bytes(proto: Any, dtype: tf.DType, elements: int) -> int:
    if dtype != tf.string:
        return int(elements * dtype.size)
    sizes = [len(value) for value in proto.string_val] or [0]
    filling = max(0, elements - len(sizes)) * sizes[-1]
    return _STRING_BYTES * elements + sum(sizes) + filling


def to_proto(array: npt.NDArray[Any]) -> Any:
    """Returns an array as a TensorProto with one field entry a value."""
    dtype = tf.as_dtype(array.dtype)
    field = _FIELDS.get(dtype)
    if field is None:
        return tf.make_tensor_proto(array)
    shape = tf.TensorShape(array.shape).as_proto()
    bits = array.view(np.uint16) if field == "half_val" else array
    values = {field: bits.ravel().tolist()}
    return TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=shape, **values)
