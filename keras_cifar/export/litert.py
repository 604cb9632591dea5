"""The model in LiteRT (TensorFlow Lite), for phones and small devices."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_cifar.model_dir import FORMAT_FILES


def write(model: keras.Model, folder: Path) -> None:
    """Writes model.tflite with the signature `serving_default`: `image` to `output_0`.

    Args:
        model: images uint8 (n, 32, 32, 3) to probabilities float32 (n, 10).
        folder: exists.
    """
    # As Keras does for `format="litert"`; Keras 3.12, the last for Python 3.10, has no such format.
    with tempfile.TemporaryDirectory() as saved_model:
        model.export(saved_model, format="tf_saved_model", verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
        (folder / FORMAT_FILES["litert"]).write_bytes(converter.convert())


def probabilities(
    folder: Path, batches: Sequence[npt.NDArray[np.uint8]]
) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Has the LiteRT interpreter classify images, as `saved_model.probabilities` does."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / FORMAT_FILES["litert"]))
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for batch in batches:
        interpreter.resize_tensor_input(given["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], batch)
        interpreter.invoke()
        found.append(interpreter.get_tensor(wanted["index"]))
    return {"image": found}
