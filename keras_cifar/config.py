"""What a run is (`TrainConfig`, `RECIPES`) and where it lies on disk (`RunDir`)."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_cifar.cifar10 import DATASETS, NUM_CLASSES
from keras_cifar.fast import FAST94_BATCH_SIZE, FAST94_LEARNING_RATE

# By recipe, what it can be trained with, the default first.
RECIPE_OPTIMIZERS = {"article": ("sgd", "adam"), "fast94": ("muon",), "fast96": ("sgd",)}
RECIPE_NAMES = tuple(RECIPE_OPTIMIZERS)
OPTIMIZERS = ("sgd", "adam", "muon")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
STRATEGIES = ("auto", "single", "mirrored")
# The fast recipes keep the images on the one device, and average all weights after a step on it.
RECIPE_STRATEGIES = {
    "article": STRATEGIES,
    "fast94": ("auto", "single"),
    "fast96": ("auto", "single"),
}
# Of an image, by test-time augmentation.
TTA_VIEWS = 6
# What a model can be evaluated on.
SPLITS = ("test", "validation", "train")
RUNS = Path("runs")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a training run.

    Attributes:
        recipe: network and method.
        dataset: a key of `keras_cifar.cifar10.DATASETS`.
        optimizer: "sgd" (Nesterov's) or "adam"; of fast94, "muon".
        epochs: passes over the training images.
        batch_size: images in a training step.
        learning_rate: the highest of the run; it rises to it linearly, then falls to 0, as a cosine
            or, in the fast recipes, in a line.
        weight_decay: decoupled: a step takes learning_rate * weight_decay of each kernel away. In
            the fast recipes part of the gradient: a step at the highest rate, without momentum,
            takes this share away of all that SGD trains.
        seed: decides split, initial weights, order, augmentation and dropout; 0 to 2**31 - 1.
        validation_fraction: share of each class of the training images kept for validation.
        precision: of activations and gradients; weights are float32.
        strategy: "single" device or "mirrored" over all of one machine.
    """

    recipe: str = "article"
    dataset: str = "cifar10"
    optimizer: str = "sgd"
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.05
    weight_decay: float = 5e-3
    seed: int = 0
    validation_fraction: float = 0.2
    precision: str = "auto"
    strategy: str = "auto"

    def __post_init__(self) -> None:
        """Raises ValueError for a value that nothing can be trained with."""
        _check_choice("recipe", self.recipe, RECIPE_NAMES)
        _check_choice("dataset", self.dataset, tuple(DATASETS))
        _check_choice("optimizer", self.optimizer, RECIPE_OPTIMIZERS[self.recipe])
        _check_choice("precision", self.precision, PRECISIONS)
        _check_choice("strategy", self.strategy, RECIPE_STRATEGIES[self.recipe])
        _check_number("epochs", self.epochs, 1, math.inf)
        _check_number("seed", self.seed, 0, 2**31 - 1)
        _check_number("weight_decay", self.weight_decay, 0, math.inf)
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: got {self.learning_rate}, expected a number above 0.")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction: got {self.validation_fraction}, "
                "expected 0 (train on all images) or more, and below 1."
            )
        if not self.training_examples:
            raise ValueError(
                f"validation_fraction: got {self.validation_fraction}, "
                "which leaves no image to train on."
            )
        if not 1 <= self.batch_size <= self.training_examples:
            raise ValueError(
                f"batch_size: got {self.batch_size}, expected 1 to {self.training_examples}, "
                "the number of training images."
            )

    @property
    def training_examples(self) -> int:
        """How many of the dataset's training images are trained on."""
        per_class = DATASETS[self.dataset].train.examples // NUM_CLASSES
        return NUM_CLASSES * (per_class - round(per_class * self.validation_fraction))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(choices)}.")


