"""Logits and labels -> Metrics."""

import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import CLASS_NAMES, NUM_CLASSES
from keras_cifar.measure.metrics import (
    Calibration,
    CalibrationBin,
    Metrics,
    Split,
    class_metrics,
)
from keras_cifar.model.logits import log_softmax

# Guo et al., On Calibration of Modern Neural Networks (2017), section 3 and table 1.
_CALIBRATION_BINS = 15


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
    counts = confusion.tolist()
    return Metrics(
        split=split,
        views=views,
        views_share=views_share,
        examples=len(labels),
        loss=float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        accuracy=float((predicted == labels).mean()),
        per_class={name: class_metrics(counts, label=i) for i, name in enumerate(CLASS_NAMES)},
        confusion_matrix=counts,
        calibration=_calibration(
            np.exp(log_probabilities.max(axis=1)), is_correct=predicted == labels
        ),
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
