"""What metrics.json holds: loss, accuracy, per-class figures, confusion matrix, calibration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from keras_cifar.cifar10 import CLASS_NAMES

Split = Literal["test", "validation", "train"]


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


def class_metrics(confusion: Sequence[Sequence[int]], *, label: int) -> ClassMetrics:
    """Returns what a confusion matrix says of one class."""
    correct = confusion[label][label]
    actual, predicted = sum(confusion[label]), sum(row[label] for row in confusion)
    return ClassMetrics(
        examples=actual,
        precision=correct / predicted if predicted else 0.0,
        recall=correct / actual if actual else 0.0,
        f1=2 * correct / (actual + predicted) if actual + predicted else 0.0,
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