def _check_number(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high or value == math.inf:
        up_to = "or more" if high == math.inf else f"to {high}"
        raise ValueError(f"{name}: got {value}, expected {low} {up_to}.")


# By recipe and optimizer, its default first: what is trained where the user does not say otherwise.
RECIPES = {
    "article": {
        "sgd": TrainConfig(),
        "adam": TrainConfig(optimizer="adam", learning_rate=1e-3, weight_decay=0.1),
    },
    "fast94": {
        "muon": TrainConfig(
            recipe="fast94",
            optimizer="muon",
            epochs=12,
            batch_size=FAST94_BATCH_SIZE,
            learning_rate=FAST94_LEARNING_RATE,
            weight_decay=2e-6 * FAST94_BATCH_SIZE,  # by image, as in airbench94_muon.py
            validation_fraction=0.0,
        ),
    },
    "fast96": {
        "sgd": TrainConfig(
            recipe="fast96",
            epochs=37,
            batch_size=1024,
            # airbench96.py: 9.0 and 0.012 for 1,024 images, of which momentum 0.85 makes 7,850.7.
            learning_rate=9.0 / 7850.7 * 1024,
            weight_decay=0.012 / 7850.7 * 1024,
            validation_fraction=0.0,
        ),
    },
}


@dataclass(frozen=True)
class RunDir:
    """A run's folder and the names of the files in it."""

    path: Path

    @property
    def config(self) -> Path:
        """Every setting, and the versions and the device it was trained with."""
        return self.path / "config.json"

    @property
    def history(self) -> Path:
        """A row an epoch."""
        return self.path / "history.csv"

    @property
    def model(self) -> Path:
        """The chosen model."""
        return self.path / "model.keras"

    @property
    def plot(self) -> Path:
        """Loss and accuracy, training and validation."""
        return self.path / "history.png"

    @property
    def metrics(self) -> Path:
        """What `evaluate` measured."""
        return self.path / "metrics.json"

    @property
    def checkpoint(self) -> Path:
        """What resume needs; gone when the run has ended well."""
        return self.path / "checkpoint"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's logs, where they were asked for."""
        return self.path / "tensorboard"

    def files(self) -> tuple[Path, ...]:
        """Everything that the commands write here, whether it is there or not."""
        return (
            self.config,
            self.history,
            self.model,
            self.plot,
            self.metrics,
            self.checkpoint,
            self.tensorboard,
        )

    def read_config(self) -> dict[str, Any]:
        """Returns config.json: {"settings": {...}, "versions": {...}, "device": ...}.

        Raises:
            OSError: it is missing or is not what `train` writes.
        """
        if not self.config.is_file():
            raise FileNotFoundError(
                f"{self.path}: no run here; expected {self.config.name} in it. "
                f"Train one: keras-cifar train --run-dir {self.path}"
            )
        try:
            document = json.loads(self.config.read_text())
            TrainConfig(**document["settings"])
        except (ValueError, TypeError, KeyError) as error:
            raise OSError(f"{self.config}: not the config.json of a run ({error}).") from error
        return {"versions": {}, "device": "an unknown device", **document}

    def read_settings(self) -> TrainConfig:
        """Returns the settings of the run; raises OSError as `read_config` does."""
        return TrainConfig(**self.read_config()["settings"])

    def require_model(self) -> Path:
        """Returns the trained model's path; raises FileNotFoundError if there is none."""
        if not self.model.is_file():
            raise FileNotFoundError(
                f"{self.path}: no trained model; expected {self.model.name} in it. "
                f"Train one: keras-cifar train --run-dir {self.path}"
            )
        return self.model


def settings_dict(config: TrainConfig) -> dict[str, Any]:
    """Returns the settings as JSON can hold them; TrainConfig(**...) gives them back."""
    return dataclasses.asdict(config)


def newest_run(runs: Path = RUNS) -> RunDir:
    """Returns the run under `runs` that was started last; raises FileNotFoundError if none."""
    configs = list(runs.glob("*/config.json"))
    if not configs:
        raise FileNotFoundError(f"{runs}: no run here. Train one: keras-cifar train")
    return RunDir(max(configs, key=lambda path: path.stat().st_mtime).parent)
