"""What a run is: its settings, and what each recipe takes for them."""

import dataclasses
import math
from dataclasses import dataclass
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


def settings_dict(config: TrainConfig) -> dict[str, Any]:
    """Returns the settings as JSON can hold them; TrainConfig(**...) gives them back."""
    return dataclasses.asdict(config)
