"""Lets `model.fit` train the model of a run, alone or as one of several workers."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import keras

from keras_cifar.accelerate import xla
from keras_cifar.data.examples import Examples
from keras_cifar.data.pipeline import eval_batches
from keras_cifar.data.split import split_stratified
from keras_cifar.distribute.replicas import AverageMoments, draw_own_masks, shared_out
from keras_cifar.distribute.workers import Workers, workers_of_this_process
from keras_cifar.plot import draw_history
from keras_cifar.recipes import RECIPES, TrainConfig
from keras_cifar.recipes.equal_shares import require_equal_shares
from keras_cifar.run_dir import RunDir
from keras_cifar.train import checkpoint
from keras_cifar.train.callbacks import RunFiles, StopAtNonFiniteLoss
from keras_cifar.train.checkpoint import Checkpoint, Progress
from keras_cifar.train.compile import compile_in_strategy
from keras_cifar.train.display import ProgressDisplay
from keras_cifar.train.origins import Weights
from keras_cifar.train.tensorboard import tensorboard_callbacks

# What a run starts from: its checkpoint, another model's weights, or random ones.
Start = Checkpoint | Weights | None
# Validation keeps no activations for gradients, so a larger batch fits and is faster.
EVAL_BATCH_SIZE = 500


class Outcome(NamedTuple):
    """What a run has come to.

    Attributes:
        epoch: whose model was chosen, counted from 1.
        val_accuracy: of that model, 0..1; None where there is no validation split.
    """

    epoch: int
    val_accuracy: float | None

    def __str__(self) -> str:
        if self.val_accuracy is None:
            return f"the model of the last epoch, {self.epoch}"
        return f"val_accuracy {self.val_accuracy:.4f}, epoch {self.epoch}"


def fit(
    config: TrainConfig,
    run_dir: RunDir,
    *,
    examples: Examples,
    start: Start,
    tensorboard: Path | None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Outcome:
    """Trains from `start`, or from the beginning, to the last epoch, and writes the run.

    Args:
        config: without "auto".
        run_dir: gets history, model, picture and checkpoints; the latter are removed at the end.
        examples: the dataset's training images, from which validation is cut.
        start: the checkpoint to go on from, or the weights to start with.
        tensorboard: where to log for TensorBoard; None for nowhere.
        callbacks: the user's own.

    Raises:
        FloatingPointError: the loss is not finite any more.
        OSError: `start` is of a run with other settings.
    """
    started = time.perf_counter()
    workers = workers_of_this_process() if config.strategy == "multi-worker" else None
    if workers:
        workers.tell("record", run_dir.read_record().as_json())
    training, validation = _split(config, examples)
    steps_per_epoch = len(training.labels) // config.batch_size
    before = start if isinstance(start, Checkpoint) else None
    progress = before.progress if before else Progress(settings=asdict(config))
    _refuse_other_settings(run_dir, then=progress.settings, now=asdict(config))
    # Trained in whatever precision, the chosen model is kept and used in float32, as its weights.
    keras.config.set_dtype_policy("float32")
    recipe = RECIPES[config.recipe]
    chosen = recipe.build_model(seed=config.seed)
    model = compile_in_strategy(config, training=training)
    if before:
        checkpoint.restore(before, model=model)
        click.echo(f"{run_dir.path}: going on after epoch {progress.epoch}", err=True)
    elif start:
        recipe.set_weights(model, start)
    if workers:
        _start_alike(workers, model=model, epoch=progress.epoch)
    display = ProgressDisplay(
        recipe.epoch_costs(config), steps_per_epoch=steps_per_epoch, batch_size=config.batch_size
    )
    own: list[keras.callbacks.Callback] = [
        RunFiles(run_dir, chosen=chosen, progress=progress, started=started),
        display,
    ]
    if tensorboard:
        own += tensorboard_callbacks(
            tensorboard, config=config, training=training, validation=validation
        )
    try:
        # The user's callbacks last: theirs may fail.
        _fit(
            model,
            config,
            training=training,
            validation=validation,
            first_epoch=progress.epoch,
            callbacks=[*own, *callbacks],
        )
    finally:
        display.clear_bar()
    # While the run is this process's own, and before it counts as one that has ended.
    draw_history([run_dir], path=run_dir.plot)
    checkpoint.remove(run_dir.checkpoint)
    return Outcome(progress.best_epoch, progress.best_accuracy if len(validation.labels) else None)


def fit_share(
    config: TrainConfig,
    *,
    examples: Examples,
    callbacks: Sequence[keras.callbacks.Callback],
    workers: Workers,
) -> None:
    """Trains as a worker with the chief, which is in `fit`; writes nothing.

    Args:
        config: the chief's.
        examples: as the chief's.
        callbacks: the user's own.
        workers: all of them.
    """
    training, validation = _split(config, examples)
    model = compile_in_strategy(config, training=training)
    first_epoch = _start_alike(workers, model=model)
    _fit(
        model,
        config,
        training=training,
        validation=validation,
        first_epoch=first_epoch,
        callbacks=callbacks,
    )


def _start_alike(workers: Workers, *, model: keras.Model, epoch: int = 0) -> int:
    """Has all workers start as the chief does; returns the first epoch, counted from 0."""
    workers.take_the_chiefs(checkpoint.variables(model))
    return int(workers.tell("epoch", epoch))


def _split(config: TrainConfig, examples: Examples) -> tuple[Examples, Examples]:
    return split_stratified(
        examples, validation_fraction=config.validation_fraction, seed=config.seed
    )


def _fit(
    model: keras.Model,
    config: TrainConfig,
    *,
    training: Examples,
    validation: Examples,
    first_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains to the last epoch, on the shares of all replicas of this process."""
    recipe = RECIPES[config.recipe]
    epochs = range(first_epoch, config.epochs)
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    require_equal_shares(config, replicas=replicas)
    draw_own_masks(model)
    batches = partial(recipe.batches, config, examples=training, epochs=epochs)
    model.fit(
        # Without end: else workers would ask each other before each step whether there is one.
        shared_out(lambda share: batches(share=share).repeat(), strategy),
        epochs=config.epochs,
        initial_epoch=first_epoch,
        steps_per_epoch=len(training.labels) // config.batch_size,
        validation_data=shared_out(
            partial(eval_batches, validation, batch_size=EVAL_BATCH_SIZE), strategy
        )
        if len(validation.labels)
        else None,
        callbacks=[
            *recipe.callbacks(),
            *xla.callbacks(config.strategy),
            StopAtNonFiniteLoss(learning_rate=config.learning_rate),
            *([AverageMoments()] if replicas > 1 else []),
            *callbacks,
        ],
        shuffle=False,  # train_batches shuffles; Keras's default only warns
        verbose=0,
    )


def _refuse_other_settings(run_dir: RunDir, *, then: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [
        f"{name} {value} (was {then.get(name)})"
        for name, value in now.items()
        if value != then.get(name)
    ]
    if changed:
        raise OSError(
            f"{run_dir.config}: is damaged, or was changed since the last checkpoint: "
            f"{', '.join(changed)}. Put the old values back, or train anew in another --run-dir."
        )
