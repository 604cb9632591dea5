"""Images and answers -> pictures that stand in the page, with what there is to say of each."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_cifar.cifar10 import CLASS_NAMES, IMAGE_SHAPE
from keras_cifar.measure.grad_cam import first_filters, grad_cam
from keras_cifar.measure.mosaic import mosaic
from keras_cifar.measure.predictions import Predictions
from keras_cifar.model.logits import log_softmax
from keras_cifar.report.facts import correct

MISTAKES = 24
HARDEST_PER_CLASS = 2
LOOKED_AT_PER_CLASS = 2  # right ones, and as many wrong ones
SHOWN = 24
_DARKEST = 0.15  # of what the network does not look at
_FILTER_SIDE = 24  # pixels, at least
_GREY = 127  # of a weight of 0


class Picture(NamedTuple):
    """An image and what the model says of it.

    Attributes:
        uri: of the image, a PNG.
        label: its class.
        answer: the class that the model takes it for.
        probability: of the answer, 0..1.
        label_probability: of its class, 0..1.
        map_uri: of the image, dark where the network does not look; empty without Grad-CAM.
    """

    uri: str
    label: str
    answer: str
    probability: float
    label_probability: float
    map_uri: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the model is right about it."""
        return self.label == self.answer

    @property
    def alt(self) -> str:
        """What stands for the image where it is not seen."""
        return f"an image labelled {self.label}, taken for {self.answer}"


def data_uri(image: npt.NDArray[np.uint8]) -> str:
    """Returns uint8 (height, width, 3) as the URI of a PNG."""
    png = tf.io.encode_png(image, compression=9).numpy()
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def pictures(predictions: Predictions, positions: Sequence[int]) -> list[Picture]:
    """Returns the images at `positions`, in that order."""
    return [_picture(predictions, position) for position in positions]


def _picture(predictions: Predictions, position: int) -> Picture:
    probabilities = np.exp(log_softmax(predictions.logits[position : position + 1]))[0]
    label = int(predictions.examples.labels[position])
    answer = int(probabilities.argmax())
    return Picture(
        data_uri(predictions.examples.images[position]),
        CLASS_NAMES[label],
        CLASS_NAMES[answer],
        float(probabilities[answer]),
        float(probabilities[label]),
    )


def surest_mistakes(predictions: Predictions, *, count: int = MISTAKES) -> list[int]:
    """Returns where the model is wrong, what it is most sure of first."""
    confidence = log_softmax(predictions.logits).max(axis=1)
    confidence[correct(predictions)] = -np.inf
    order = np.argsort(-confidence, kind="stable")
    return [int(position) for position in order[:count] if np.isfinite(confidence[position])]


def hardest_by_class(predictions: Predictions) -> list[list[int]]:
    """Returns for each class where its label has the lowest probability, the lowest first."""
    labels = predictions.examples.labels
    of_label = log_softmax(predictions.logits)[np.arange(len(labels)), labels]
    order = np.argsort(of_label, kind="stable")
    return [
        order[labels[order] == label][:HARDEST_PER_CLASS].tolist()
        for label in range(len(CLASS_NAMES))
    ]


def looked_at(model: keras.Model, predictions: Predictions) -> list[list[Picture]]:
    """Returns for each class the first images that are answered right, and the first that are not.

    Each with where the network looks: what speaks for its answer.

    Raises:
        ValueError: the model has no convolution to look behind.
    """
    is_right, labels = correct(predictions), predictions.examples.labels
    rows = [
        [
            int(position)
            for wanted in (True, False)
            for position in np.flatnonzero((labels == label) & (is_right == wanted))[
                :LOOKED_AT_PER_CLASS
            ]
        ]
        for label in range(len(CLASS_NAMES))
    ]
    positions = np.array([position for row in rows for position in row])
    images = predictions.examples.images[positions]
    maps = grad_cam(model, images, classes=predictions.logits[positions].argmax(axis=1))
    uris = dict(zip(positions.tolist(), map(data_uri, _dimmed(images, maps)), strict=True))
    return [
        [_picture(predictions, position)._replace(map_uri=uris[position]) for position in row]
        for row in rows
    ]


def _dimmed(images: npt.NDArray[np.uint8], maps: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Returns images that are dark where their maps are low."""
    brightest = maps.max(axis=(1, 2), keepdims=True)
    shares = np.divide(maps, brightest, out=np.zeros_like(maps), where=brightest > 0)
    large = tf.image.resize(shares[..., None], IMAGE_SHAPE[:2], method="bilinear").numpy()
    return np.asarray((images * (_DARKEST + (1 - _DARKEST) * large)).astype(np.uint8))


def filters_picture(model: keras.Model) -> tuple[str, str]:
    """Returns a picture of the first convolution's filters, and what they are, in words.

    A filter's own largest weight, either way, is at the end of the range; grey is 0.

    Raises:
        ValueError: the model has none that sees the image.
    """
    filters = first_filters(model).transpose(3, 0, 1, 2)  # (filters, height, width, 3)
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    pixels = np.round(_GREY + _GREY * filters / np.maximum(largest, 1e-12)).astype(np.uint8)
    count, height, width, _ = pixels.shape
    scale = max(1, _FILTER_SIDE // height)
    large = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    return data_uri(
        mosaic(large, columns=8, gap=4, background=_GREY)
    ), f"{count} filters of {height} by {width}"
