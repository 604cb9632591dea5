"""The `train` that several workers run: what `launch` starts and `deploy --job` writes down."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from keras_cifar.cli.options import config_from, given
from keras_cifar.cli.train import train
from keras_cifar.recipes import TrainConfig
from keras_cifar.recipes.equal_shares import require_equal_shares

STRATEGY = "multi-worker"
_NOT_FOR_SEVERAL = ("seeds", "find_learning_rate")
_SETTINGS = [field.name for field in dataclasses.fields(TrainConfig)]


def parse_train(arguments: Sequence[str]) -> click.Context:
    """Reads `train ...` as it will be read by each worker, and refuses what cannot be.

    Returns:
        Its context; `params` has the options.
    """
    name, *options = arguments
    if name != train.name:
        raise click.UsageError(f"after --: got {name!r}, expected train and its options.")
    context = click.get_current_context()
    whole_name = f"{context.info_name} -- {name}"
    context = train.make_context(whole_name, options, parent=context.find_root())
    for option in _NOT_FOR_SEVERAL:
        if context.params[option]:
            flag = f"--{option.replace('_', '-')}"
            raise click.UsageError(f"{flag}: not with several workers. Train it in one process.")
    if (strategy := context.params["strategy"]) not in (None, "auto", STRATEGY):
        raise click.UsageError(
            f"--strategy: got {strategy!r}; several workers train by {STRATEGY}. Leave it out."
        )
    return context


def settings(context: click.Context) -> dict[str, Any]:
    """Returns the settings of the run that the user gave, the strategy aside."""
    options = {name: context.params.get(name) for name in _SETTINGS if name != "strategy"}
    return given(options)


def config_of(context: click.Context, *, workers: int) -> TrainConfig:
    """Returns the settings that a new run will have; what is wrong with them is wrong usage."""
    with context.scope(cleanup=False):
        config = config_from(settings(context) | {"strategy": STRATEGY})
    # `train` says so too, but in a job that may have waited for its machines for hours.
    try:
        require_equal_shares(config, replicas=workers)
    except OSError as error:
        raise click.UsageError(str(error)) from error
    return config


def complete(arguments: Sequence[str], train: click.Context, run: Path) -> list[str]:
    """Returns the arguments with what makes them the same for all workers: strategy and run."""
    added = []
    if train.params["strategy"] != STRATEGY:
        added += ["--strategy", STRATEGY]
    if train.params["run_dir"] is None:
        added += ["--run-dir", str(run)]
    return [*arguments, *added]
