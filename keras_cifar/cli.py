"""The command line: each command parses, calls one function and prints its result."""

import importlib.util
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import click

from keras_cifar.cifar10 import DATASETS
from keras_cifar.config import (
    OPTIMIZERS,
    PRECISIONS,
    RECIPE_NAMES,
    RECIPES,
    RUNS,
    SPLITS,
    STRATEGIES,
    RunDir,
    TrainConfig,
    newest_run,
    settings_dict,
)
from keras_cifar.failures import Group

_PATH = click.Path(path_type=Path)
_data_dir = click.option(
    "--data-dir",
    type=_PATH,
    help="Where TFDS keeps its data sets.  [default: TFDS_DATA_DIR, else ~/tensorflow_datasets]",
)
_dataset = click.option(
    "--dataset",
    type=click.Choice(tuple(DATASETS)),
    help="cifar10, or the small part of it that comes with this package.  [default: cifar10]",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="keras-cifar")
def main() -> None:
    """Train, look at and use CIFAR-10 classifiers on Keras and TensorFlow.

    \b
    Begin with:
      keras-cifar train --optimizer sgd                    the real thing
      keras-cifar train --optimizer sgd --dataset sample   a minute, no download
    """  # noqa: D301 (\b is click's mark for lines to keep)


def _start_tensorflow() -> None:
    # Imported in commands, as every stage is: TensorFlow takes seconds, and --help need not wait.
    from keras_cifar.startup import start_tensorflow

    start_tensorflow()


def _default(name: str) -> str:
    """Returns the recipe's default of a setting for the help text."""
    values = {key: getattr(config, name) for key, config in RECIPES["article"].items()}
    if len(set(values.values())) == 1:
        return f"  [default: {next(iter(values.values()))}]"
    return f"  [default: {', '.join(f'{value} ({key})' for key, value in values.items())}]"


