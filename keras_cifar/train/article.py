"""The article's recipe: what `fit` trains, and on what."""

import keras
import tensorflow as tf

from keras_cifar.config import TrainConfig
from keras_cifar.data.examples import Examples
from keras_cifar.data.pipeline import train_batches
from keras_cifar.model import article
from keras_cifar.optimize.article import build_optimizer
from keras_cifar.optimize.xla import compile_updates


def build_model(config: TrainConfig) -> keras.Model:
    """Returns the network, uncompiled."""
    return article.build_model(seed=config.seed)


def compile_model(
    config: TrainConfig, *, examples: Examples, steps: int, jit_compile: bool
) -> keras.Model:
    """Returns the network, compiled."""
    model = build_model(config)
    optimizer = build_optimizer(
        config.optimizer,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        steps=steps,
    )
    if config.strategy == "single" and not jit_compile:
        compile_updates(optimizer)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    return model


def callbacks(config: TrainConfig) -> list[keras.callbacks.Callback]:
    """Returns what `fit` has to call: nothing of its own."""
    return []


def batches(config: TrainConfig, *, examples: Examples, epochs: range) -> tf.data.Dataset:
    """Returns what `fit` is given for these epochs."""
    return train_batches(examples, batch_size=config.batch_size, seed=config.seed, epochs=epochs)
