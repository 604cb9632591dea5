"""Train a model, or go on with a run that was interrupted."""

import importlib.util
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import click

from keras_cifar.cli.options import (
    PATH,
    config_from,
    data_dir_option,
    dataset_option,
    default_of,
    given,
    user_names,
)
from keras_cifar.machine import provide_temporary_folder, start_tensorflow
from keras_cifar.recipes import RECIPES, TrainConfig
from keras_cifar.recipes.config import PRECISIONS, STRATEGIES
from keras_cifar.run_dir import RunDir, RunRecord, new_run, newest_run

_OPTIMIZERS = tuple(dict.fromkeys(name for recipe in RECIPES.values() for name in recipe.defaults))


@click.command()
@click.option(
    "--recipe",
    type=click.Choice(tuple(RECIPES)),
    help=f"Network and method.  [default: {TrainConfig.recipe}]",
)
@click.option(
    "--optimizer",
    type=click.Choice(_OPTIMIZERS),
    help="SGD with Nesterov momentum, or Adam; of a fast recipe, its own.  "
    f"[default: {TrainConfig.optimizer}]",
)
@click.option("--epochs", type=int, help="Passes over the images." + default_of("epochs"))
@click.option("--batch-size", type=int, help="Images in a step." + default_of("batch_size"))
@click.option("--learning-rate", type=float, help="At its highest." + default_of("learning_rate"))
@click.option("--weight-decay", type=float, help="Decoupled." + default_of("weight_decay"))
@click.option("--seed", type=int, help="Of split, weights, order, dropout." + default_of("seed"))
@click.option(
    "--validation-fraction",
    type=float,
    help="Share of the images kept for validation; 0 trains on all."
    + default_of("validation_fraction"),
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of the arithmetic; weights are float32." + default_of("precision"),
)
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    help="One device, or mirrored over all of this machine." + default_of("strategy"),
)
@click.option(
    "--accelerate/--no-accelerate",
    default=None,
    help="Train in layers of the same function that are faster.  [default: accelerate]",
)
@click.option("--run-dir", type=PATH, help="For the run's files.  [default: runs/TIME-NAME]")
@click.option("--resume", is_flag=True, help="Go on with the interrupted run in --run-dir.")
@click.option("--overwrite", is_flag=True, help="Replace the run that --run-dir holds.")
@click.option(
    "--from",
    "origin",
    type=PATH,
    metavar="RUN",
    help="Start from the weights of a run, or of a .keras file of the same network.",
)
@click.option("--tensorboard", is_flag=True, help="Log to RUN_DIR/tensorboard as well.")
@dataset_option
@data_dir_option
def train(
    run_dir: Path | None,
    resume: bool,
    overwrite: bool,
    origin: Path | None,
    tensorboard: bool,
    data_dir: Path | None,
    **options: Any,
) -> None:
    """Train a model; keep it, its settings and its history in a run folder.

    The defaults are those of the article's recipe; the fast ones have their own.
    """
    if resume and overwrite:
        raise click.UsageError("--resume keeps the run, --overwrite replaces it: give one of them.")
    if resume and origin:
        raise click.UsageError("--resume knows where the run started from: leave out --from.")
    if resume:
        run = RunDir(run_dir) if run_dir else newest_run()
        record = run.read_record()
        _refuse_other_settings(run, record, given(options))
        config = record.settings
        tensorboard = tensorboard or run.tensorboard.is_dir()
    else:
        config = config_from(given(options))
        name = f"{datetime.now():%Y%m%d-%H%M%S}-{config.recipe}-{config.optimizer}"
        context = click.get_current_context()
        run = RunDir(run_dir) if run_dir else context.with_resource(new_run(name))
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise click.ClickException("TensorBoard is missing: pip install 'keras-cifar[tensorboard]'")
    click.echo(f"{run.path}: {_summary(config)}", err=True)
    provide_temporary_folder(run.path)
    start_tensorflow(trains=True)
    from keras_cifar import train as stage

    log_dir = run.tensorboard if tensorboard else None
    with _saying_how_to_resume(run):
        if resume:
            outcome = stage.resume(run, record=record, data_dir=data_dir, tensorboard=log_dir)
        else:
            existing: Literal["refuse", "replace"] = "replace" if overwrite else "refuse"
            outcome = stage.train(
                config,
                run,
                data_dir=data_dir,
                existing=existing,
                tensorboard=log_dir,
                origin=origin,
            )
    from keras_cifar.plot import draw_history  # now that there is a folder for its own files

    draw_history([run], path=run.plot)
    click.echo(f"{run.path}: {outcome}")
    click.echo(f"Test it: keras-cifar evaluate {shlex.quote(str(run.path))}", err=True)


def _summary(config: TrainConfig) -> str:
    return (
        f"{config.recipe} recipe with {config.optimizer} on {config.training_examples:,} images "
        f"of {config.dataset}, epochs {config.epochs}, seed {config.seed}"
    )


@contextmanager
def _saying_how_to_resume(run: RunDir) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        can_resume = run.config.is_file() and run.checkpoint.is_dir()
        # An error number tells a failure of the system, a full disk say, from a refusal.
        if can_resume and getattr(error, "errno", 0) is not None:
            again = f"keras-cifar train --resume --run-dir {shlex.quote(str(run.path))}"
            click.echo(f"Interrupted. Go on with: {again}", err=True)
        raise


def _refuse_other_settings(run: RunDir, record: RunRecord, settings: dict[str, Any]) -> None:
    """Refuses to go on with a run by settings that are not its own."""
    for name, value in settings.items():
        stored = getattr(record.settings, name)
        if value not in (stored, "auto"):
            raise click.UsageError(
                f"{run.path} was started with {user_names()[name]} {stored}, not {value}. "
                "Resume it without that option, or train anew in another --run-dir."
            )
