"""Builds and compiles the network of a run for the devices that its settings name."""

import keras
import tensorflow as tf

from keras_cifar.accelerate import xla
from keras_cifar.data.examples import Examples
from keras_cifar.distribute.workers import workers_of_this_process
from keras_cifar.machine import device_kind, local_devices
from keras_cifar.recipes import RECIPES, TrainConfig


def compile_in_strategy(config: TrainConfig, *, training: Examples) -> keras.Model:
    """Builds and compiles the network for a whole run on the devices that its settings name."""
    steps_per_epoch = len(training.labels) // config.batch_size
    with _strategy(config.strategy).scope():
        return compile_model(config, examples=training, steps=config.epochs * steps_per_epoch)


def _strategy(name: str) -> tf.distribute.Strategy:
    if name == "single":
        return tf.distribute.get_strategy()
    if name == "multi-worker":
        return workers_of_this_process().strategy
    return tf.distribute.MirroredStrategy(local_devices())


def compile_model(
    config: TrainConfig, *, examples: Examples, steps: int, device: str | None = None
) -> keras.Model:
    """Builds and compiles the network of `config`, to be trained on `examples`.

    Args:
        config: without "auto".
        examples: the training examples.
        steps: of the whole run.
        device: "CPU" or "GPU", what it is to be fast on; None for what this machine has.
    """
    device = device or device_kind()
    compiles, _ = xla.choose(config.strategy, device=device)
    if device == "GPU" and not compiles:
        # Else sums on a GPU come out differently each time and resume is not exact. XLA has a
        # switch of its own, EXACT_ON_GPU: with this one Keras would drop XLA.
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(config.dtype_policy)
    try:
        return RECIPES[config.recipe].compile_model(
            config,
            examples=examples,
            steps=steps,
            device=device,
            jit_compile=compiles,
        )
    finally:
        keras.config.set_dtype_policy("float32")
