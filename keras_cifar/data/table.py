"""Splits -> the table of how many examples of each class they hold."""

from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from keras_cifar.cifar10 import CLASS_NAMES, NUM_CLASSES
from keras_cifar.data.examples import Examples


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
