"""The article's recipe: its network, SGD with momentum or Adam, crops and mirrored images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_cifar.recipes.recipe import Defaults

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from keras_cifar.data.examples import Examples
    from keras_cifar.data.pipeline import Share
    from keras_cifar.recipes.config import TrainConfig

MOMENTUM = 0.9


class ArticleRecipe:
    """The tutorial's network, trained as its text says; the numbers are this project's."""

    # The article names no learning rate, decay, batch size or number of epochs. The split of 80:20
    # is its own.
    defaults = {  # noqa: RUF012 (nothing changes it)
        "sgd": Defaults(
            epochs=20,
            batch_size=128,
            learning_rate=0.05,
            weight_decay=5e-3,
            validation_fraction=0.2,
        ),
        "adam": Defaults(
            epochs=20,
            batch_size=128,
            learning_rate=1e-3,
            weight_decay=0.1,
            validation_fraction=0.2,
        ),
    }
    strategies = ("single", "mirrored", "multi-worker")

    def build_model(self, *, seed: int) -> keras.Sequential:
        """Returns the article's network."""
        from keras_cifar.model import article

        return article.build_model(seed=seed)

    def compile_model(
        self,
        config: TrainConfig,
        *,
        examples: Examples,
        steps: int,
        device: str,
        jit_compile: bool,
    ) -> keras.Model:
        """Returns the network, compiled with cross entropy and the optimiser of `config`."""
        import keras

        from keras_cifar.accelerate import accelerate
        from keras_cifar.distribute.multi_worker import MultiWorkerModel
        from keras_cifar.distribute.replicas import synchronise

        model = self.build_model(seed=config.seed)
        if config.sync_batch_norm:
            synchronise(model)
        model_to_fit = accelerate(model, device=device) if config.accelerate else model
        if config.strategy == "multi-worker":
            model_to_fit = MultiWorkerModel(model_to_fit)
        model_to_fit.compile(
            optimizer=build_optimizer(config, steps=steps, jit_compile=jit_compile),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
            jit_compile=jit_compile,
        )
        # TensorFlow traces a step again that has made variables: the optimiser's, or those of a
        # metric that is given by its name.
        model_to_fit.optimizer.build(model_to_fit.trainable_variables)
        return model_to_fit

    def set_weights(self, model: keras.Model, weights: Sequence[Any]) -> None:
        """Sets them."""
        model.set_weights(weights)

    def images_per_step(self, config: TrainConfig) -> int:
        """Returns the batch size."""
        return config.batch_size

    def batches(
        self, config: TrainConfig, *, examples: Examples, epochs: range, share: Share | None = None
    ) -> tf.data.Dataset:
        """Returns images, cropped and mirrored at random, and labels."""
        from keras_cifar.data.pipeline import train_batches

        return train_batches(
            examples, batch_size=config.batch_size, seed=config.seed, epochs=epochs, share=share
        )

    def first_batch(self, config: TrainConfig, *, examples: Examples, epoch: int) -> Examples:
        """Returns the first of `batches` of an epoch."""
        from keras_cifar.data.examples import Examples

        batches = self.batches(config, examples=examples, epochs=range(epoch, epoch + 1))
        return Examples(*next(batches.as_numpy_iterator()))

    def epoch_costs(self, config: TrainConfig) -> list[float]:
        """Returns 1 for each."""
        return [1.0] * config.epochs

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns none."""
        return []


def build_optimizer(
    config: TrainConfig, *, steps: int, jit_compile: bool
) -> keras.optimizers.Optimizer:
    """Builds SGD with Nesterov momentum, or Adam, with a schedule over the run.

    Weight decay is decoupled (Loshchilov and Hutter, 2019): a step multiplies each kernel by
    1 - rate * weight_decay. Biases and batch normalisation are left out.

    Args:
        config: settings of the run.
        steps: optimiser steps of the whole run.
        jit_compile: whether XLA compiles the model as a whole.
    """
    import keras

    from keras_cifar.accelerate.updates import CompiledAdam, CompiledSGD
    from keras_cifar.optimize.loss_scale import agreed
    from keras_cifar.optimize.schedules import warmup_then_cosine

    compiled = config.accelerate and config.strategy == "single" and not jit_compile
    schedule = warmup_then_cosine(config.learning_rate, steps=steps)
    if config.optimizer == "sgd":
        kind = CompiledSGD if compiled else keras.optimizers.SGD
        optimizer = kind(
            schedule, momentum=MOMENTUM, nesterov=True, weight_decay=config.weight_decay
        )
    else:
        kind = CompiledAdam if compiled else keras.optimizers.Adam
        optimizer = kind(schedule, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return agreed(optimizer, precision=config.precision)
