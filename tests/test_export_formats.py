"""ONNX and LiteRT files answer in their own runtimes as the Keras model does."""

import os

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keras_cifar.export import export
from keras_cifar.model.load import load_model
from keras_cifar.model_dir import version_format, versions


@pytest.fixture(scope="module")
def expected(trained_run, sample):
    logits = load_model(trained_run.model).predict(sample.images[:9], verbose=0)
    return tf.nn.softmax(logits).numpy()


@pytest.fixture(scope="module")
def onnx_version(trained_run, tmp_path_factory):
    before = dict(os.environ)
    exported = export(trained_run, tmp_path_factory.mktemp("onnx"), format="onnx")
    assert exported.difference <= 1e-5
    assert os.environ == before
    return exported.version


@pytest.fixture(scope="module")
def litert_version(trained_run, tmp_path_factory):
    exported = export(trained_run, tmp_path_factory.mktemp("litert"), format="litert")
    assert exported.difference <= 1e-5
    return exported.version


def test_onnx_runtime_gives_the_keras_models_answer(onnx_version, expected, sample):
    session = onnxruntime.InferenceSession(str(onnx_version / "model.onnx"))
    for images, wanted in ((sample.images[:9], expected), (sample.images[:1], expected[:1])):
        found = session.run(["probabilities"], {"image": images})[0]
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_onnx_has_one_named_input_and_one_named_output(onnx_version):
    graph = onnx.load(str(onnx_version / "model.onnx")).graph
    assert [value.name for value in graph.input] == ["image"]
    assert [value.name for value in graph.output] == ["probabilities"]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert not {node.op_type for node in graph.node} & {"BatchNormalization", "Dropout"}


def test_the_litert_interpreter_gives_the_keras_models_answer(litert_version, expected, sample):
    interpreter = Interpreter(str(litert_version / "model.tflite"))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], [9, 32, 32, 3])
    found = interpreter.get_signature_runner("serving_default")(image=sample.images[:9])
    np.testing.assert_allclose(found["output_0"], expected, atol=1e-5)


def test_each_format_has_a_folder_of_its_own(trained_run, onnx_version):
    assert version_format(onnx_version) == "onnx"
    with pytest.raises(FileExistsError, match=r"1: holds a model as onnx\. Name another"):
        export(trained_run, onnx_version.parent)
    assert list(versions(onnx_version.parent)) == [1]


def test_other_formats_are_in_float32(trained_run, tmp_path):
    with pytest.raises(ValueError, match="precision: got 'bfloat16', expected float32 with format"):
        export(trained_run, tmp_path, format="onnx", precision="bfloat16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "h5"}, "format: got 'h5', expected one of saved_model, onnx, litert."),
        ({"precision": "int4"}, "precision: got 'int4', expected one of float32, bfloat16."),
    ],
)
def test_what_cannot_be_exported_is_named(trained_run, tmp_path, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        export(trained_run, tmp_path, **options)
