"""Images -> answers, a batch at a time; an image that is refused costs no other its answer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.image.header import MAX_PIXELS, Header, check_header

# An uncompressed image of as many pixels as are read, with alpha.
MAX_IMAGE_BYTES = 4 * MAX_PIXELS

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


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
    """An `Answer` about a file, which is named as the caller named it."""

    file: Path
    label: str
    probabilities: dict[str, float]


class Failure(NamedTuple):
    """Why a file got no prediction."""

    file: Path
    reason: str


def answer_each(
    items: Sequence[Item],
    *,
    prepare: Callable[[Item], Prepared],
    answer: Callable[[list[Prepared]], Sequence[Answer | Refusal]],
) -> list[Answer | Refusal]:
    """Returns an answer or a refusal for each item, in their order.

    Args:
        items: images, or their files.
        prepare: makes of an item what `answer` takes; raises ValueError with the reason to refuse.
        answer: answers the items that are not refused, all in one call.
    """
    prepared: list[Prepared | Refusal] = []
    for item in items:
        try:
            prepared.append(prepare(item))
        except ValueError as error:
            prepared.append(Refusal(str(error)))
    answers = iter(answer([item for item in prepared if not isinstance(item, Refusal)]))
    return [item if isinstance(item, Refusal) else next(answers) for item in prepared]


def in_batches(
    items: Iterable[Item], *, size: Callable[[Item], int], max_items: int, max_bytes: int
) -> Iterator[list[Item]]:
    """Yields the items in lists that fit.

    Args:
        items: read one by one, as lists are asked for.
        size: an item's bytes.
        max_items: in a list.
        max_bytes: in a list; a larger item gets a list of its own.
    """
    batch: list[Item] = []
    room = max_bytes
    for item in items:
        if batch and (len(batch) == max_items or size(item) > room):
            yield batch
            batch, room = [], max_bytes
        batch.append(item)
        room -= size(item)
    if batch:
        yield batch


def check_encoded(encoded: bytes) -> Header:
    """Returns an image's header; raises ValueError if it is not safe to decode, or too large."""
    if len(encoded) > MAX_IMAGE_BYTES:
        raise ValueError(f"the file is too large; at most {MAX_IMAGE_BYTES:,} bytes are read")
    return check_header(encoded)


def ranked(probabilities: npt.NDArray[np.float64], *, source: str) -> list[Answer]:
    """Returns n answers for probabilities (n, 10), which are in the order of the classes.

    Raises:
        FloatingPointError: they are not finite; `source`, a server or a file, has a bad model.
    """
    if not np.isfinite(probabilities).all():
        raise FloatingPointError(
            f"{source}: the model gives numbers that are not finite. Its training diverged; "
            "export another run's."
        )
    answers = []
    for row in probabilities:
        of_class = {CLASS_NAMES[index]: float(row[index]) for index in np.argsort(-row)}
        answers.append(Answer(next(iter(of_class)), of_class))
    return answers
