"""Trains a run for each of several seeds, or goes on with such a group that was interrupted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from keras_cifar.cifar10 import DATASETS
from keras_cifar.data.prepare import prepare
from keras_cifar.files import (
    make_folder,
    remove_path,
    remove_unfinished,
    require_writable,
)
from keras_cifar.machine import package_versions
from keras_cifar.model.session import own_session
from keras_cifar.plot import draw_history
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir, RunGroup
from keras_cifar.run_record import GroupRecord, RunRecord, check_seeds
from keras_cifar.train.conditions import (
    device,
    refuse_other_versions,
    require_one_process,
    settle,
    warn_of_another_machine,
)
from keras_cifar.train.folder import clear, owned, refuse_strangers, what_is_in
from keras_cifar.train.run import require_start, resume, train
from keras_cifar.train.summary import Summary, summarise

LogKind = Literal["none", "tensorboard"]


def train_seeds(
    config: TrainConfig,
    group: RunGroup,
    *,
    seeds: Sequence[int],
    data_dir: Path | None = None,
    existing: Literal["refuse", "replace"] = "refuse",
    logs: LogKind = "none",
) -> Summary:
    """Trains a run for each seed, one after the other, as `train` would in a process of its own.

    Args:
        config: what to train; its seed is replaced.
        group: made where it is missing; gets seeds.json, then the folders of the runs.
        seeds: at least one, each once.
        data_dir: as `train`'s.
        existing: what to do with the runs of a group that is there already.
        logs: "tensorboard" to log for TensorBoard, in the folder of each run.

    Raises:
        ValueError: no seeds, or a seed that is none.
        OSError: as `train`.
        FloatingPointError: the loss of a run is not finite any more.
    """
    check_seeds(seeds)
    require_start()
    config, choices = settle(config)
    require_one_process(config, option="--seeds")
    require_writable(group.path, name="--run-dir")
    _refuse_existing(group, existing=existing)
    # Before the runs that are to be replaced go.
    folder = prepare(DATASETS[config.dataset], data_dir=data_dir)
    make_folder(group.path)
    with owned(group.path):
        _refuse_existing(group, existing=existing)
        _clear(group)
        data_dir = folder.absolute().parents[1]
        common = RunRecord(config, package_versions(), device(), choices, data_dir)
        group.write_record(GroupRecord(tuple(seeds), common))
        return _train_rest(group, data_dir=data_dir, logs=logs)


def _refuse_existing(group: RunGroup, *, existing: Literal["refuse", "replace"]) -> None:
    run = RunDir(group.path)
    if run.config.exists() or run.model.exists():
        raise FileExistsError(f"{group.path}: holds a run, no group. Name another --run-dir.")
    if existing == "refuse" and (group.config.exists() or _begun(group)):
        raise FileExistsError(
            f"{group.path}: holds a group of runs already. Go on with it by --resume, replace it "
            "by --overwrite, or name another --run-dir."
        )
    if existing == "replace":
        runs = [run.path for run in _begun(group)]
        present = [path.name for path in (*group.files(), *runs) if path.exists()]
        refuse_strangers(group.path, present, of="group", read_record=group.read_record)


def _begun(group: RunGroup) -> list[RunDir]:
    """Returns all runs that are in the folder, those of other seeds and half-removed ones too."""
    runs = map(RunDir, sorted(group.path.glob("seed-*")))
    return [run for run in runs if any(path.exists() for path in run.files())]


def _clear(group: RunGroup) -> None:
    """Removes what is to be replaced."""
    remove_unfinished(group.path)
    # seeds.json first: the runs that are left must never count as runs of the new group.
    for path in group.files():
        remove_path(path)
    for run in _begun(group):
        with owned(run.path):
            clear(run)


def resume_seeds(
    group: RunGroup, *, data_dir: Path | None = None, logs: LogKind = "none"
) -> Summary:
    """Goes on with the run that was interrupted, and trains those that are missing.

    The group ends as it would have, bit by bit.

    Args:
        group: holds seeds.json.
        data_dir: as `resume`'s.
        logs: as `train_seeds`'s.

    Raises:
        OSError: no group here, one that has ended, one of another version, or one in use; or as
            `train`.
        FloatingPointError: the loss of a run is not finite any more.
    """
    record = group.read_record()
    with owned(group.path):
        remove_unfinished(group.path)
        if not group.is_unfinished:
            raise FileExistsError(
                f"{group.path}: all {len(record.seeds)} runs have ended; there is nothing to "
                "resume. To train anew, name another --run-dir."
            )
        refuse_other_versions(group.path, record.common.versions)
        _refuse_other_settings(group, record)
        warn_of_another_machine(group.path, record.common)
        data_dir = record.common.find_data(data_dir)
        return _train_rest(group, data_dir=data_dir, logs=logs)


def _refuse_other_settings(group: RunGroup, record: GroupRecord) -> None:
    """Refuses runs that cannot be compared with the others, before any is trained."""
    for seed in record.seeds:
        run = group.run(seed)
        if run.config.is_file() and run.read_record().settings != record.settings(seed):
            raise OSError(
                f"{run.path}: has other settings than {group.config}. Move it away, or train the "
                "seeds anew in another --run-dir."
            )


def _refuse_damaged(run: RunDir, *, group: RunGroup) -> None:
    """Refuses a run that can neither be gone on with nor begin, with the way out."""
    needed = run.model if run.has_ended else run.config
    if what_is_in(run) and not needed.is_file():
        raise OSError(
            f"{run.path}: {needed.name} is missing. Move this folder away; then its seed is "
            f"trained again by keras-cifar train --resume --run-dir {group.path}"
        )


def _train_rest(group: RunGroup, *, data_dir: Path | None, logs: LogKind) -> Summary:
    record = group.read_record()
    for run in group.runs():
        _refuse_damaged(run, group=group)
    for number, seed in enumerate(record.seeds, start=1):
        run = group.run(seed)
        if run.has_ended:
            continue
        click.echo(f"seed {seed} ({number} of {len(record.seeds)}): {run.path}", err=True)
        log_dir = run.tensorboard if logs == "tensorboard" else None
        with own_session():
            if run.is_unfinished:
                resume(run, data_dir=data_dir, tensorboard=log_dir)
            else:
                train(record.settings(seed), run, data_dir=data_dir, tensorboard=log_dir)
    draw_history(group.runs(), path=group.plot)
    return summarise(group)
