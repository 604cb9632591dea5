"""Train a model, or go on with a run that was interrupted."""

import os
import shlex
from pathlib import Path
from typing import Any, Literal

import click

from keras_cifar.cli import learning_rate
from keras_cifar.cli.options import (
    PATH,
    config_from,
    data_dir_option,
    dataset_option,
    default_of,
    given,
)
from keras_cifar.cli.seeds import SEEDS, resume_group, start_group
from keras_cifar.cli.starting import (
    new_name,
    refuse_other_settings,
    require_tensorboard,
    saying_how_to_resume,
    summary,
)
from keras_cifar.distribute.cluster import is_helper, is_in_cluster
from keras_cifar.recipes import RECIPES, TrainConfig
from keras_cifar.recipes.config import PRECISIONS, STRATEGIES
from keras_cifar.run_dir import RunDir, RunGroup, is_group, new_run, newest_to_resume
from keras_cifar.start import provide_temporary_folder, start_tensorflow

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
    "--seeds",
    type=SEEDS,
    metavar="LIST",
    help="Train a run for each, one after the other: 0-4, or 0,3,7-9.",
)
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
    help="One device, mirrored over all of this machine, or over the workers of a cluster."
    + default_of("strategy"),
)
@click.option(
    "--sync-batch-norm",
    is_flag=True,
    default=None,
    help="Normalise by the moments of the whole batch, not by those of each device's share.",
)
@click.option(
    "--accelerate/--no-accelerate",
    default=None,
    help="Train in layers of the same function that are faster.  [default: accelerate]",
)
@click.option("--run-dir", type=PATH, help="For the run's files.  [default: runs/TIME-NAME]")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run, or the group of --seeds, in --run-dir.  [default: the newest]",
)
@click.option("--overwrite", is_flag=True, help="Replace the run that --run-dir holds.")
@click.option(
    "--from",
    "origin",
    type=PATH,
    metavar="RUN",
    help="Start from the weights of a run, or of a .keras file of the same network.",
)
@click.option(
    "--find-learning-rate",
    is_flag=True,
    help="Train 100 steps at rates that rise, draw their losses, suggest a rate; make no run.",
)
@click.option("--tensorboard", is_flag=True, help="Log to RUN_DIR/tensorboard as well.")
@dataset_option
@data_dir_option
def train(
    seeds: tuple[int, ...] | None,
    run_dir: Path | None,
    resume: bool,
    overwrite: bool,
    origin: Path | None,
    find_learning_rate: bool,
    tensorboard: bool,
    data_dir: Path | None,
    **options: Any,
) -> None:
    """Train a model; keep it, its settings and its history in a run folder.

    The defaults are those of the article's recipe; the fast ones have their own.
    """
    if is_in_cluster():
        # TensorFlow warns of each dataset that it shares out.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        start_tensorflow(trains=True)  # what Slurm's variables say, it reads
    if find_learning_rate:
        learning_rate.refuse_options_of_runs(
            resume=resume, overwrite=overwrite, seeds=seeds, tensorboard=tensorboard
        )
        config = config_from(given(options))
        return learning_rate.find(config, run_dir, data_dir=data_dir, origin=origin)
    _refuse_contradictions(click.get_current_context().params)
    existing: Literal["refuse", "replace"] = "replace" if overwrite else "refuse"
    for_both: Any = {"seeds": seeds, "tensorboard": tensorboard, "data_dir": data_dir}
    together = resume or options["strategy"] in (None, "auto", "multi-worker")
    if together and not seeds and is_helper():  # each process refuses --seeds by itself
        return _help(None if resume else config_from(given(options)), data_dir=data_dir)
    if resume:
        run = RunDir(run_dir) if run_dir else newest_to_resume()
        if seeds or is_group(run.path):
            return resume_group(RunGroup(run.path), given(options), **for_both)
        record = run.read_record()
        refuse_other_settings(run.path, record.settings, given(options))
        config = record.settings
        tensorboard = tensorboard or run.tensorboard.is_dir()
    else:
        config = config_from(given(options))
        if seeds:
            return start_group(config, run_dir, existing=existing, **for_both)
        if origin and origin.is_dir():
            RunDir(origin).require_model()  # before TensorFlow starts, which takes seconds
        context = click.get_current_context()
        run = RunDir(run_dir) if run_dir else context.with_resource(new_run(new_name(config)))
    if tensorboard:
        require_tensorboard()
    click.echo(f"{run.path}: {summary(config)}, seed {config.seed}", err=True)
    provide_temporary_folder(run.path)
    start_tensorflow(trains=True)
    from keras_cifar import train as stage

    log_dir = run.tensorboard if tensorboard else None
    with saying_how_to_resume(run):
        if resume:
            outcome = stage.resume(run, record=record, data_dir=data_dir, tensorboard=log_dir)
        else:
            outcome = stage.train(
                config,
                run,
                data_dir=data_dir,
                existing=existing,
                tensorboard=log_dir,
                origin=origin,
            )
    click.echo(f"{run.path}: {outcome}")
    click.echo(f"Test it: keras-cifar evaluate {shlex.quote(str(run.path))}", err=True)


def _refuse_contradictions(params: dict[str, Any]) -> None:
    if params["resume"] and params["overwrite"]:
        raise click.UsageError("--resume keeps the run, --overwrite replaces it: give one of them.")
    if params["resume"] and params["origin"]:
        raise click.UsageError("--resume knows where the run started from: leave out --from.")
    if params["seeds"] and params["origin"]:
        raise click.UsageError(
            "--seeds: with each seed, other images validate, which the model of --from may know. "
            "Train one run, with the --seed of that model."
        )
    if params["seeds"] and params["seed"] is not None:
        raise click.UsageError("--seed is for one run, --seeds for several: give one of them.")


def _help(config: TrainConfig | None, *, data_dir: Path | None) -> None:
    """Trains as a worker that is not the chief: it has no run, and says no more than what fails."""
    from keras_cifar import train as stage

    nowhere = RunDir(Path())
    if config:
        stage.train(config, nowhere, data_dir=data_dir)
    else:
        stage.resume(nowhere, data_dir=data_dir)
