"""The model that a run starts from in place of random weights: found, read, compared, warned of."""

import hashlib
import itertools
from pathlib import Path
from typing import Any

import click
import keras
import numpy.typing as npt

from keras_cifar.model.load import load_model
from keras_cifar.recipes import RECIPES, TrainConfig
from keras_cifar.run_dir import RunDir
from keras_cifar.run_record import Origin

Weights = list[npt.NDArray[Any]]


def find(path: Path, *, run_dir: RunDir | None = None) -> Origin:
    """Returns the model of a run, or the model file itself, and its digest.

    Args:
        path: of either.
        run_dir: of the run that is to start from it, if there is to be one.

    Raises:
        OSError: there is none, or it lies in the new run's folder, which is emptied first.
    """
    file = RunDir(path).require_model() if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such model file. Name the folder of a run, or its model.keras."
        )
    if run_dir and run_dir.path.resolve() in file.resolve().parents:
        raise FileExistsError(
            f"{path}: is in the folder of the run that is to start from it. Name another --run-dir."
        )
    return Origin(file.absolute(), _sha256(file))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def read(origin: Origin, *, config: TrainConfig) -> Weights:
    """Returns the weights, in the order of the recipe's network; says what to beware of.

    Raises:
        OSError: no Keras model, or one of another network.
    """
    model = load_model(origin.path)
    expected = _described(RECIPES[config.recipe].build_model(seed=config.seed))
    pairs = itertools.zip_longest(_described(model), expected, fillvalue="none")
    for number, (weight, wanted) in enumerate(pairs, start=1):
        if weight != wanted:
            raise OSError(
                f"{origin.path}: its network is not that of the {config.recipe} recipe: weight "
                f"{number} is {weight}, expected {wanted}. Give the --recipe that it is of."
            )
    warn_of_known_images(origin, config=config)
    weights: Weights = model.get_weights()
    return weights


def _described(model: keras.Model) -> list[str]:
    return [f"{weight.name} {tuple(weight.shape)}" for weight in model.weights]


def warn_of_known_images(origin: Origin, *, config: TrainConfig) -> None:
    """Says so if the model was trained on images that are to validate the new run."""
    if not config.validation_fraction:
        return
    try:
        then = RunDir(origin.path.parent).read_record().settings
    except OSError:  # a model file that lies elsewhere, of which nothing is known
        return
    # Of one seed, a larger share of validation images contains a smaller one.
    is_apart = (then.dataset, then.seed) == (config.dataset, config.seed)
    if not is_apart or then.validation_fraction < config.validation_fraction:
        click.echo(
            f"{origin.path}: was trained with --dataset {then.dataset}, --seed {then.seed} and "
            f"--validation-fraction {then.validation_fraction:g}, so it knows images that validate "
            "this run: val_accuracy will be too high. Give the same three to avoid that.",
            err=True,
        )


def read_again(origin: Origin, *, config: TrainConfig) -> Weights:
    """Returns the same weights for a run that was interrupted before its first checkpoint.

    Raises:
        OSError: the file is not there any more, or not what it was.
    """
    if not origin.path.is_file() or _sha256(origin.path) != origin.sha256:
        raise OSError(
            f"{origin.path}: is gone or was changed. The run started from it and has no checkpoint "
            "yet. Put it back, or train anew in another --run-dir."
        )
    return read(origin, config=config)