@main.command()
@_data_dir
@_dataset
@click.option("--archive", type=_PATH, help="Prepare from this cifar-10-{binary,python}.tar.gz.")
@click.option("--mirror", metavar="URL", help="Download from here: an archive, or Parquet files.")
@click.option("--grid", type=_PATH, metavar="FILE.png", help="Draw 10 images of each class.")
@click.option("--seed", type=int, help="Of the split and of the grid." + _default("seed"))
@click.option(
    "--validation-fraction",
    type=float,
    help="Share of the training images kept for validation." + _default("validation_fraction"),
)
@_json
def data(
    data_dir: Path | None,
    archive: Path | None,
    mirror: str | None,
    grid: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Prepare CIFAR-10 where it is missing, verify it, and print how it is split."""
    config = _config({**_given(options), "batch_size": 1})
    if archive and mirror:
        raise click.UsageError("--archive and --mirror each say where from: give one of them.")
    if grid:
        _check_picture(grid, option="--grid")
    _start_tensorflow()
    from keras_cifar.data.prepare import prepare
    from keras_cifar.data.read import read_split
    from keras_cifar.data.split import split_stratified
    from keras_cifar.data.table import format_table, split_table

    facts = DATASETS[config.dataset]
    with _wrong_usage(mirror="--mirror"):
        folder = prepare(facts, data_dir=data_dir, mirror=mirror, archive=archive)
    examples = read_split(folder, split="train", dataset=facts)
    training, validation = split_stratified(
        examples, validation_fraction=config.validation_fraction, seed=config.seed
    )
    test = read_split(folder, split="test", dataset=facts)
    table = split_table({"train": training, "validation": validation, "test": test})
    click.echo(json.dumps(table) if as_json else format_table(table))
    if grid:
        from keras_cifar.plot import draw_grid

        click.echo(f"wrote {draw_grid(examples, path=grid, seed=config.seed)}", err=True)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _config(settings: dict[str, Any]) -> TrainConfig:
    """Returns the given settings over those of their recipe; what is wrong is wrong usage."""
    recipe = RECIPES[settings.get("recipe", TrainConfig.recipe)]
    defaults = recipe[settings.get("optimizer", TrainConfig.optimizer)]
    with _wrong_usage(**{name: _option(name) for name in settings_dict(defaults)}):
        return TrainConfig(**{**settings_dict(defaults), **settings})


@contextmanager
def _wrong_usage(**options: str) -> Iterator[None]:
    """Turns the ValueError of a value that the user gave into wrong usage.

    Args:
        options: by the name that the library has for a value, the user's name for it. An error
            about anything else is a bug and keeps its traceback.
    """
    try:
        yield
    except ValueError as error:
        name, _, fault = str(error).partition(":")
        if name not in options:
            raise
        raise click.UsageError(f"{options[name]}:{fault}") from error


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_picture(path: Path, *, option: str) -> None:
    """Finds out before the work, not after it, whether a picture can be written to `path`."""
    from keras_cifar.plot import check_path

    with _wrong_usage(path=option):
        check_path(path)


@main.command()
@click.option("--recipe", type=click.Choice(RECIPE_NAMES), help="Network and method.")
@click.option(
    "--optimizer",
    type=click.Choice(OPTIMIZERS),
    help=f"SGD with Nesterov momentum, or Adam.  [default: {TrainConfig.optimizer}]",
)
@click.option("--epochs", type=int, help="Passes over the images." + _default("epochs"))
@click.option("--batch-size", type=int, help="Images in a step." + _default("batch_size"))
@click.option("--learning-rate", type=float, help="At its highest." + _default("learning_rate"))
@click.option("--weight-decay", type=float, help="Decoupled." + _default("weight_decay"))
@click.option("--seed", type=int, help="Of split, weights, order, dropout." + _default("seed"))
@click.option(
    "--validation-fraction",
    type=float,
    help="Share of the images kept for validation; 0 trains on all."
    + _default("validation_fraction"),
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of the arithmetic; weights are float32." + _default("precision"),
)
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    help="One device, or mirrored over all of this machine." + _default("strategy"),
)
@click.option("--run-dir", type=_PATH, help="For the run's files.  [default: runs/TIME-NAME]")
@click.option("--resume", is_flag=True, help="Go on with the interrupted run in --run-dir.")
@click.option("--overwrite", is_flag=True, help="Replace the run that --run-dir holds.")
@click.option("--tensorboard", is_flag=True, help="Log to RUN_DIR/tensorboard as well.")
@_dataset
@_data_dir
def train(
    run_dir: Path | None,
    resume: bool,
    overwrite: bool,
    tensorboard: bool,
    data_dir: Path | None,
    **options: Any,
) -> None:
    """Train a model; keep it, its settings and its history in a run folder."""
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise click.ClickException("TensorBoard is missing: pip install 'keras-cifar[tensorboard]'")
    if resume and overwrite:
        raise click.UsageError("--resume keeps the run, --overwrite replaces it: give one of them.")
    if resume:
        run = _run_to_resume(run_dir, _given(options))
        config = run.read_settings()
    else:
        config = _config(_given(options))
        run = RunDir(run_dir or _new_run_dir(config))
    click.echo(f"{run.path}: {_summary(config)}", err=True)
    _start_tensorflow()
    from keras_cifar import train as stage
    from keras_cifar.plot import draw_history

    log_dir = run.tensorboard if tensorboard else None
    with _saying_how_to_resume(run):
        if resume:
            outcome = stage.resume(run, data_dir=data_dir, tensorboard=log_dir)
        else:
            existing: Literal["refuse", "replace"] = "replace" if overwrite else "refuse"
            outcome = stage.train(
                config, run, data_dir=data_dir, existing=existing, tensorboard=log_dir
            )
    draw_history([run], path=run.plot)
    click.echo(f"{run.path}: {outcome}")
    click.echo(f"Test it: keras-cifar evaluate {shlex.quote(str(run.path))}", err=True)


def _new_run_dir(config: TrainConfig) -> Path:
    return RUNS / f"{datetime.now():%Y%m%d-%H%M%S}-{config.recipe}-{config.optimizer}"


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


def _run_to_resume(run_dir: Path | None, settings: dict[str, Any]) -> RunDir:
    """Returns the run to go on with; refuses settings that are not its own."""
    run = RunDir(run_dir) if run_dir else newest_run()
    stored = settings_dict(run.read_settings())
    for name, value in settings.items():
        if value not in (stored[name], "auto"):
            raise click.UsageError(
                f"{run.path} was started with {_option(name)} {stored[name]}, not {value}. "
                "Resume it without that option, or train anew in another --run-dir."
            )
    return run


@main.command()
@click.argument("run", type=_PATH, required=False)
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default="test",
    show_default=True,
    help="Which images; train and validation are the run's own parts.",
)
@_data_dir
@_json
def evaluate(
    run: Path | None,
    split: Literal["test", "validation", "train"],
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Measure a run's model (default: the newest run's) and write its metrics.json."""
    run_dir = RunDir(run) if run else newest_run()
    _start_tensorflow()
    from keras_cifar import evaluate as stage

    with _wrong_usage(split="--split"):
        metrics = stage.evaluate(run_dir, split=split, data_dir=data_dir)
    click.echo(json.dumps(asdict(metrics)) if as_json else stage.format_table(metrics))


@main.command()
@click.argument("runs", metavar="[RUN]...", type=_PATH, nargs=-1)
@click.option(
    "--output",
    type=_PATH,
    help="A .png, .svg or .pdf file.  [default: history.png in the run, or here for several]",
)
def plot(runs: tuple[Path, ...], output: Path | None) -> None:
    """Draw loss and accuracy of a run (default: the newest), or of several in one picture."""
    run_dirs = [RunDir(run) for run in runs] or [newest_run()]
    path = output or (run_dirs[0].plot if len(run_dirs) == 1 else Path("history.png"))
    from keras_cifar import plot as stage

    with _wrong_usage(path="--output", run_dirs="RUN"):
        click.echo(str(stage.draw_history(run_dirs, path=path)))


@main.command()
@click.argument("images", metavar="IMAGE...", type=_PATH, nargs=-1, required=True)
@click.option("--model", type=_PATH, help="A run or a .keras file.  [default: the newest run]")
@click.option(
    "--top",
    type=click.IntRange(1, 10),
    default=3,
    show_default=True,
    help="How many classes to print.",
)
@_json
def predict(images: tuple[Path, ...], model: Path | None, top: int, as_json: bool) -> None:
    """Tell what is on pictures: PNG, JPEG, BMP, GIF or WebP of any size.

    They are cropped to a centred square and resized to 32x32 with antialiasing.
    """
    model = model or newest_run().require_model()
    _start_tensorflow()
    from keras_cifar.client import Failure, predict_files

    results = predict_files(images, model=model)
    failures = [result for result in results if isinstance(result, Failure)]
    predictions = [result for result in results if not isinstance(result, Failure)]
    if as_json:
        click.echo(json.dumps([{**p._asdict(), "file": str(p.file)} for p in predictions]))
    else:
        for prediction in predictions:
            ranked = list(prediction.probabilities.items())[:top]
            shares = ", ".join(f"{label} {share:.1%}" for label, share in ranked)
            click.echo(f"{click.format_filename(prediction.file)}: {shares}")
    for failure in failures:
        click.echo(f"Error: {failure.file}: {failure.reason}", err=True)
    if failures:
        raise click.exceptions.Exit(1)


@main.command()
@_data_dir
@_json
def doctor(data_dir: Path | None, as_json: bool) -> None:
    """Tell what this machine has, what is missing, and how to get it."""
    _start_tensorflow()
    from keras_cifar import doctor as stage

    diagnosis = stage.diagnose(data_dir=data_dir)
    if as_json:
        click.echo(json.dumps(stage.as_json(diagnosis)))
    else:
        click.echo(stage.format_diagnosis(diagnosis))
