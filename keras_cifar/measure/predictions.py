"""A run's model and a split, and the model's logits for images."""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import DATASETS
from keras_cifar.data.examples import Examples
from keras_cifar.data.prepare import load
from keras_cifar.data.split import split_stratified
from keras_cifar.measure.metrics import Split
from keras_cifar.model.load import load_model
from keras_cifar.model.logits import predict_logits
from keras_cifar.model.tta import with_views
from keras_cifar.recipes import TrainConfig
from keras_cifar.recipes.config import SPLITS
from keras_cifar.run_dir import RunDir


class Predictions(NamedTuple):
    """What a model answers to a split.

    Attributes:
        examples: of the split, n of them.
        logits: (n, 10).
    """

    examples: Examples
    logits: npt.NDArray[np.float64]


def load_model_and_split(
    run_dir: RunDir, *, split: Split, data_dir: Path | None
) -> tuple[keras.Model, Examples]:
    """Loads a run's chosen model and a split.

    Args:
        run_dir: of a run that has a model.
        split: "test"; or "validation" or "train", the parts of the training images that this run
            itself had, not augmented.
        data_dir: where TFDS data sets are; None for where the run had its own, or else TFDS's
            default.

    Raises:
        ValueError: no such split, or the run had no validation split.
        OSError: run, model or data are missing or damaged.
    """
    record = run_dir.read_record()
    settings = record.settings
    check_split(split, settings=settings)
    model = load_model(run_dir.require_model())
    return model, _examples(split, settings=settings, data_dir=record.find_data(data_dir))


def check_split(split: str, *, settings: TrainConfig) -> None:
    """Raises ValueError if there is no such split, or a run of these settings has none."""
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
    training, validation = training_parts(settings, data_dir=data_dir)
    return training if split == "train" else validation


def training_parts(settings: TrainConfig, *, data_dir: Path | None) -> tuple[Examples, Examples]:
    """Returns the training and validation examples that a run of these settings has."""
    return split_stratified(
        load(DATASETS[settings.dataset], split="train", data_dir=data_dir),
        validation_fraction=settings.validation_fraction,
        seed=settings.seed,
    )


def predict_views(
    model: keras.Model,
    images: npt.NDArray[np.uint8],
    *,
    views: int,
    views_share: float,
    source: Path,
) -> npt.NDArray[np.float64]:
    """Asks a model for images.

    Args:
        model: images uint8 (n, 32, 32, 3) to logits (n, 10).
        images: of the kind that it takes.
        views: of an image, as `keras_cifar.model.tta.with_views` takes them.
        views_share: of the images, in (0, 1]: the least certain by one view get `views`.
        source: as `predict_logits` takes it.

    Returns:
        Logits, float64 (n, 10).

    Raises:
        ValueError: no such number of views.
        FloatingPointError: the model's training had diverged.
    """
    many = with_views(model, views)
    if views_share == 1:
        return predict_logits(many, images, source=source)
    logits = predict_logits(model, images, source=source)
    chosen = least_certain(logits, count=round(views_share * len(images)))
    logits[chosen] = predict_logits(many, images[chosen], source=source)
    return logits


def least_certain(logits: npt.NDArray[np.float64], *, count: int) -> npt.NDArray[np.int64]:
    """Returns where the two highest logits of an example are nearest to each other, int64 (count,).

    Six views of the least certain quarter alone are the way of hiverge/cifar10-speedrun.

    Args:
        logits: (n, 10).
        count: of the examples to choose, at most n.
    """
    second, first = np.partition(logits, (-2, -1), axis=1)[:, -2:].T
    return np.argsort(first - second, kind="stable")[:count]
