"""What several commands share: options, and what the user got wrong in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from keras_cifar.cifar10 import DATASETS
from keras_cifar.config import RECIPES, TTA_VIEWS, TrainConfig, settings_dict

PATH = click.Path(path_type=Path)
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
    type=int,
    help="Test-time augmentation: the mean answer to six views of an image, in six times the time.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def default_of(name: str) -> str:
    """Returns the recipe's default of a setting for the help text."""
    values = {key: getattr(config, name) for key, config in RECIPES["article"].items()}
    if len(set(values.values())) == 1:
        return f"  [default: {next(iter(values.values()))}]"
    return f"  [default: {', '.join(f'{value} ({key})' for key, value in values.items())}]"


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


def config_from(settings: dict[str, Any]) -> TrainConfig:
    """Returns the given settings over those of their recipe; what is wrong is wrong usage."""
    recipe = RECIPES[settings.get("recipe", TrainConfig.recipe)]
    # An optimizer that the recipe has not got is refused below, by TrainConfig.
    defaults = recipe.get(settings.get("optimizer", ""), next(iter(recipe.values())))
    with wrong_usage(**{name: option_name(name) for name in settings_dict(defaults)}):
        return TrainConfig(**{**settings_dict(defaults), **settings})


@contextmanager
def wrong_usage(**options: str) -> Iterator[None]:
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


def option_name(name: str) -> str:
    """Returns what the user calls the setting `name`."""
    return f"--{name.replace('_', '-')}"


def check_picture(path: Path, *, option: str) -> None:
    """Finds out before the work, not after it, whether a picture can be written to `path`."""
    from keras_cifar.plot import check_path

    with wrong_usage(path=option):
        check_path(path)
