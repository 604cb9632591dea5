"""A run's history.csv: a row an epoch, written by training, read by plots."""

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_cifar.files import read_document, replacing

COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")
_OPTIONAL = ("val_loss", "val_accuracy")
_MOST_SECONDS = 1e9  # of an epoch, which is 30 years; the sum of what is above may be infinite


class History(NamedTuple):
    """The epochs of a run, a value each in every list.

    Attributes:
        epoch: 1, 2, ...
        loss: training loss.
        accuracy: on the training images as they were trained on, 0..1.
        val_loss: of the validation split; empty if there is none.
        val_accuracy: of the validation split, 0..1; empty if there is none.
        seconds: from the end of the epoch before, or the start of training, to its own.
    """

    epoch: list[int]
    loss: list[float]
    accuracy: list[float]
    val_loss: list[float]
    val_accuracy: list[float]
    seconds: list[float]

    @property
    def best_position(self) -> int | None:
        """Where val_accuracy is highest, the first if several; None without validation."""
        if not self.val_accuracy:
            return None
        return self.val_accuracy.index(max(self.val_accuracy))


def read_history(path: Path) -> History:
    """Reads a run's history.csv.

    Raises:
        OSError: it is missing, empty, or not what `train` writes.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no history here. Name the folder of a run: keras-cifar train writes one."
        )
    try:
        lines = io.StringIO(read_document(path), newline="")
        history = _parse(csv.DictReader(lines, strict=True))
    except (ValueError, KeyError, csv.Error) as error:
        raise OSError(
            f"{path}: not the history of a run ({error}). "
            f"Expected the columns {', '.join(COLUMNS)}."
        ) from error
    if not history.epoch:
        raise OSError(f"{path}: no epoch in it yet. Wait for the first to end, or train again.")
    return history


def _parse(reader: "csv.DictReader[str]") -> History:
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}")
    rows = list(reader)
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a row with too few or too many values")
    absent = [name for name in _OPTIONAL if not any(row[name] for row in rows)]
    epochs = [int(row["epoch"]) for row in rows]
    if epochs != list(range(1, len(rows) + 1)):
        raise ValueError("epochs that do not count 1, 2, 3, ...")
    _, *names = History._fields
    columns = [[] if name in absent else [float(row[name]) for row in rows] for name in names]
    if not all(map(math.isfinite, itertools.chain(*columns))):
        raise ValueError("a value that is infinite or no number")
    history = History(epochs, *columns)
    if not all(0 <= share <= 1 for share in (*history.accuracy, *history.val_accuracy)):
        raise ValueError("an accuracy that is not from 0 to 1")
    if not all(0 <= seconds <= _MOST_SECONDS for seconds in history.seconds):
        raise ValueError("an epoch of no possible time")
    return history


def write_history(path: Path, rows: Sequence[Mapping[str, float | None]]) -> None:
    """Writes a header and a row an epoch, whole or not at all.

    Args:
        path: history.csv of a run.
        rows: values by column; None where there is no validation, which is left empty.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            values = [row[name] for name in COLUMNS]
            writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
