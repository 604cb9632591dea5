"""What several commands share: options, and what the user got wrong in them."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from keras_cifar.cifar10 import DATASETS
from keras_cifar.model import TTA_VIEWS
from keras_cifar.recipes import RECIPES, TrainConfig


class _Path(click.Path):
    """A path on this machine. `~` is the home folder, also where the shell leaves it as it is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Returns the path; a URL, or the home of nobody, is wrong usage."""
        text = os.fspath(value)
        if not text:  # of a variable that is not set, say; it would be the current folder
            self.fail("'' is no path.", param, ctx)
        if re.match("[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
            self.fail(f"{text!r} is a URL; a path on this machine is expected.", param, ctx)
        expanded = os.path.expanduser(text)  # noqa: PTH111 (Path's raises for a home of nobody)
        if expanded.startswith("~"):
            self.fail(f"{text!r}: no such home folder. A file of that name is ./{text}", param, ctx)
        super().convert(expanded, param, ctx)
        return Path(expanded)


class FloatRange(click.FloatRange):
    """A finite number within bounds. To click, nan is within all bounds, and inf a number."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the number; what is none, or beyond the bounds, is wrong usage."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


# Whoever reads it says what is wrong, and goes on with others.
PATH = _Path(readable=False)
data_dir_option = click.option(
    "--data-dir",
    type=PATH,
    help="Where TFDS keeps its data sets.  [default: TFDS_DATA_DIR, else ~/tensorflow_datasets]",
)
dataset_option = click.option(
    "--dataset",
    type=click.Choice(tuple(DATASETS)),
    help="cifar10, or the small part of it that comes with this package.  [default: cifar10]",
)
tta_option = click.option(
    "--tta",
    "views",
    flag_value=TTA_VIEWS,
    default=1,
    show_default=False,
    type=int,
    help="Test-time augmentation: the mean answer to six views of an image, in six times the time.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def default_of(name: str) -> str:
    """Returns the article recipe's default of a setting for the help text."""
    optimizers = RECIPES[TrainConfig.recipe].defaults
    values = {key: getattr(TrainConfig.of(optimizer=key), name) for key in optimizers}
    if len(set(values.values())) == 1:
        return f"  [default: {next(iter(values.values()))}]"
    return f"  [default: {', '.join(f'{value} ({key})' for key, value in values.items())}]"


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


def config_from(settings: dict[str, Any]) -> TrainConfig:
    """Returns the given settings over those of their recipe; what is wrong is wrong usage."""
    with wrong_usage():
        return TrainConfig.of(**settings)


@contextmanager
def wrong_usage(**options: str) -> Iterator[None]:
    """Turns the ValueError of a value that the user gave into wrong usage.

    Args:
        options: the user's name for a value, by the library's name, where the command has not got
            it as a parameter. An error about anything else is a bug and keeps its traceback.
    """
    try:
        yield
    except ValueError as error:
        name, _, fault = str(error).partition(":")
        names = user_names() | options
        if name not in names:
            raise
        raise click.UsageError(f"{names[name]}:{fault}") from error


def user_names() -> dict[str, str]:
    """Returns what the user calls each parameter of the command that runs."""
    return {
        parameter.name: parameter.opts[0]
        if isinstance(parameter, click.Option)
        else parameter.human_readable_name
        for parameter in click.get_current_context().command.params
    }
