"""The command line: each command parses, calls one function and prints its result."""

import os
from pathlib import Path

import click

from keras_cifar.cli.data import data
from keras_cifar.cli.evaluate import evaluate
from keras_cifar.cli.exits import Group
from keras_cifar.cli.launch import launch
from keras_cifar.cli.look import doctor, plot
from keras_cifar.cli.predict import predict
from keras_cifar.cli.publish import deploy, export
from keras_cifar.cli.report import report
from keras_cifar.cli.runs import runs
from keras_cifar.cli.serve import serve
from keras_cifar.cli.train import train


@click.group(
    cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
@click.version_option(package_name="keras-cifar")
def main() -> None:
    """Train, look at and use CIFAR-10 classifiers on Keras and TensorFlow.

    \b
    Begin with:
      keras-cifar train --optimizer sgd                    the real thing
      keras-cifar train --optimizer sgd --dataset sample   minutes, no download
    """  # noqa: D301 (\b is click's mark for lines to keep)
    # Pictures are made for files, and all look alike. Notebooks name a backend of their own
    # environment to whatever they start; where it is not installed, neither matplotlib nor Keras
    # could be imported.
    os.environ["MPLBACKEND"] = "agg"
    os.environ["MATPLOTLIBRC"] = os.devnull
    _require_readable(Path("matplotlibrc"))


def _require_readable(settings: Path) -> None:
    """Raises OSError for settings of matplotlib that it would stumble over: those of this folder.

    It reads them whatever it is told.
    """
    try:
        if settings.is_file():
            settings.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise OSError(
            f"{settings.absolute()}: is not UTF-8, as matplotlib wants it. Move it away."
        ) from error


for command in (
    *(data, train, launch, runs, evaluate, plot, report),
    *(predict, export, deploy, serve, doctor),
):
    main.add_command(command)
