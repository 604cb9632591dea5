"""Training examples -> training and validation examples, and the table of what a split holds."""

from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from keras_cifar.cifar10 import CLASS_NAMES, NUM_CLASSES
from keras_cifar.data.examples import Examples


def split_stratified(
    examples: Examples, *, validation_fraction: float, seed: int
) -> tuple[Examples, Examples]:
    """Cuts off the same share of each class for validation.

    Args:
        examples: in canonical order, so that the outcome is the same on every machine.
        validation_fraction: share of each class, in [0, 1), rounded to whole examples.
        seed: decides which examples; of one seed, a larger fraction contains a smaller one.

    Returns:
        Training and validation examples: disjoint, together all of `examples`.
    """
    # RandomState's stream is frozen for good (NEP 19); Generator's may change with NumPy.
    order = np.random.RandomState(seed).permutation(len(examples.labels))
    is_validation = np.zeros(len(order), dtype=bool)
    for label in range(NUM_CLASSES):
        of_class = order[examples.labels[order] == label]
        is_validation[of_class[: round(len(of_class) * validation_fraction)]] = True
    return (
        examples.take(np.flatnonzero(~is_validation)),
        examples.take(np.flatnonzero(is_validation)),
    )


class SplitCounts(TypedDict):
    """How many examples a split holds, and of each class by its name."""

    examples: int
    per_class: dict[str, int]


def split_table(splits: Mapping[str, Examples]) -> dict[str, SplitCounts]:
    """Counts the examples of each split and class."""
    return {name: _counts(examples) for name, examples in splits.items()}


def _counts(examples: Examples) -> SplitCounts:
    counts = np.bincount(examples.labels, minlength=NUM_CLASSES).tolist()
    return {"examples": sum(counts), "per_class": dict(zip(CLASS_NAMES, counts, strict=True))}


def format_table(table: Mapping[str, SplitCounts]) -> str:
    """Returns the table as text: a line a class, a column a split."""
    rows = [("", *table)]
    for label in CLASS_NAMES:
        rows.append((label, *(f"{split['per_class'][label]:,}" for split in table.values())))
    rows.append(("all", *(f"{split['examples']:,}" for split in table.values())))
    return "\n".join(
        f"{name:<12}" + "".join(f"{cell:>12}" for cell in cells) for name, *cells in rows
    )
