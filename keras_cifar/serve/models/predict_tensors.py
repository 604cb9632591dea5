"""Predict: named arrays in, named arrays out, checked before they can harm anybody else's."""

from collections.abc import Iterable
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from grpc import StatusCode
from tensorflow_serving.apis import predict_pb2

from keras_cifar.serve.memory import Hold
from keras_cifar.serve.models.model_info import describe
from keras_cifar.serve.models.servable import Arrays, Servable
from keras_cifar.serve.models.tensors import to_array, to_proto
from keras_cifar.serve.serving_error import ServingError, invalid
from keras_cifar.serving import BYTES_INPUT, DEFAULT_SIGNATURE


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
    if BYTES_INPUT not in inputs or inputs[BYTES_INPUT].dtype != object:
        return servable.run(signature_name, inputs, deadline=deadline)
    decoding = servable.runtime.decoding
    work = decoding.work(inputs[BYTES_INPUT].ravel())
    with decoding.turn(work, deadline=deadline):
        in_a_batch = decoding.is_small(work)
        return servable.run(signature_name, inputs, deadline=deadline, in_a_batch=in_a_batch)


def _check_tensor(name: str, array: npt.NDArray[Any], info: Any) -> None:
    expected, got = tf.as_dtype(info.dtype), tf.as_dtype(array.dtype)
    if got != expected:
        raise invalid(f"input {name}: got type {got.name}, expected {expected.name}")
    if not tf.TensorShape(info.tensor_shape).is_compatible_with(array.shape):
        sizes = [dim.size for dim in info.tensor_shape.dim]
        raise invalid(f"input {name}: got shape {list(array.shape)}, expected {sizes}")
