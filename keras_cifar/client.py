"""Image files -> class probabilities, from a model on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.config import RunDir
from keras_cifar.image import image_from_bytes
from keras_cifar.image_header import MAX_PIXELS, check_header
from keras_cifar.model.load import load_model
from keras_cifar.model.predict import log_softmax, predict_logits

_BATCH_SIZE = 500
# An uncompressed image of as many pixels as are read, with alpha.
_MAX_BYTES = 4 * MAX_PIXELS


class Prediction(NamedTuple):
    """What a model sees in an image.

    Attributes:
        file: as it was named.
        label: the most probable class.
        probabilities: of every class, the most probable first; they add up to 1.
    """

    file: Path
    label: str
    probabilities: dict[str, float]


class Failure(NamedTuple):
    """Why a file got no prediction."""

    file: Path
    reason: str


def predict_files(paths: Sequence[Path], *, model: Path) -> list[Prediction | Failure]:
    """Classifies image files, all that can be read in one batch (500 at a time).

    Args:
        paths: files as `prepare_image` takes their content.
        model: the folder of a run, or a .keras file.

    Returns:
        For each path, in their order, a prediction, or why there is none.

    Raises:
        OSError: the model is missing or is none.
        FloatingPointError: the model's training had diverged.
    """
    classifier = load_model(RunDir(model).require_model() if model.is_dir() else model)
    images = [_read_image(path) for path in paths]
    readable = [image for image in images if not isinstance(image, Failure)]
    if not readable:
        return [image for image in images if isinstance(image, Failure)]
    logits = predict_logits(classifier, np.stack(readable), batch_size=_BATCH_SIZE)
    probabilities = iter(np.exp(log_softmax(logits)))
    return [
        image if isinstance(image, Failure) else _prediction(path, next(probabilities))
        for path, image in zip(paths, images, strict=True)
    ]


def _read_image(path: Path) -> npt.NDArray[np.uint8] | Failure:
    try:
        with path.open("rb") as file:
            return prepare_image(file.read(_MAX_BYTES + 1))
    except OSError as error:
        return Failure(path, error.strerror or str(error))
    except ValueError as error:
        return Failure(path, str(error))


def prepare_image(encoded: bytes) -> npt.NDArray[np.uint8]:
    """Makes what the model takes of an encoded image, as `image_from_bytes` does.

    Args:
        encoded: PNG, JPEG, BMP, GIF or WebP of any size up to 100 million pixels. Larger ones
            are refused by their header, before anything is decoded.

    Returns:
        uint8 (32, 32, 3).

    Raises:
        ValueError: it is no such image, too large or damaged.
    """
    if len(encoded) > _MAX_BYTES:
        raise ValueError(f"the file is too large; at most {_MAX_BYTES:,} bytes are read")
    header = check_header(encoded)
    try:
        return np.asarray(image_from_bytes(tf.constant(encoded)).numpy())
    except tf.errors.OpError as error:
        raise ValueError(
            f"the image is damaged: its {header.format} data cannot be read"
        ) from error


def _prediction(path: Path, probabilities: npt.NDArray[np.float64]) -> Prediction:
    ranked = {
        CLASS_NAMES[label]: float(probabilities[label]) for label in np.argsort(-probabilities)
    }
    return Prediction(path, next(iter(ranked)), ranked)
