"""Logits and labels -> loss, accuracy, per-class figures, confusion matrix, calibration."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import CLASS_NAMES, NUM_CLASSES
from keras_cifar.model.logits import log_softmax

Split = Literal["test", "validation", "train"]
# Guo et al., On Calibration of Modern Neural Networks (2017), section 3 and table 1.
_CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ClassMetrics:
    """How well one class is told from the others, each number in 0..1.

    Attributes:
        examples: of this class.
        precision: share of what was taken for this class that is of it; 0 if nothing was.
        recall: share of this class that was recognised.
        f1: harmonic mean of both; 0 if both are.
    """

    examples: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class CalibrationBin:
    """The examples whose confidence, the probability of the predicted class, is in one range.

    Attributes:
        lower: of the range, left out of it.
        upper: of the range, part of it.
        examples: in this bin.
        confidence: their mean confidence; 0 if there are none.
        accuracy: their accuracy; 0 if there are none.
    """

    lower: float
    upper: float
    examples: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Whether the model is right as often as it says it is.

    Attributes:
        expected_calibration_error: mean distance of confidence and accuracy over the bins, each
            weighted by its examples (Guo et al., 2017, equation 3).
        bins: 15 equal ranges of confidence.
    """

    expected_calibration_error: float
    bins: list[CalibrationBin]


@dataclass(frozen=True)
class Metrics:
    """What was measured on a split; `dataclasses.asdict` of it is metrics.json.

    Attributes:
        split: "test", "validation" or "train".
        views: of an image, of which the logits are the mean; 1 without test-time augmentation.
        views_share: of the images, the least certain by one view, that got as many; others got one.
        examples: in the split.
        loss: mean cross entropy, in nats.
        accuracy: share of examples whose most probable class is right.
        per_class: by class name, in the order of the labels.
        confusion_matrix: [actual class][predicted class], numbers of examples.
        calibration: of the probabilities.
    """

    split: Split
    views: int
    views_share: float
    examples: int
    loss: float
    accuracy: float
    per_class: dict[str, ClassMetrics]
    confusion_matrix: list[list[int]]
    calibration: Calibration

    @property
    def accuracy_error(self) -> float:
        """Standard error of the accuracy: sqrt(accuracy * (1 - accuracy) / examples)."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.examples)


def measure(
    logits: npt.NDArray[np.float64],
    *,
    labels: npt.NDArray[np.int64],
    split: Split,
    views: int = 1,
    views_share: float = 1.0,
) -> Metrics:
    """Compares a model's outputs with the truth.

    Args:
        logits: (n, 10), n at least 1.
        labels: (n,), 0..9.
        split: what these examples are.
        views: of an example, of which the logits are the mean.
        views_share: of the examples, that had as many.
    """
    log_probabilities = log_softmax(logits)
    predicted = log_probabilities.argmax(axis=1)
    confusion = np.zeros((NUM_CLASSES, NUM_CLASSES), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return Metrics(
        split=split,
        views=views,
        views_share=views_share,
        examples=len(labels),
        loss=float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        accuracy=float((predicted == labels).mean()),
        per_class={name: class_metrics(confusion, label=i) for i, name in enumerate(CLASS_NAMES)},
        confusion_matrix=confusion.tolist(),
        calibration=_calibration(
            np.exp(log_probabilities.max(axis=1)), is_correct=predicted == labels
        ),
    )


def class_metrics(confusion: npt.NDArray[np.int64], *, label: int) -> ClassMetrics:
    """Returns what a confusion matrix says of one class."""
    correct = int(confusion[label, label])
    actual, predicted = int(confusion[label].sum()), int(confusion[:, label].sum())
    return ClassMetrics(
        examples=actual,
        precision=correct / predicted if predicted else 0.0,
        recall=correct / actual if actual else 0.0,
        f1=2 * correct / (actual + predicted) if actual + predicted else 0.0,
    )


def _calibration(
    confidence: npt.NDArray[np.float64], *, is_correct: npt.NDArray[np.bool_]
) -> Calibration:
    # Bin i holds i / 15 < confidence <= (i + 1) / 15.
    positions = np.ceil(confidence * _CALIBRATION_BINS).astype(int) - 1
    positions = np.clip(positions, 0, _CALIBRATION_BINS - 1)  # rounding can give 1 + 1e-16
    examples, confidences, correct = (
        np.bincount(positions, weights=weights, minlength=_CALIBRATION_BINS)
        for weights in (None, confidence, is_correct)
    )
    bins = [
        CalibrationBin(
            lower=i / _CALIBRATION_BINS,
            upper=(i + 1) / _CALIBRATION_BINS,
            examples=int(examples[i]),
            confidence=float(confidences[i] / max(1, examples[i])),
            accuracy=float(correct[i] / max(1, examples[i])),
        )
        for i in range(_CALIBRATION_BINS)
    ]
    return Calibration(
        expected_calibration_error=float(np.abs(confidences - correct).sum() / len(confidence)),
        bins=bins,
    )


def confusions(metrics: Metrics) -> list[tuple[int, str, str]]:
    """Returns images, actual and predicted class of each confusion, the most frequent first."""
    found = [
        (count, actual, predicted)
        for actual, row in zip(CLASS_NAMES, metrics.confusion_matrix, strict=True)
        for predicted, count in zip(CLASS_NAMES, row, strict=True)
        if actual != predicted and count
    ]
    return sorted(found, key=lambda confusion: -confusion[0])
