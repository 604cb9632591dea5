"""A learning-rate range test: the rate rises from step to step, and the loss is watched.

L. N. Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3, with the
exponential rise and the stop of fastai (Howard and Gugger, 2020).
"""

import math
from pathlib import Path
from typing import Any

import click
import keras

from keras_cifar.cifar10 import DATASETS
from keras_cifar.data.examples import Examples
from keras_cifar.data.prepare import load
from keras_cifar.data.split import split_stratified
from keras_cifar.files import make_folder, require_writable
from keras_cifar.plot import draw_rate_curve
from keras_cifar.rate_curve import RateCurve, write_rate_curve
from keras_cifar.recipes import RECIPES, TrainConfig
from keras_cifar.train import origins
from keras_cifar.train.compile import compile_in_strategy
from keras_cifar.train.conditions import (
    out_of_memory_in_words,
    require_one_process,
    settle,
)
from keras_cifar.train.origins import Weights
from keras_cifar.train.run import require_start

STEPS = 100
_STEPS_BETWEEN_LINES = 10
# The lowest and the highest rate, by the one that the settings have.
_RANGE = (1e-3, 1e2)


def find_learning_rate(
    config: TrainConfig,
    folder: Path,
    *,
    data_dir: Path | None = None,
    origin: Path | None = None,
) -> RateCurve:
    """Trains a few steps as a run would, at rates that rise, and keeps their losses alone.

    Only images that the run would train on are used.

    Args:
        config: settings of the run; the test looks around its learning rate.
        folder: gets learning_rate.csv and .png, and is no run. It is made where it is missing.
        data_dir: as `train`'s.
        origin: as `train`'s.

    Raises:
        OSError: as `train`.
    """
    require_start()
    require_writable(folder, name="--run-dir")
    config, choices = settle(config)
    require_one_process(config, option="--find-learning-rate")
    for name, choice in choices.items():
        click.echo(f"{name}: {choice}", err=True)
    weights = origins.read(origins.find(origin), config=config) if origin else None
    examples = load(DATASETS[config.dataset], split="train", data_dir=data_dir)
    training, _ = split_stratified(
        examples, validation_fraction=config.validation_fraction, seed=config.seed
    )
    with out_of_memory_in_words(config):
        curve = _test(config, training=training, weights=weights)
    make_folder(folder)
    write_rate_curve(folder / "learning_rate.csv", curve)
    draw_rate_curve(curve, path=folder / "learning_rate.png")
    return curve


def _test(config: TrainConfig, *, training: Examples, weights: Weights | None) -> RateCurve:
    recipe = RECIPES[config.recipe]
    model = compile_in_strategy(config, training=training)
    if weights:
        recipe.set_weights(model, weights)
    low, high = (factor * config.learning_rate for factor in _RANGE)
    # In a fast recipe, it is the convolutions', and the other groups' are multiples of it.
    model.optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(
        low, decay_steps=STEPS - 1, decay_rate=high / low
    )
    model.steps_per_execution = 1  # also where a whole epoch would be one call
    rates = [low * (high / low) ** (step / (STEPS - 1)) for step in range(STEPS)]
    watch = _WatchLoss(rates)
    model.fit(
        # An epoch of a small dataset has fewer steps.
        recipe.batches(config, examples=training, epochs=range(1)).repeat(),
        steps_per_epoch=STEPS,
        callbacks=[watch],
        shuffle=False,
        verbose=0,
    )
    return RateCurve(rates[: len(watch.losses)], watch.losses)


class _WatchLoss(keras.callbacks.Callback):
    """Notes the loss of each step, and ends the test where it is far above the lowest.

    Args:
        rates: of the steps, to say now and then how far the test is.
    """

    def __init__(self, rates: list[float]) -> None:
        super().__init__()
        self.rates = rates
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes a step's loss."""
        loss = (logs or {})["loss"]
        self.model.reset_metrics()  # else the next one would be the mean of all so far
        if (batch + 1) % _STEPS_BETWEEN_LINES == 0:
            place = f"step {batch + 1:>3}/{len(self.rates)}"
            click.echo(f"{place}  learning rate {self.rates[batch]:.2g}  loss {loss:.3f}", err=True)
        if math.isfinite(loss):
            self.losses.append(loss)
        if not math.isfinite(loss) or RateCurve([], self.losses).has_diverged:
            self.model.stop_training = True
