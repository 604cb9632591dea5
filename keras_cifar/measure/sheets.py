"""Images -> sheets of many for people to look at: plain, or with what a model says of each."""

import io

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.data.examples import Examples
from keras_cifar.measure.mosaic import GAP, mosaic
from keras_cifar.model.logits import log_softmax
from keras_cifar.recipes import RECIPES, TrainConfig

_WHITE = 255
_SCALE = 3  # of an image that has words below it, so that these have room
_WORDS_HEIGHT = 26  # pixels: two lines
_FONT_SIZE = 8  # points, at 72 dots an inch: pixels
# Okabe and Ito (2008): told apart whatever one's colour vision. A sign says the same.
_RIGHT, _WRONG = ("\N{CHECK MARK}", "#007A5A"), ("\N{BALLOT X}", "#B84A00")


def augmented_sheet(
    config: TrainConfig, *, examples: Examples, epoch: int, count: int = 64, columns: int = 16
) -> npt.NDArray[np.uint8]:
    """Returns the first training images of an epoch as the network sees them.

    Args:
        config: settings of the run.
        examples: its training examples.
        epoch: counted from 0.
        count: images at most; no more than a batch has.
        columns: images in a row.
    """
    batch = RECIPES[config.recipe].first_batch(config, examples=examples, epoch=epoch)
    return mosaic(batch.images[:count], columns=columns)


def answered_sheet(
    examples: Examples, *, logits: npt.NDArray[np.float64], columns: int = 8
) -> npt.NDArray[np.uint8]:
    """Returns images, their labels below them, and below these what a model takes them for.

    Args:
        examples: n at least 1.
        logits: (n, 10).
        columns: images in a row.
    """
    large = examples.images.repeat(_SCALE, axis=1).repeat(_SCALE, axis=2)
    words = ((0, 0), (0, _WORDS_HEIGHT), (0, 0), (0, 0))
    sheet = mosaic(np.pad(large, words, constant_values=_WHITE), columns=columns)
    height, width, _ = sheet.shape
    pixels = io.BytesIO()
    with mpl.rc_context():
        mpl.rcdefaults()
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        figure.figimage(sheet)
        _add_words(figure, examples=examples, logits=logits, columns=columns)
        figure.savefig(pixels, format="raw", dpi=72)
    return np.frombuffer(pixels.getvalue(), np.uint8).reshape(height, width, 4)[..., :3]


def _add_words(
    figure: Figure, *, examples: Examples, logits: npt.NDArray[np.float64], columns: int
) -> None:
    width, height = figure.get_size_inches() * 72
    side = examples.images.shape[1] * _SCALE
    probabilities = np.exp(log_softmax(logits))
    for position, (label, answer) in enumerate(
        zip(examples.labels, probabilities.argmax(axis=1), strict=True)
    ):
        row, column = divmod(position, columns)
        left = column * (side + GAP) + side / 2
        top = height - row * (side + _WORDS_HEIGHT + GAP) - side
        sign, colour = _RIGHT if answer == label else _WRONG
        share = probabilities[position, answer]
        lines = (
            (CLASS_NAMES[label], "black"),
            (f"{sign} {CLASS_NAMES[answer]} {share:.0%}", colour),
        )
        for number, (text, ink) in enumerate(lines):
            place = left / width, (top - 2 - number * _WORDS_HEIGHT / 2) / height
            figure.text(*place, text, color=ink, size=_FONT_SIZE, ha="center", va="top")
