"""Find a learning rate to train with, by a short test."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keras_cifar.cli.starting import new_name, summary
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import new_run
from keras_cifar.start import provide_temporary_folder, start_tensorflow

if TYPE_CHECKING:
    from keras_cifar.rate_curve import RateCurve


def refuse_options_of_runs(**options: object) -> None:
    """Refuses what is about the run that a test does not make."""
    for name, value in options.items():
        if value:
            raise click.UsageError(f"--find-learning-rate makes no run: leave out --{name}.")


def find(
    config: TrainConfig, path: Path | None, *, data_dir: Path | None, origin: Path | None
) -> None:
    """Writes a picture and a table to `path` or a new folder under runs/; prints a suggestion."""
    context = click.get_current_context()
    folder = path or context.with_resource(new_run(f"{new_name(config)}-learning-rate")).path
    click.echo(f"{folder}: a learning rate for the {summary(config)}", err=True)
    provide_temporary_folder(folder)
    start_tensorflow(trains=True)
    from keras_cifar import train as stage

    curve = stage.find_learning_rate(config, folder, data_dir=data_dir, origin=origin)
    click.echo(f"{folder}: {_in_words(curve)}")


def _in_words(curve: "RateCurve") -> str:
    if curve.suggested is None:
        return "no rate to suggest, the training loss did not fall. Try around another one."
    return (
        f"try --learning-rate {curve.rates[curve.suggested]:.2g}, where the training loss fell "
        "most steeply. This is a suggestion: compare rates around it by validation accuracy."
    )
