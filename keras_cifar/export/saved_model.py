"""The SavedModel: what TensorFlow Serving loads, and the same road to load it by."""

import shutil
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_cifar.cifar10 import CLASS_NAMES, IMAGE_SHAPE, NUM_CLASSES
from keras_cifar.errors import first_line
from keras_cifar.image.decode import image_from_bytes
from keras_cifar.serving import BYTES_INPUT, BYTES_SIGNATURE, IMAGE_INPUT, IMAGE_SIGNATURE
from keras_cifar.tf1_loader import load_saved_model

# What both signatures give for n images: name, type and shape.
_OUTPUTS = {
    "probabilities": (tf.float32, [None, NUM_CLASSES]),
    "label": (tf.string, [None]),
    "class_id": (tf.int64, [None]),
}
_INPUTS = {
    IMAGE_SIGNATURE: (IMAGE_INPUT, tf.uint8, [None, *IMAGE_SHAPE]),
    BYTES_SIGNATURE: (BYTES_INPUT, tf.string, [None]),
}
# They run Python, which a server has not got.
_PYTHON_OPERATIONS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
# TensorFlow Serving refuses it unless it is started with a flag.
_COMPILED_ONLY = "_XlaMustCompile"


def write(model: keras.Model, folder: Path) -> None:
    """Writes a SavedModel with a signature for pixels and one for encoded images.

    The weights are variables, once each, for both signatures. As constants of the graph they would
    be 8 % faster for single images, but a loaded version would take 300 MB more memory (Intel
    Xeon with AVX-512, 2 cores, TensorFlow 2.21, November 2026). A server has that speed for 30 MB
    from TF_ONEDNN_ASSUME_FROZEN_WEIGHTS, which `deploy` sets.

    Args:
        model: images uint8 (n, 32, 32, 3) to probabilities float32 (n, 10).
        folder: exists and is empty.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]

    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = model(image, training=False)
        class_id = tf.argmax(probabilities, axis=1)
        label = tf.gather(tf.constant(CLASS_NAMES), class_id)
        return {"probabilities": probabilities, "label": label, "class_id": class_id}

    def classify_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = tf.TensorSpec(IMAGE_SHAPE, tf.uint8)
        return classify(tf.map_fn(image_from_bytes, image_bytes, fn_output_signature=spec))

    functions = {IMAGE_SIGNATURE: classify, BYTES_SIGNATURE: classify_bytes}
    signatures = {
        signature: tf.function(functions[signature], [tf.TensorSpec(shape, dtype, name)])
        for signature, (name, dtype, shape) in _INPUTS.items()
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    # TensorFlow removes its own, and goes on if it cannot.
    leftover = folder / "variables" / "variables_temp"
    if leftover.exists():
        shutil.rmtree(leftover)


def probabilities(
    folder: Path, batches: Sequence[npt.NDArray[np.uint8]]
) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Has a SavedModel classify images, both as pixels and as encoded images.

    It is loaded by the loader that TensorFlow Serving uses, and checked for what a server would
    stumble over.

    Args:
        folder: of the SavedModel.
        batches: each uint8 (n, 32, 32, 3).

    Returns:
        By signature, for each batch, float32 (n, 10).

    Raises:
        OSError: its weights are missing.
        RuntimeError: as `check_graph`.
    """
    encoded = [[tf.io.encode_png(image).numpy() for image in batch] for batch in batches]
    inputs: dict[str, Sequence[Any]] = {IMAGE_SIGNATURE: batches, BYTES_SIGNATURE: encoded}
    found = {}
    # On the CPU, since a GPU may round to TF32.
    config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        try:
            meta_graph = load_saved_model(session, folder)
        except ValueError as error:
            raise OSError(f"{folder}: cannot be read again ({first_line(error)}).") from error
        check_graph(meta_graph)
        for name, values in inputs.items():
            signature = meta_graph.signature_def[name]
            (given,) = signature.inputs.values()
            wanted = signature.outputs["probabilities"]
            found[name] = [session.run(wanted.name, {given.name: batch}) for batch in values]
    return found


def check_graph(meta_graph: Any) -> None:
    """Raises RuntimeError for a graph that a server would refuse, or answer otherwise from."""
    found = {
        name: (_described(signature.inputs), _described(signature.outputs))
        for name, signature in meta_graph.signature_def.items()
        if not name.startswith("__")  # TensorFlow's own
    }
    expected = {
        name: ({given: (dtype, shape)}, _OUTPUTS) for name, (given, dtype, shape) in _INPUTS.items()
    }
    if found != expected:
        raise RuntimeError(f"signatures: got {found}, expected {expected}.")
    graph = meta_graph.graph_def
    functions = graph.library.function
    for node in chain(graph.node, *(function.node_def for function in functions)):
        if node.op in _PYTHON_OPERATIONS:
            raise RuntimeError(f"{node.name}: got {node.op}, which runs Python; expected none.")
        if node.attr[_COMPILED_ONLY].b:
            raise RuntimeError(f"{node.name}: has {_COMPILED_ONLY}, which servers refuse.")


def _described(tensors: Any) -> dict[str, tuple[tf.DType, list[int | None]]]:
    return {
        name: (tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape).as_list())
        for name, info in tensors.items()
    }
