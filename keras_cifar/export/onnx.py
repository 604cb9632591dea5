"""The model in ONNX, for ONNX Runtime and what else reads that."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import IMAGE_SHAPE
from keras_cifar.model_dir import FORMAT_FILES

_OUTPUT = "probabilities"
_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def write(model: keras.Model, folder: Path) -> None:
    """Writes model.onnx with the input `image` and the output `probabilities`.

    Args:
        model: images uint8 (n, 32, 32, 3) to probabilities float32 (n, 10).
        folder: exists.
    """
    import onnx

    path = folder / FORMAT_FILES["onnx"]
    spec = keras.InputSpec(shape=(None, *IMAGE_SHAPE), dtype="uint8", name="image")
    with warnings.catch_warnings(), _log_level_kept():
        # Keras's own way of getting tf2onnx past NumPy 2.
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        model.export(str(path), format="onnx", verbose=False, input_signature=[spec])
    document = onnx.load(str(path))
    _rename_output(document)
    onnx.checker.check_model(document, full_check=True)
    onnx.save(document, str(path))


@contextmanager
def _log_level_kept() -> Iterator[None]:
    """Takes back what tf2onnx sets for good when it is imported, which silences TensorFlow."""
    before = os.environ.get(_LOG_LEVEL)
    try:
        yield
    finally:
        os.environ.pop(_LOG_LEVEL, None)
        if before is not None:
            os.environ[_LOG_LEVEL] = before


def _rename_output(document: Any) -> None:
    """Calls the only output by its name; the exporter calls it after an inner operation."""
    (output,) = document.graph.output
    for node in document.graph.node:
        if output.name in node.output:
            node.output[list(node.output).index(output.name)] = _OUTPUT
    output.name = _OUTPUT


def probabilities(
    folder: Path, batches: Sequence[npt.NDArray[np.uint8]]
) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Has ONNX Runtime classify images, as `saved_model.probabilities` does."""
    import onnxruntime

    path = folder / FORMAT_FILES["onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return {"image": [session.run([_OUTPUT], {"image": batch})[0] for batch in batches]}
