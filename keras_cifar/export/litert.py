"""The model in LiteRT (TensorFlow Lite), for phones and small devices."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from keras_cifar.model_dir import FORMAT_FILES


def write(model: keras.Model, folder: Path) -> None:
    """Writes model.tflite with the signature `serving_default`: `image` to `output_0`.

    Args:
        model: images uint8 (n, 32, 32, 3) to probabilities float32 (n, 10).
        folder: exists.
    """
    model.export(str(folder / FORMAT_FILES["litert"]), format="litert", verbose=False)


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
