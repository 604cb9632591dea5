"""What a run is: its settings, which decide its outcome."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from keras_cifar.cifar10 import DATASETS, NUM_CLASSES
from keras_cifar.recipes.table import RECIPES

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
STRATEGIES = ("auto", "single", "mirrored", "multi-worker")
# What a run's model can be evaluated on.
SPLITS = ("test", "validation", "train")
MAX_SEED = 2**31 - 1
_MAX_EPOCHS = 100_000
_MAX_FLOAT = sys.float_info.max  # beyond it, only whole numbers of Python
# What config.json can hold of the settings that are no names.
_KINDS = {
    **dict.fromkeys(("epochs", "batch_size", "seed"), int),
    **dict.fromkeys(("learning_rate", "weight_decay", "validation_fraction"), float),
    **dict.fromkeys(("accelerate", "sync_batch_norm"), bool),
}
_RECIPE = next(iter(RECIPES))
_OPTIMIZER, _DEFAULTS = next(iter(RECIPES[_RECIPE].defaults.items()))


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a training run.

    Attributes:
        recipe: network and method.
        dataset: a key of `keras_cifar.cifar10.DATASETS`.
        optimizer: "sgd" (Nesterov's), "adam" or "muon", of those that the recipe has.
        epochs: passes over the training images.
        batch_size: images in a training step.
        learning_rate: the highest of the run. The rate rises to it linearly, then falls to 0, as a
            cosine or, in the fast recipes, in a line.
        weight_decay: a step at a rate takes rate * weight_decay of each decayed weight away, what
            momentum adds included. The article's recipe decays the kernels, the fast ones all that
            SGD trains.
        seed: decides split, initial weights, order, augmentation and dropout; 0 to 2**31 - 1.
        validation_fraction: share of each class of the training images kept for validation.
        precision: of activations and gradients; weights are float32.
        strategy: "single" device, "mirrored" over all of one machine, or "multi-worker" over the
            processes that TF_CONFIG or Slurm names.
        sync_batch_norm: whether batch normalisation takes the moments of the whole batch in place
            of those of each replica's share.
        accelerate: whether layers are replaced by faster ones of the same function while it trains
            (`keras_cifar.accelerate`).
    """

    recipe: str = _RECIPE
    dataset: str = "cifar10"
    optimizer: str = _OPTIMIZER
    epochs: int = _DEFAULTS.epochs
    batch_size: int = _DEFAULTS.batch_size
    learning_rate: float = _DEFAULTS.learning_rate
    weight_decay: float = _DEFAULTS.weight_decay
    seed: int = 0
    validation_fraction: float = _DEFAULTS.validation_fraction
    precision: str = "auto"
    strategy: str = "auto"
    accelerate: bool = True
    sync_batch_norm: bool = False

    @classmethod
    def of(
        cls, recipe: str = _RECIPE, optimizer: str | None = None, **settings: Any
    ) -> TrainConfig:
        """Returns a recipe's own settings, with others in the place of some.

        Args:
            recipe: a key of `keras_cifar.recipes.RECIPES`.
            optimizer: one that the recipe has; None for its default.
            settings: fields of this class.

        Raises:
            ValueError: a value that nothing can be trained with.
        """
        _check_choice("recipe", recipe, tuple(RECIPES))
        by_optimizer = RECIPES[recipe].defaults
        optimizer = optimizer or next(iter(by_optimizer))
        _check_choice("optimizer", optimizer, tuple(by_optimizer))
        defaults = by_optimizer[optimizer]._asdict()
        return cls(**{"recipe": recipe, "optimizer": optimizer, **defaults, **settings})

    def __post_init__(self) -> None:
        """Raises ValueError for a value that nothing can be trained with."""
        for name, kind in _KINDS.items():
            _check_kind(name, getattr(self, name), kind)
        _check_choice("recipe", self.recipe, tuple(RECIPES))
        _check_choice("dataset", self.dataset, tuple(DATASETS))
        _check_choice("optimizer", self.optimizer, tuple(RECIPES[self.recipe].defaults))
        _check_choice("precision", self.precision, PRECISIONS)
        _check_choice("strategy", self.strategy, ("auto", *RECIPES[self.recipe].strategies))
        _check_number("epochs", self.epochs, 1, _MAX_EPOCHS)
        _check_number("seed", self.seed, 0, MAX_SEED)
        _check_number("weight_decay", self.weight_decay, 0, _MAX_FLOAT)
        if not 0 < self.learning_rate <= _MAX_FLOAT:
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

    @property
    def dtype_policy(self) -> str:
        """Keras's name for the precision, which is not "auto"."""
        return "float32" if self.precision == "float32" else f"mixed_{self.precision}"


def _check_kind(name: str, value: object, kind: type) -> None:
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or isinstance(value, bool) != (kind is bool):
        expected = {int: "a whole number", bool: "True or False"}.get(kind, "a number")
        raise ValueError(f"{name}: got {value!r}, expected {expected}.")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(choices)}.")


def _check_number(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        up_to = "or more" if high == _MAX_FLOAT else f"to {high}"
        raise ValueError(f"{name}: got {value}, expected {low} {up_to}.")
