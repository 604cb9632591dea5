"""What a recipe is: the settings that it takes by default, and the parts of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from keras_cifar.data.examples import Examples
    from keras_cifar.data.pipeline import Share
    from keras_cifar.recipes.config import TrainConfig


class Defaults(NamedTuple):
    """The settings that depend on recipe and optimiser, as `TrainConfig` explains them."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    validation_fraction: float


class Recipe(Protocol):
    """A network and a way to train it."""

    @property
    def defaults(self) -> Mapping[str, Defaults]:
        """By optimiser, its settings where the user says nothing; the default optimiser first."""

    @property
    def strategies(self) -> tuple[str, ...]:
        """What it can be trained by, "auto" aside."""

    def build_model(self, *, seed: int) -> keras.Model:
        """Returns the network in Keras's own layers, uncompiled: what a run keeps."""

    def compile_model(
        self,
        config: TrainConfig,
        *,
        examples: Examples,
        steps: int,
        device: str,
        jit_compile: bool,
    ) -> keras.Model:
        """Returns the network that `fit` trains, compiled.

        Args:
            config: settings of the run, without "auto".
            examples: the training examples.
            steps: of the whole run.
            device: "CPU" or "GPU", what its layers are to be fast on.
            jit_compile: whether XLA compiles the whole step.
        """

    def set_weights(self, model: keras.Model, weights: Sequence[Any]) -> None:
        """Has a compiled model start from other weights, in the order of `build_model`'s."""

    def images_per_step(self, config: TrainConfig) -> int:
        """Returns how many images a step trains on, which replicas share."""

    def batches(
        self, config: TrainConfig, *, examples: Examples, epochs: range, share: Share | None = None
    ) -> tf.data.Dataset:
        """Returns what `fit` is given for these epochs, by one process of perhaps several."""

    def first_batch(self, config: TrainConfig, *, examples: Examples, epoch: int) -> Examples:
        """Returns the first images of an epoch as the network sees them, and their labels.

        Args:
            config: settings of the run.
            examples: the training examples.
            epoch: counted from 0.

        Returns:
            images uint8 (batch, side, side, 3), augmented; of a recipe whose images grow, the side
            depends on the epoch.
        """

    def epoch_costs(self, config: TrainConfig) -> list[float]:
        """Returns what each epoch costs beside the others: a part of what it is to take."""

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns what `fit` has to call for this recipe."""
