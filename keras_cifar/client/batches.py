"""Images -> answers, a batch at a time; one that is refused costs no other its answer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from keras_cifar.client.prediction import Answer, Refusal
from keras_cifar.image.header import MAX_PIXELS, Header, check_header

# An uncompressed image of as many pixels as are read, with alpha.
MAX_IMAGE_BYTES = 4 * MAX_PIXELS

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


def answer_each(
    items: Sequence[Item],
    *,
    prepare: Callable[[Item], Prepared],
    answer: Callable[[list[Prepared]], Sequence[Answer | Refusal]],
) -> list[Answer | Refusal]:
    """Answers, in their order, what can be prepared.

    Args:
        items: what answers are wanted for.
        prepare: raises ValueError, with the reason, for an item that will get a refusal.
        answer: gives one for each item that could be prepared.
    """
    prepared = [_prepared_or_refused(item, prepare=prepare) for item in items]
    answers = iter(answer([item for item in prepared if not isinstance(item, Refusal)]))
    return [item if isinstance(item, Refusal) else next(answers) for item in prepared]


def _prepared_or_refused(item: Item, *, prepare: Callable[[Item], Prepared]) -> Prepared | Refusal:
    try:
        return prepare(item)
    except ValueError as error:
        return Refusal(str(error))


def in_batches(
    items: Iterable[Item], *, size: Callable[[Item], int], max_items: int, max_bytes: int
) -> Iterator[list[Item]]:
    """Yields the items in lists of at most so many, and so many bytes where more than one is in.

    Args:
        items: are looked at as they are needed.
        size: of an item in bytes.
        max_items: in a list.
        max_bytes: in a list; a larger item is alone in its own.
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
