"""What `train` checks and says before a run or a group of runs, and when one is interrupted."""

import importlib.util
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from keras_cifar.cli.options import user_names
from keras_cifar.distribute.cluster import LAUNCHED, variable_of_cluster
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir, RunGroup


def new_name(config: TrainConfig) -> str:
    """Returns the name of a folder for what is started now."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{config.recipe}-{config.optimizer}"


def summary(config: TrainConfig) -> str:
    """Returns in words what is going to be trained, the seed aside."""
    return (
        f"{config.recipe} recipe with {config.optimizer} on {config.training_examples:,} images "
        f"of {config.dataset}, epochs {config.epochs}"
    )


def require_tensorboard() -> None:
    """Says how to get TensorBoard, if it is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise click.ClickException("TensorBoard is missing: pip install 'keras-cifar[tensorboard]'")


@contextmanager
def saying_how_to_resume(run: RunDir | RunGroup) -> Iterator[None]:
    """Prints the command that goes on with a run or a group, if the block is interrupted."""
    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        # An error number tells a failure of the system, a full disk say, from a refusal.
        failed = getattr(error, "errno", 0) is not None
        if failed and run.is_unfinished and LAUNCHED not in os.environ:
            again = f"keras-cifar train --resume --run-dir {shlex.quote(str(run.path))}"
            click.echo(f"Interrupted. Go on with: {again}{_where(run)}", err=True)
        raise


def _where(run: RunDir | RunGroup) -> str:
    """Returns what else of a cluster is needed to resume, in words."""
    if not (variable := variable_of_cluster()):
        return ""
    if isinstance(run, RunDir) and run.read_record().settings.strategy == "multi-worker":
        return ", on all workers"
    return f", with {variable} unset"


def refuse_other_settings(path: Path, stored: TrainConfig, settings: dict[str, Any]) -> None:
    """Refuses to go on with a run or a group by settings that are not its own."""
    for name, value in settings.items():
        if value not in (getattr(stored, name), "auto"):
            raise click.UsageError(
                f"{path} was started with {user_names()[name]} {getattr(stored, name)}, not "
                f"{value}. Resume it without that option, or train anew in another --run-dir."
            )
