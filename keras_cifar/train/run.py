"""Trains a run from its settings, or goes on with one that was interrupted."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import keras

from keras_cifar.accelerate import xla
from keras_cifar.cifar10 import DATASETS
from keras_cifar.data.prepare import load, prepare
from keras_cifar.data.tfds_folder import read_split
from keras_cifar.distribute.cluster import find_cluster, is_helper, variable_of_cluster
from keras_cifar.files import make_folder, remove_unfinished, require_writable
from keras_cifar.machine import package_versions
from keras_cifar.recipes import TrainConfig
from keras_cifar.recipes.equal_shares import require_equal_shares_of_run
from keras_cifar.run_dir import RunDir
from keras_cifar.run_record import RunRecord
from keras_cifar.train import checkpoint, origins
from keras_cifar.train.conditions import (
    device,
    out_of_memory_in_words,
    refuse_other_versions,
    replicas_here,
    settle,
    warn_of_another_machine,
)
from keras_cifar.train.fit import Outcome, Start, fit
from keras_cifar.train.folder import (
    clear,
    owned,
    refuse_existing,
    refuse_finished,
    refuse_group,
    refuse_strangers,
    what_is_in,
)
from keras_cifar.train.together import together

_FIRST_YEAR_OF_ZIP = 1980


def train(  # noqa: PLR0913 (what a user may say of a run beside its settings)
    config: TrainConfig,
    run_dir: RunDir,
    *,
    data_dir: Path | None = None,
    existing: Literal["refuse", "replace"] = "refuse",
    tensorboard: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    origin: Path | None = None,
) -> Outcome:
    """Trains a model from the start and writes it, its settings and its history to `run_dir`.

    Args:
        config: what to train; "auto" is settled here, and config.json says as what.
        run_dir: made where it is missing.
        data_dir: where TFDS keeps its data; None for TFDS_DATA_DIR or TFDS's default.
        existing: what to do with a run that `run_dir` holds already.
        tensorboard: where to log for TensorBoard; None for nowhere.
        callbacks: the user's own. An epoch is in the run's files before they see its end.
        origin: a run or a .keras file of the same network, whose weights to start with.

    Raises:
        OSError: data that cannot be had, a folder that holds a run or is in use, a full disk, an
            origin of another network.
        FloatingPointError: the loss is not finite any more.
    """
    require_start()
    config, choices = settle(config)
    options: dict[str, Any] = {"data_dir": data_dir, "callbacks": callbacks}
    start = partial(
        _train,
        config,
        run_dir,
        choices=choices,
        existing=existing,
        tensorboard=tensorboard,
        origin=origin,
        **options,
    )
    if config.strategy != "multi-worker":
        return start()
    return together(start, what={"command": "train", **asdict(config)}, **options)


def _train(  # noqa: PLR0913 (as `train`)
    config: TrainConfig,
    run_dir: RunDir,
    *,
    choices: dict[str, str],
    data_dir: Path | None,
    existing: Literal["refuse", "replace"],
    tensorboard: Path | None,
    callbacks: Sequence[keras.callbacks.Callback],
    origin: Path | None,
) -> Outcome:
    for name, choice in choices.items():
        click.echo(f"{name}: {choice}", err=True)
    # Before the data is fetched for it.
    require_writable(run_dir.path, name="--run-dir")
    refuse_group(run_dir)
    if existing == "refuse":
        refuse_existing(run_dir)
    else:
        read = run_dir.read_record
        refuse_strangers(run_dir.path, what_is_in(run_dir), of="run", read_record=read)
    found = origins.find(origin, run_dir=run_dir) if origin else None
    weights = origins.read(found, config=config) if found else None
    dataset = DATASETS[config.dataset]
    folder = prepare(dataset, data_dir=data_dir)
    examples = read_split(folder, split="train", dataset=dataset)
    make_folder(run_dir.path)
    with owned(run_dir.path):
        if existing == "refuse":
            refuse_existing(run_dir)
        clear(run_dir)
        # Before config.json: from then on, a run without this folder is one that has ended.
        run_dir.checkpoint.mkdir()
        data_dir = folder.absolute().parents[1]
        record = RunRecord(config, package_versions(), device(), choices, data_dir, found)
        run_dir.write_record(record)
        with out_of_memory_in_words(config):
            return fit(
                config,
                run_dir,
                examples=examples,
                start=weights,
                tensorboard=tensorboard,
                callbacks=callbacks,
            )


def require_start() -> None:
    """Refuses, before the work, flags that XLA would abort at and a clock that no file can be of.

    Raises:
        OSError: the clock is before the first time that a zip archive, a .keras file, can have.
    """
    xla.require_valid_flags()
    now = time.localtime()
    if now.tm_year < _FIRST_YEAR_OF_ZIP:
        raise OSError(
            f"The clock of this machine says {now.tm_year}; the files of a run, zip archives, "
            f"cannot be of a time before {_FIRST_YEAR_OF_ZIP}. Set the clock."
        )


def resume(
    run_dir: RunDir,
    *,
    record: RunRecord | None = None,
    data_dir: Path | None = None,
    tensorboard: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Outcome:
    """Goes on with a run that was interrupted, to the end that it would have had, bit by bit.

    Args:
        run_dir: holds the run.
        record: what the run's config.json holds, where the caller has read it already.
        data_dir: as `train`'s; None for where this run had them, if that folder is still there.
        tensorboard: as `train`'s.
        callbacks: as `train`'s. What they know of the epochs before is theirs to keep.

    Raises:
        OSError: no run here, one that has ended, one of another version, or one in use; or as
            `train`.
        FloatingPointError: the loss is not finite any more.
    """
    require_start()
    options: dict[str, Any] = {"data_dir": data_dir, "callbacks": callbacks}
    what = {"command": "train --resume"}
    if is_helper():
        return together(None, what=what, **options)
    record = record or run_dir.read_record()
    start = partial(_resume, run_dir, record=record, tensorboard=tensorboard, **options)
    if record.settings.strategy == "multi-worker":
        return together(start, what=what, **options)
    _refuse_workers(run_dir)
    return start()


def _refuse_workers(run_dir: RunDir) -> None:
    cluster = find_cluster()
    if cluster and len(cluster.addresses) > 1:
        raise OSError(
            f"{run_dir.path}: was started by one process, and {cluster.source} names "
            f"{len(cluster.addresses)} workers. Resume it by one process, with "
            f"{variable_of_cluster()} unset."
        )


def _resume(
    run_dir: RunDir,
    *,
    record: RunRecord,
    data_dir: Path | None,
    tensorboard: Path | None,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Outcome:
    config = record.settings
    with owned(run_dir.path):
        remove_unfinished(run_dir.path)  # of a run that has ended, too
        refuse_finished(run_dir)
        refuse_other_versions(run_dir.path, record.versions)
        warn_of_another_machine(run_dir.path, record)
        require_equal_shares_of_run(config, replicas=replicas_here(config))
        remove_unfinished(run_dir.checkpoint)
        start: Start = checkpoint.load_newest(run_dir.checkpoint)
        if record.origin and not start:
            start = origins.read_again(record.origin, config=config)
        dataset, data_dir = DATASETS[config.dataset], record.find_data(data_dir)
        examples = load(dataset, split="train", data_dir=data_dir)
        with out_of_memory_in_words(config):
            return fit(
                config,
                run_dir,
                examples=examples,
                start=start,
                tensorboard=tensorboard,
                callbacks=callbacks,
            )
