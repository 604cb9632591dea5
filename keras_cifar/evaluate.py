"""Trained model and split -> loss, accuracy, per-class figures, confusion matrix, calibration."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import CLASS_NAMES, DATASETS, NUM_CLASSES
from keras_cifar.data.examples import Examples
from keras_cifar.data.prepare import load
from keras_cifar.data.split import split_stratified
from keras_cifar.files import replacing
from keras_cifar.model.load import load_model
from keras_cifar.model.logits import log_softmax, predict_logits
from keras_cifar.model.tta import with_views
from keras_cifar.recipes import TrainConfig
from keras_cifar.recipes.config import SPLITS
from keras_cifar.run_dir import RunDir

Split = Literal["test", "validation", "train"]
# Guo et al., On Calibration of Modern Neural Networks (2017), section 3 and table 1.
_CALIBRATION_BINS = 15
_CONFUSIONS_SHOWN = 5


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


def evaluate(
    run_dir: RunDir,
    *,
    split: Split,
    data_dir: Path | None,
    views: int = 1,
    views_share: float = 1.0,
    batch_size: int = 500,
) -> Metrics:
    """Measures a run's chosen model on a split and writes that to the run's metrics.json.

    Args:
        run_dir: of a run that has a model.
        split: "test"; or "validation" or "train", the parts of the training images that this run
            itself had, not augmented.
        data_dir: where TFDS data sets are; None for where the run had its own, or else TFDS's
            default.
        views: of an image, as `keras_cifar.model.tta.with_views` takes them.
        views_share: of the images, in (0, 1]: the least certain by one view get `views`.
        batch_size: images at a time; bounds the memory, not the outcome.

    Returns:
        What metrics.json holds.

    Raises:
        ValueError: no such split or number of views, or the run had no validation split.
        OSError: run, model or data are missing or damaged.
        FloatingPointError: the model's training had diverged.
    """
    record = run_dir.read_record()
    settings = record.settings
    _check_split(split, settings=settings)
    model = load_model(run_dir.require_model())
    many = with_views(model, views)
    examples = _examples(split, settings=settings, data_dir=record.find_data(data_dir))
    images = examples.images
    if views_share < 1:
        logits = predict_logits(model, images, batch_size=batch_size)
        chosen = least_certain(logits, count=round(views_share * len(images)))
        logits[chosen] = predict_logits(many, images[chosen], batch_size=batch_size)
    else:
        logits = predict_logits(many, images, batch_size=batch_size)
    metrics = measure(
        logits, labels=examples.labels, split=split, views=views, views_share=views_share
    )
    with replacing(run_dir.metrics) as path:
        path.write_text(json.dumps(asdict(metrics), indent=2) + "\n")
    return metrics


def _check_split(split: str, *, settings: TrainConfig) -> None:
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(SPLITS)}.")
    if split == "validation" and settings.validation_fraction == 0:
        raise ValueError(
            "split: got 'validation', expected test or train: "
            "this run trained on all images (validation_fraction 0)."
        )


def _examples(split: Split, *, settings: TrainConfig, data_dir: Path | None) -> Examples:
    dataset = DATASETS[settings.dataset]
    if split == "test":
        return load(dataset, split="test", data_dir=data_dir)
    training, validation = split_stratified(
        load(dataset, split="train", data_dir=data_dir),
        validation_fraction=settings.validation_fraction,
        seed=settings.seed,
    )
    return training if split == "train" else validation


def least_certain(logits: npt.NDArray[np.float64], *, count: int) -> npt.NDArray[np.int64]:
    """Returns where the two highest logits of an example are nearest to each other, int64 (count,).

    Six views of the least certain quarter alone are the way of hiverge/cifar10-speedrun.

    Args:
        logits: (n, 10).
        count: of the examples to choose, at most n.
    """
    second, first = np.partition(logits, (-2, -1), axis=1)[:, -2:].T
    return np.argsort(first - second, kind="stable")[:count]


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
        per_class={name: _class_metrics(confusion, label=i) for i, name in enumerate(CLASS_NAMES)},
        confusion_matrix=confusion.tolist(),
        calibration=_calibration(
            np.exp(log_probabilities.max(axis=1)), is_correct=predicted == labels
        ),
    )


def _class_metrics(confusion: npt.NDArray[np.int64], *, label: int) -> ClassMetrics:
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


def format_table(metrics: Metrics) -> str:
    """Returns what a person reads: the totals, a row a class, the most frequent confusions."""
    of_which = (
        "each" if metrics.views_share == 1 else f"the least certain {metrics.views_share:.0%}"
    )
    views = f", {metrics.views} views of {of_which}" if metrics.views > 1 else ""
    lines = [
        f"{metrics.split}: {metrics.examples:,} images{views}",
        f"accuracy           {metrics.accuracy:7.2%}  "
        f"± {metrics.accuracy_error:.2%} standard error",
        f"loss               {metrics.loss:7.4f}  mean cross entropy",
        f"calibration error  {metrics.calibration.expected_calibration_error:7.2%}  "
        "mean distance of confidence and accuracy",
        "",
        f"{'class':<12}{'images':>8}{'precision':>11}{'recall':>9}{'f1':>9}",
        *(
            f"{name:<12}{of.examples:>8,}{of.precision:>11.2%}{of.recall:>9.2%}{of.f1:>9.2%}"
            for name, of in metrics.per_class.items()
        ),
    ]
    confusions = _most_frequent_confusions(metrics)
    if confusions:
        lines += ["", "most frequent confusions", *confusions]
    return "\n".join(lines)


def _most_frequent_confusions(metrics: Metrics) -> list[str]:
    confusions = [
        (count, CLASS_NAMES[actual], CLASS_NAMES[predicted])
        for actual, row in enumerate(metrics.confusion_matrix)
        for predicted, count in enumerate(row)
        if actual != predicted and count
    ]
    confusions.sort(key=lambda confusion: -confusion[0])
    return [
        f"{count:>6,}  {actual} taken for {predicted} "
        f"({count / metrics.per_class[actual].examples:.1%} of {actual})"
        for count, actual, predicted in confusions[:_CONFUSIONS_SHOWN]
    ]
