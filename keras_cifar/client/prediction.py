"""What is said about an image, and about a file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import CLASS_NAMES


class Answer(NamedTuple):
    """What a model sees in an image.

    Attributes:
        label: the most probable class.
        probabilities: of every class, the most probable first; they add up to 1.
    """

    label: str
    probabilities: dict[str, float]


class Refusal(NamedTuple):
    """Why an image got no answer."""

    reason: str


# For encoded images, in their order.
Predict = Callable[[Sequence[bytes]], list[Answer | Refusal]]


class Prediction(NamedTuple):
    """What a model sees in an image file.

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


def ranked(probabilities: npt.NDArray[np.float64]) -> list[Answer]:
    """Returns n answers for probabilities (n, 10), which are in the order of the classes."""
    answers = []
    for row in probabilities:
        of_class = {CLASS_NAMES[index]: float(row[index]) for index in np.argsort(-row)}
        answers.append(Answer(next(iter(of_class)), of_class))
    return answers


def require_finite(probabilities: npt.NDArray[np.float64], *, source: str) -> None:
    """Raises FloatingPointError if `source`, a server or a folder, gave no numbers."""
    if not np.isfinite(probabilities).all():
        raise FloatingPointError(
            f"{source}: the model gives numbers that are not finite. Its training diverged; "
            "export another run's."
        )
