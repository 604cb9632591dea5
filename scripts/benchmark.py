"""Times the input pipeline, training as `train` does it, and a bare `model.fit`, in alternation.

    python scripts/benchmark.py

The bare fit has the same compiled network and its batches in memory, and no callback. Rates are
medians of the rounds; each round's first epoch, which traces the graph, does not count. An epoch
is the sample several times over, so that the files of its end weigh about what they do in reality.
"""

import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import click

from keras_cifar.config import RECIPES, RunDir, TrainConfig
from keras_cifar.startup import start_tensorflow

start_tensorflow()

import dataclasses  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from keras_cifar.cifar10 import SAMPLE  # noqa: E402
from keras_cifar.data.examples import Examples  # noqa: E402
from keras_cifar.data.pipeline import eval_batches, train_batches  # noqa: E402
from keras_cifar.data.prepare import load  # noqa: E402
from keras_cifar.history import read_history  # noqa: E402
from keras_cifar.precision import cpu_model, pick_precision  # noqa: E402
from keras_cifar.train.fit import compile_model, fit  # noqa: E402


def pipeline_rate(examples: Examples, *, config: TrainConfig) -> float:
    """Returns how many images a second the training batches come at when nothing trains."""
    epochs = range(20)
    batches = train_batches(examples, batch_size=config.batch_size, seed=0, epochs=epochs)
    iterator = iter(batches)
    next(iterator)
    started = time.perf_counter()
    images = sum(len(labels) for _, labels in iterator)
    return images / (time.perf_counter() - started)


def train_rate(examples: Examples, *, config: TrainConfig) -> float:
    """Returns how many images a second `train` does, its files included."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = RunDir(Path(folder))
        run_dir.checkpoint.mkdir()
        fit(config, run_dir, examples=examples, start=None, tensorboard=None)
        seconds = read_history(run_dir.history).seconds[1:]
    return images_an_epoch(examples, config=config) * len(seconds) / sum(seconds)


def images_an_epoch(examples: Examples, *, config: TrainConfig) -> int:
    """Returns how many images are in the full batches of an epoch."""
    return len(examples.labels) // config.batch_size * config.batch_size


def bare_rate(model: keras.Model, batches: tf.data.Dataset, *, images: int, epochs: int) -> float:
    """Returns how many images a second `model.fit` does on batches in memory."""
    started = time.perf_counter()
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    return images * epochs / (time.perf_counter() - started)


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--epochs", default=1, show_default=True, help="Timed in each round.")
@click.option("--repeat", default=10, show_default=True, help="Of the sample in an epoch.")
def main(rounds: int, epochs: int, repeat: int) -> None:
    """Prints rates and their ratios."""
    precision, reason = pick_precision()
    config = dataclasses.replace(
        RECIPES["article"]["sgd"],
        dataset="sample",
        validation_fraction=0.0,
        precision=precision,
        strategy="single",
        epochs=epochs + 1,
    )
    print(
        f"{cpu_model()}, {os.cpu_count()} threads, {platform.platform()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"TensorFlow {version('tensorflow')}, Keras {version('keras')}, {precision} ({reason})")
    sample = load(SAMPLE, split="train", data_dir=None)
    examples = sample.take(np.tile(np.arange(len(sample.labels)), repeat))
    images = images_an_epoch(examples, config=config)
    whole = examples.take(np.arange(images))
    batches = eval_batches(whole, batch_size=config.batch_size).cache()
    model = compile_model(config, examples=whole, steps=1_000_000)
    model.fit(batches, shuffle=False, verbose=0)
    pipeline, train, bare = [], [], []
    for number in range(rounds):
        pipeline.append(pipeline_rate(examples, config=config))
        train.append(train_rate(examples, config=config))
        bare.append(bare_rate(model, batches, images=images, epochs=epochs))
        print(
            f"round {number + 1}: pipeline {pipeline[-1]:,.0f}, train {train[-1]:,.0f}, "
            f"bare fit {bare[-1]:,.0f} images/s"
        )
    rates = (statistics.median(values) for values in (pipeline, train, bare))
    print("median: pipeline {:,.0f}, train {:,.0f}, bare fit {:,.0f} images/s".format(*rates))
    against_bare = statistics.median(a / b for a, b in zip(train, bare, strict=True))
    against_train = statistics.median(a / b for a, b in zip(pipeline, train, strict=True))
    print(f"train / bare fit: {against_bare:.3f}")
    print(f"pipeline / train: {against_train:.0f}")


if __name__ == "__main__":
    main()
