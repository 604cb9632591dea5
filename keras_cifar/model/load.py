"""Model file -> model, with nothing in the file that could run code of its own."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_cifar.cifar10 import IMAGE_SHAPE, NUM_CLASSES
from keras_cifar.errors import first_line
from keras_cifar.model.foreign import check_scale, refuse_probabilities

_WEIGHTS = "model.weights.h5"  # Keras's name; its other format, npz, is an archive within
_REMEDY = "Name a model.keras, or the folder of a run, that keras-cifar train wrote."


def load_model(path: Path) -> keras.Model:
    """Loads a classifier for CIFAR-10, uncompiled.

    Args:
        path: a .keras file. It may come from anywhere: Keras's safe mode stays on, so that a
            file with Python code in it (a Lambda layer) is refused.

    Returns:
        Images (n, 32, 32, 3), in 0..255, to logits (n, 10).

    Raises:
        OSError: no such file, not a Keras model, or one with other inputs or outputs: of another
            shape or scale, or probabilities.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such model file. {_REMEDY}")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise OSError(f"{path}: not a Keras model (a .keras file is a zip archive). {_REMEDY}")
    try:
        model = keras.models.load_model(path, compile=False)
        _check_weights(path)
    except _LOAD_ERRORS as error:
        raise OSError(f"{path}: not a Keras model ({first_line(error)}). {_REMEDY}") from error
    _check_shapes(model, path=path)
    refuse_probabilities(model, path=path)
    check_scale(model, path=path)
    return model


# Keras checks little of what it reads; a file of another origin fails wherever it differs.
_LOAD_ERRORS = (
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,  # NotImplementedError is one
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


def _check_weights(path: Path) -> None:
    """Raises zipfile.BadZipFile for weights that are not those that were written.

    Where Keras cannot read them at once, as when they are damaged, it seeks in the archive. Of
    what was found by seeking, zipfile of newer Pythons (3.13, not 3.11) checks nothing.
    """
    with zipfile.ZipFile(path) as archive:
        if _WEIGHTS in archive.namelist():
            archive.read(_WEIGHTS)


def _check_shapes(model: keras.Model, *, path: Path) -> None:
    expected = [(None, *IMAGE_SHAPE)], [(None, NUM_CLASSES)]
    found = tuple(
        [tuple(tensor.shape) for tensor in getattr(model, side, None) or []]
        for side in ("inputs", "outputs")
    )
    if found != expected:
        raise OSError(
            f"{path}: the model takes {_listed(found[0])} and gives {_listed(found[1])}; "
            f"expected {_listed(expected[0])} and {_listed(expected[1])}. {_REMEDY}"
        )


def _listed(shapes: Sequence[tuple[int | None, ...]]) -> str:
    return " and ".join(map(str, shapes)) or "unknown shapes"
