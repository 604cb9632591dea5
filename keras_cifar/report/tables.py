"""Metrics and history -> the rows of the tables."""

from typing import Any, NamedTuple

import numpy as np

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.history import History
from keras_cifar.measure.intervals import Interval
from keras_cifar.measure.metrics import ClassMetrics, Metrics
from keras_cifar.report import words

_ROWS = 50  # of the table of epochs
HEAT_STEPS = 9  # the colours of report.css, beside that of nothing


class ClassRow(NamedTuple):
    """A row of the table of classes."""

    name: str
    figures: ClassMetrics
    interval: Interval
    taken_for: str


class Cell(NamedTuple):
    """A cell of the confusion matrix: images, share of their class, colour 0..9."""

    images: int
    share: float
    heat: int


def class_rows(metrics: Metrics) -> list[ClassRow]:
    """Returns the table of classes."""
    confusions = words.confusions(metrics)
    return [
        ClassRow(
            name,
            figures,
            words.recall_interval(figures),
            next((f"{c.predicted} ({c.images})" for c in confusions if c.actual == name), "none"),
        )
        for name, figures in metrics.per_class.items()
    ]


def matrix(metrics: Metrics) -> list[tuple[str, list[Cell]]]:
    """Returns the confusion matrix by actual class; the most frequent confusion is hottest."""
    counts = np.array(metrics.confusion_matrix)
    mistakes = counts - np.diag(np.diag(counts))
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    heat = np.ceil(HEAT_STEPS * mistakes / max(1, mistakes.max())).astype(int)
    rows = zip(counts.tolist(), shares.tolist(), heat.tolist(), strict=True)
    return [
        (name, [Cell(*cell) for cell in zip(*row, strict=True)])
        for name, row in zip(CLASS_NAMES, rows, strict=True)
    ]


def epoch_rows(history: History) -> list[tuple[Any, ...]]:
    """Returns the table of epochs, at most 50 of them in even steps."""
    missing: list[Any] = [None] * len(history.epoch)
    columns = [column or missing for column in history]
    rows = list(zip(*columns, strict=True))
    step = max(1, -(-len(rows) // _ROWS))
    return rows[step - 1 :: step]
