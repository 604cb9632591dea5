"""The runs in a folder, as their files tell of them. Nothing in the folder is changed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, get_args

from keras_cifar.errors import described
from keras_cifar.files import is_locked
from keras_cifar.history import read_history
from keras_cifar.measure.metrics_file import read_metrics
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir, RunGroup, is_group
from keras_cifar.run_record import RunRecord

# "unfinished" is running or interrupted, on a file system that has no locks to tell by; "waiting"
# a seed of a group that has not begun.
State = Literal["running", "interrupted", "unfinished", "waiting", "ended", "damaged"]
STATES: tuple[State, ...] = get_args(State)
SORTS = ("started", "name", "val_accuracy", "test_accuracy", "seconds")


@dataclass(frozen=True)
class Row:
    """What is told of a run; None or nothing where it is not known.

    Attributes:
        name: of its folder, in the folder that was asked for.
        path: of its folder.
        state: whether it has ended, and so on.
        started: when, in UTC, as ISO 8601 has it.
        recipe: its network and method.
        optimizer: that trains it.
        seed: of it.
        settings: the others that are not the recipe's own, by name.
        epochs_done: in its history.
        epochs: that it has in all.
        val_accuracy: the best, 0..1.
        test_accuracy: as `evaluate` measured it, 0..1.
        test_views: of each image, that it took for that.
        seconds: of training so far.
        error: what is damaged.
    """

    name: str
    path: str
    state: State
    started: str | None = None
    recipe: str | None = None
    optimizer: str | None = None
    seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    epochs_done: int = 0
    epochs: int | None = None
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    test_views: int | None = None
    seconds: float | None = None
    error: str | None = None


def list_runs(folder: Path) -> list[Row]:
    """Returns the runs in a folder, those of groups too; or those of the group that it is.

    Args:
        folder: need not exist. What is no run in it is left out; a damaged run is a row that says
            so.
    """
    if is_group(folder):
        return list(_rows(folder, name=""))
    if RunDir(folder).config.is_file():
        return list(_rows(folder, name=folder.resolve().name))
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [row for path in paths for row in _rows(path, name=path.name)]


def _rows(path: Path, *, name: str) -> Iterator[Row]:
    """Yields the run that is in a folder, or the runs of the group."""
    try:
        if is_group(path):
            yield from _rows_of_group(RunGroup(path), name=name)
        elif any(file.exists() for file in _files_of_a_run(RunDir(path))):
            yield _row(RunDir(path), name=name)
    except OSError as error:
        yield Row(name or path.name, str(path), "damaged", error=described(error))


def _files_of_a_run(run: RunDir) -> list[Path]:
    return [run.config, run.history, run.model]


def _rows_of_group(group: RunGroup, *, name: str) -> Iterator[Row]:
    try:
        record = group.read_record()
    except OSError as error:
        yield Row(name or group.path.name, str(group.path), "damaged", error=described(error))
        for config in sorted(group.path.glob("seed-*/config.json")):
            yield from _rows(config.parent, name=str(Path(name) / config.parent.name))
        return
    for seed in record.seeds:
        run = group.run(seed)
        path = str(Path(name) / run.path.name)
        if any(file.exists() for file in _files_of_a_run(run)):
            yield _row(run, name=path)
        else:
            common = record.common._replace(settings=record.settings(seed))
            yield Row(path, str(run.path), "waiting", **_of_settings(common))


def _row(run: RunDir, *, name: str) -> Row:
    known: dict[str, Any] = {"name": name, "path": str(run.path)}
    try:
        record = run.read_record()
        known |= {"started": _time_of(run.config), **_of_settings(record)}
        known |= _of_history(run)
        known |= _of_metrics(run)
        return Row(**known, state=_state(run))
    except OSError as error:
        return Row(**known, state="damaged", error=described(error))


def _time_of(path: Path) -> str | None:
    try:
        changed = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    except (OverflowError, ValueError):  # in the year 10000, say
        return None
    return changed.isoformat(timespec="seconds")


def _of_settings(record: RunRecord) -> dict[str, Any]:
    config = record.settings
    own = asdict(TrainConfig.of(config.recipe, config.optimizer))
    # What "auto" has become is no setting that somebody chose.
    was_told = "as told" in record.choices.get("precision", "")
    own |= {"strategy": "single"} | ({} if was_told else {"precision": config.precision})
    settings = {
        name: value
        for name, value in asdict(config).items()
        if name != "seed" and value != own[name]
    }
    return {
        "recipe": config.recipe,
        "optimizer": config.optimizer,
        "seed": config.seed,
        "settings": settings,
        "epochs": config.epochs,
    }


def _of_history(run: RunDir) -> dict[str, Any]:
    if not run.history.exists() and run.is_unfinished:  # in its first epoch
        return {}
    history = read_history(run.history)
    return {
        "epochs_done": len(history.epoch),
        "val_accuracy": max(history.val_accuracy, default=None),
        "seconds": sum(history.seconds),
    }


def _of_metrics(run: RunDir) -> dict[str, Any]:
    if not run.metrics.is_file():
        return {}
    metrics = read_metrics(run.metrics)
    if metrics.split != "test":
        return {}
    return {"test_accuracy": metrics.accuracy, "test_views": metrics.views}


def _state(run: RunDir) -> State:
    if run.has_ended:
        return "ended"
    held = is_locked(run.path / ".lock")
    # It may have ended in between, and let go of the lock.
    if run.has_ended:
        return "ended"
    return "unfinished" if held is None else "running" if held else "interrupted"


def sort_rows(rows: Sequence[Row], *, by: str) -> list[Row]:
    """Returns rows in ascending order of one of `SORTS`; what is not known comes first.

    But what has not started comes last.
    """
    named = sorted(rows, key=lambda row: _natural(row.name))
    if by == "name":
        return named
    if by == "started":
        return sorted(named, key=lambda row: (row.started is None, row.started))
    return sorted(named, key=lambda row: (getattr(row, by) is not None, getattr(row, by) or 0.0))


def _natural(name: str) -> list[tuple[str, int]]:
    """Has seed-10 come after seed-9."""
    return [(text, int(number or 0)) for text, number in re.findall("([^0-9]*)([0-9]*)", name)]
