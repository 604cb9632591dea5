"""A run's metrics.json -> Metrics, each value checked: the file may come from anywhere."""

import json
from pathlib import Path
from typing import Any

from keras_cifar.cifar10 import CLASS_NAMES, NUM_CLASSES
from keras_cifar.files import read_document
from keras_cifar.measure.metrics import Calibration, CalibrationBin, Metrics, class_metrics
from keras_cifar.recipes.config import SPLITS

_MOST = 10**9  # of anything that is counted


def read_metrics(path: Path) -> Metrics:
    """Reads a run's metrics.json; what follows from its confusion matrix is computed from that.

    Raises:
        OSError: it is missing, or not what `evaluate` writes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no metrics here. keras-cifar evaluate writes them.")
    try:
        return _parse(json.loads(read_document(path)))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise OSError(
            f"{path}: not the metrics of a run ({error}). "
            f"Measure it again: keras-cifar evaluate {path.parent}"
        ) from error


def _parse(document: dict[str, Any]) -> Metrics:
    if document["split"] not in SPLITS:
        raise ValueError("split is none of " + ", ".join(SPLITS))
    confusion = _confusion(document["confusion_matrix"])
    examples = sum(map(sum, confusion))
    calibration = document["calibration"]
    bins = [_bin(one) for one in calibration["bins"]]
    if sum(one.examples for one in bins) != examples:
        raise ValueError("the bins of the calibration are of other images")
    return Metrics(
        split=document["split"],
        views=_views(document["views"]),
        views_share=_number(document, "views_share"),
        examples=examples,
        loss=_number(document, "loss", highest=_MOST),
        accuracy=sum(confusion[i][i] for i in range(NUM_CLASSES)) / examples,
        per_class={name: class_metrics(confusion, label=i) for i, name in enumerate(CLASS_NAMES)},
        confusion_matrix=confusion,
        calibration=Calibration(_number(calibration, "expected_calibration_error"), bins),
    )


def _views(count: Any) -> int:
    if type(count) is not int or not 1 <= count <= _MOST:
        raise ValueError("views is no number of views")
    return count


def _confusion(rows: Any) -> list[list[int]]:
    counts = [count for row in rows for count in row]
    is_square = len(rows) == NUM_CLASSES and {len(row) for row in rows} == {NUM_CLASSES}
    if not is_square or any(type(count) is not int for count in counts):
        raise ValueError("confusion_matrix is not 10 rows of 10 whole numbers")
    if min(counts) < 0 or not 0 < max(counts) < _MOST:
        raise ValueError("confusion_matrix holds no numbers of images")
    return [list(row) for row in rows]


def _bin(document: dict[str, Any]) -> CalibrationBin:
    shares = {name: _number(document, name) for name in ("lower", "upper", "confidence")}
    examples = int(_number(document, "examples", highest=_MOST))
    return CalibrationBin(examples=examples, accuracy=_number(document, "accuracy"), **shares)


def _number(document: dict[str, Any], name: str, *, highest: float = 1.0) -> float:
    value = document[name]
    if type(value) not in (int, float) or not 0 <= value <= highest:
        raise ValueError(f"{name} is no number from 0 to {highest:g}")
    return float(value)
