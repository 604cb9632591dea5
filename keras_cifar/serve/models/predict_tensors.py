"""Predict: named arrays in, named arrays out, checked before they can harm anybody else's."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from grpc import StatusCode
from tensorflow_serving.apis import predict_pb2

from keras_cifar.image.header import check_header
from keras_cifar.serve.memory import Hold
from keras_cifar.serve.models.model_info import describe
from keras_cifar.serve.models.servable import Arrays, Servable
from keras_cifar.serve.models.tensors import to_array, to_proto
from keras_cifar.serve.serving_error import ServingError, invalid
from keras_cifar.serving import BYTES_INPUT, DEFAULT_SIGNATURE

# The marker of a scan: a few bytes, for which the decoder goes over all pixels. A progressive JPEG
# has about 10 of them, and its previews as many.
_JPEG_SCAN, _MAX_JPEG_SCANS = b"\xff\xda", 100


def predict(servable: Servable, request: Any, *, deadline: float) -> Any:
    """Answers a tensorflow.serving.PredictRequest with a PredictResponse.

    Args:
        servable: that the request's model_spec chose.
        request: its inputs must be those of its signature.
        deadline: seconds since the epoch.

    Raises:
        ServingError: the request is wrong, or could not be computed.
    """
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if name not in servable.served:
        raise ServingError(
            StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
        )
    signature = servable.served[name]
    _check_names(request.inputs, expected=signature.inputs)
    wanted = _wanted(list(request.output_filter), present=signature.outputs)
    limit = servable.runtime.limits.body_bytes
    with Hold(servable.runtime.memory) as hold:
        inputs = {
            key: to_array(proto, max_bytes=limit, hold=hold.add)
            for key, proto in request.inputs.items()
        }
        outputs = run(servable, name, inputs, deadline=deadline)
    response = predict_pb2.PredictResponse()
    describe(servable, response.model_spec, signature_name=name)
    for key in wanted:
        response.outputs[key].CopyFrom(to_proto(outputs[key]))
    return response


def _check_names(given: Iterable[str], *, expected: Iterable[str]) -> None:
    extra = sorted(set(given) - set(expected))
    missing = sorted(set(expected) - set(given))
    if len(extra) != len(missing):
        sizes = f"{len(set(given))}!={len(set(expected))}"
        raise invalid(
            f"input size does not match signature: {sizes} len({_braced(given)}) != "
            f"len({_braced(expected)}). Sent extra: {_braced(extra)}. "
            f"Missing but required: {_braced(missing)}."
        )
    if extra:
        raise invalid(
            f"input tensor alias not found in signature: {extra[0]}. "
            f"Inputs expected to be in the set {_braced(expected)}."
        )


def _wanted(filters: list[str], *, present: Iterable[str]) -> list[str]:
    for name in filters:
        if name not in present:
            raise invalid(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {_braced(present)}."
            )
        if filters.count(name) > 1:
            raise invalid(f"duplicate output tensor alias: {name}")
    return filters or list(present)


def _braced(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"


def run(servable: Servable, signature_name: str, inputs: Arrays, *, deadline: float) -> Arrays:
    """Computes a signature's outputs from inputs that bear its names.

    Raises:
        ServingError: a type, a shape or an image is wrong, or it could not be computed.
    """
    for name, info in servable.served[signature_name].inputs.items():
        _check_tensor(name, inputs[name], info)
    if BYTES_INPUT in inputs and inputs[BYTES_INPUT].dtype == object:
        _check_images(inputs[BYTES_INPUT], max_pixels=servable.runtime.limits.pixels)
    return servable.run(signature_name, inputs, deadline=deadline)


def _check_tensor(name: str, array: npt.NDArray[Any], info: Any) -> None:
    expected, got = tf.as_dtype(info.dtype), tf.as_dtype(array.dtype)
    if got != expected:
        raise invalid(f"input {name}: got type {got.name}, expected {expected.name}")
    if not tf.TensorShape(info.tensor_shape).is_compatible_with(array.shape):
        sizes = [dim.size for dim in info.tensor_shape.dim]
        raise invalid(f"input {name}: got shape {list(array.shape)}, expected {sizes}")


def _check_images(images: npt.NDArray[np.object_], *, max_pixels: int) -> None:
    """Refuses what no decoder should see: it would fail, or exhaust, a batch with others' images.

    A server of TensorFlow alone would let the decoder find out.
    """
    for position, encoded in enumerate(images.ravel()):
        try:
            header = check_header(encoded, max_pixels=max_pixels)
        except ValueError as error:
            raise invalid(f"{BYTES_INPUT}[{position}]: {error}") from error
        if header.format == "JPEG" and (scans := encoded.count(_JPEG_SCAN)) > _MAX_JPEG_SCANS:
            raise invalid(
                f"{BYTES_INPUT}[{position}]: a JPEG of {scans} scans; at most {_MAX_JPEG_SCANS} "
                "are read, since each goes over the whole image. Save it anew"
            )
