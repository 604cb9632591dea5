"""A model on this machine: of a run, in a .keras file, or exported."""

from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_cifar.client.answers import (
    MAX_IMAGE_BYTES,
    Answer,
    Predict,
    answer_each,
    check_encoded,
    in_batches,
    ranked,
)
from keras_cifar.errors import first_line
from keras_cifar.image.decode import image_from_bytes
from keras_cifar.model.load import load_model
from keras_cifar.model.logits import log_softmax, predict_logits
from keras_cifar.model_dir import FORMAT_FILES, version_format, versions
from keras_cifar.run_dir import RunDir
from keras_cifar.serving import BYTES_INPUT, BYTES_SIGNATURE

_SAVED_MODEL_BATCH_SIZE = 64


def local_predict(path: Path) -> Predict:
    """Loads a model.

    Args:
        path: of a model, as `predict_files` takes it. A SavedModel is a program: load only one
            that you trust.

    Returns:
        A function that answers for encoded images.

    Raises:
        OSError: the model is missing or is none.
    """
    folder = _saved_model_folder(path)
    if folder is not None:
        answer = partial(_saved_model_answers, signature=_load_signature(folder), folder=folder)
        return partial(answer_each, prepare=_decodable, answer=answer)
    file = RunDir(path).require_model() if path.is_dir() else path
    answer = partial(_keras_answers, model=load_model(file), source=file)
    return partial(answer_each, prepare=prepare_image, answer=answer)


def _saved_model_folder(path: Path) -> Path | None:
    """Returns the version that `path` is or holds; None if neither."""
    if version_format(path) is not None:
        folder = path
    elif found := versions(path):
        folder = found[max(found)]
    else:
        return None
    if version_format(folder) != "saved_model":
        raise OSError(
            f"{folder}: no SavedModel; expected {FORMAT_FILES['saved_model']} in it. "
            "Export one: keras-cifar export"
        )
    return folder


def _load_signature(folder: Path) -> Any:
    try:
        signatures = tf.saved_model.load(str(folder)).signatures
    except (OSError, RuntimeError, TypeError, ValueError, tf.errors.OpError) as error:
        reason = first_line(error)
        raise OSError(f"{folder}: a damaged SavedModel ({reason}). Export it again.") from error
    if BYTES_SIGNATURE not in signatures:
        raise OSError(
            f"{folder}: no signature {BYTES_SIGNATURE!r}. Name what keras-cifar export wrote."
        )
    return signatures[BYTES_SIGNATURE]


def _decodable(encoded: bytes) -> bytes:
    # In the graph one damaged image would cost all of its batch their answers.
    prepare_image(encoded)
    return encoded


def _saved_model_answers(images: list[bytes], *, signature: Any, folder: Path) -> list[Answer]:
    batches = in_batches(
        images, size=len, max_items=_SAVED_MODEL_BATCH_SIZE, max_bytes=MAX_IMAGE_BYTES
    )
    outputs = (signature(**{BYTES_INPUT: tf.constant(batch)}) for batch in batches)
    probabilities = [output["probabilities"].numpy().astype(np.float64) for output in outputs]
    return [answer for rows in probabilities for answer in ranked(rows, source=str(folder))]


def _keras_answers(
    images: list[npt.NDArray[np.uint8]], *, model: keras.Model, source: Path
) -> list[Answer]:
    if not images:
        return []
    logits = predict_logits(model, np.stack(images), source=source)
    return ranked(np.exp(log_softmax(logits)), source=str(source))


def prepare_image(encoded: bytes) -> npt.NDArray[np.uint8]:
    """Turns an encoded image into what the model takes, as `image_from_bytes` does.

    Args:
        encoded: PNG, JPEG, BMP, GIF or WebP of any size up to 100 million pixels. Larger ones
            are refused by their header, before anything is decoded.

    Returns:
        uint8 (32, 32, 3).

    Raises:
        ValueError: it is no such image, too large or damaged.
    """
    header = check_encoded(encoded)
    try:
        return np.asarray(image_from_bytes(tf.constant(encoded)).numpy())
    except tf.errors.OpError as error:
        raise ValueError(
            f"the image is damaged: its {header.format} data cannot be read"
        ) from error
