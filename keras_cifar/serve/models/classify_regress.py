"""Classify, regress and several of both at once: tf.Examples in, classes or values out."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from grpc import StatusCode
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from keras_cifar.serve.memory import Hold
from keras_cifar.serve.models.model_info import describe
from keras_cifar.serve.models.servable import Arrays, Servable
from keras_cifar.serve.serving_error import ServingError, invalid
from keras_cifar.serving import DEFAULT_SIGNATURE

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
# What the signatures for examples call their inputs and outputs.
_INPUTS, _CLASSES, _SCORES, _VALUES = "inputs", "classes", "scores", "outputs"


def classify(servable: Servable, request: Any, *, deadline: float) -> Any:
    """Answers a tensorflow.serving.ClassificationRequest with a ClassificationResponse.

    Raises:
        ServingError: the request is wrong, or could not be computed.
    """
    response = classification_pb2.ClassificationResponse()
    return _answered(servable, request, response, method=CLASSIFY, deadline=deadline)


def regress(servable: Servable, request: Any, *, deadline: float) -> Any:
    """Answers a tensorflow.serving.RegressionRequest with a RegressionResponse.

    Raises:
        ServingError: the request is wrong, or could not be computed.
    """
    response = regression_pb2.RegressionResponse()
    return _answered(servable, request, response, method=REGRESS, deadline=deadline)


def _answered(
    servable: Servable, request: Any, response: Any, *, method: str, deadline: float
) -> Any:
    """Fills `response` in and returns it."""
    name = _signature_name(servable, request.model_spec)
    _check_signature(servable.served[name], method=method)
    with Hold(servable.runtime.memory) as hold:
        examples = _examples(servable, request.input, hold)
        outputs = servable.run(name, {_INPUTS: examples}, deadline=deadline)
    describe(servable, response.model_spec, signature_name=name)
    _FILL[method](response.result, outputs, count=len(examples))
    return response


def multi_inference(servable: Servable, request: Any, *, deadline: float) -> Any:
    """Answers a tensorflow.serving.MultiInferenceRequest with a MultiInferenceResponse.

    Raises:
        ServingError: the request is wrong, or could not be computed.
    """
    _check_tasks(servable, request.tasks)
    with Hold(servable.runtime.memory) as hold:
        examples = _examples(servable, request.input, hold)
        return _answered_all(servable, request.tasks, examples, deadline=deadline)


def _answered_all(
    servable: Servable, tasks: Any, examples: npt.NDArray[np.object_], *, deadline: float
) -> Any:
    response = inference_pb2.MultiInferenceResponse()
    for task in tasks:
        name = _signature_name(servable, task.model_spec)
        result = response.results.add()
        describe(servable, result.model_spec, signature_name=name)
        is_classification = task.method_name == CLASSIFY
        part = result.classification_result if is_classification else result.regression_result
        _check_signature(servable.served[name], method=task.method_name)
        outputs = servable.run(name, {_INPUTS: examples}, deadline=deadline)
        _FILL[task.method_name](part, outputs, count=len(examples))
    return response


def _check_tasks(servable: Servable, tasks: Any) -> None:
    names = [_signature_name(servable, task.model_spec) for task in tasks]
    for task, name in zip(tasks, names, strict=True):
        if task.model_spec.name != tasks[0].model_spec.name:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name. "
                f"Expected: {tasks[0].model_spec.name}, got: {task.model_spec.name}"
            )
        if names.count(name) > 1:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        if task.method_name not in _FILL:
            raise ServingError(
                StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
            )


def _signature_name(servable: Servable, model_spec: Any) -> str:
    name = str(model_spec.signature_name) or DEFAULT_SIGNATURE
    if name not in servable.served:
        raise invalid(f"No signature was found with the name: {name}; signature not found")
    return name


def _check_signature(signature: Any, *, method: str) -> None:
    kind = "classification" if method == CLASSIFY else "regression"
    if _INPUTS not in signature.inputs:
        raise invalid(f"No {kind} inputs found in SignatureDef: {list(signature.inputs)}")
    if method == CLASSIFY and not {_CLASSES, _SCORES} & set(signature.outputs):
        raise invalid(
            "Expected classification signature outputs to contain at least one of "
            f'"{_CLASSES}" or "{_SCORES}". Signature was: {list(signature.outputs)}'
        )
    if method == REGRESS and _VALUES not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {list(signature.outputs)}")


def _examples(servable: Servable, given: Any, hold: Hold) -> npt.NDArray[np.object_]:
    """Returns the serialised tf.Examples of a tensorflow.serving.Input; never none."""
    kind = given.WhichOneof("kind")
    if kind is None or not getattr(given, kind).examples:
        raise invalid("Input is empty")
    examples = getattr(given, kind).examples
    hold.add(given.ByteSize())
    if kind == "example_list_with_context":
        context = given.example_list_with_context.context
        size, limit = context.ByteSize() * len(examples), servable.runtime.limits.body_bytes
        if size > limit:
            raise invalid(f"the context, for each example: {size} bytes, expected at most {limit}")
        hold.add(size)
        # One message after another is both, merged, as protobuf and tf.io.parse_example read it.
        shared = context.SerializeToString()
        return np.array([shared + example.SerializeToString() for example in examples], object)
    return np.array([example.SerializeToString() for example in examples], object)


def _fill_classifications(result: Any, outputs: Arrays, *, count: int) -> None:
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    _check_output(classes, "classes", dtype=tf.string, count=count)
    _check_output(scores, "scores", dtype=tf.float32, count=count)
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid(
            "Tensors class and score should match in dim_size(1). Got "
            f"{classes.shape[1]} vs. {scores.shape[1]}"
        )
    width = (classes if scores is None else scores).shape[1]  # type: ignore[union-attr]
    for row in range(count):
        entry = result.classifications.add()
        for column in range(width):
            label = b"" if classes is None else classes[row, column]
            score = 0.0 if scores is None else scores[row, column]
            entry.classes.add(label=label, score=score)


def _check_output(
    output: npt.NDArray[Any] | None, name: str, *, dtype: tf.DType, count: int
) -> None:
    if output is None:
        return
    if tf.as_dtype(output.dtype) != dtype:
        got = tf.as_dtype(output.dtype).name
        kind = {tf.string: "DT_STRING", tf.float32: "DT_FLOAT"}[dtype]
        raise invalid(f"Expected {name} Tensor of {kind}. Got: {got}")
    if output.ndim != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {output.shape}")
    if len(output) != count:
        raise invalid(
            f"Expected {name} output batch size to be {count}. Got: {len(output)} (batch size)"
        )


def _fill_regressions(result: Any, outputs: Arrays, *, count: int) -> None:
    values = outputs[_VALUES]
    if tf.as_dtype(values.dtype) != tf.float32 or values.size != count:
        raise invalid(
            f"Expected regression Tensor of DT_FLOAT and batch size {count}. "
            f"Got: {values.dtype}, shape {list(values.shape)}"
        )
    for value in values.ravel().tolist():
        result.regressions.add(value=value)


_FILL = {CLASSIFY: _fill_classifications, REGRESS: _fill_regressions}
