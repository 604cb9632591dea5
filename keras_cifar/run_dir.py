"""A run on disk, and a group of runs: the names of their files."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from keras_cifar.files import make_folder, require_writable, write_json
from keras_cifar.run_record import GroupRecord, RunRecord, read_record

RUNS = Path("runs")
_GROUP = "seeds.json"


class RunDir:
    """A run's folder and the names of the files in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Every setting, and the versions and the device it was trained with.
        self.config = path / "config.json"
        self.history = path / "history.csv"  # a row an epoch
        self.model = path / "model.keras"  # the chosen one
        self.plot = path / "history.png"  # loss and accuracy, training and validation
        self.metrics = path / "metrics.json"  # what `evaluate` measured
        self.corruptions = path / "corruptions.json"  # what `evaluate --corruptions` measured
        self.suspects = path / "suspects.json"  # what `evaluate --suspect-labels` found
        self.report = path / "report.html"  # the page that `report` writes
        self.model_card = path / "model_card.md"  # the same in Markdown
        self.checkpoint = path / "checkpoint"  # what resume needs; gone when the run has ended well
        self.tensorboard = path / "tensorboard"  # TensorBoard's logs, where they were asked for

    def files(self) -> list[Path]:
        """Everything that the commands write here, whether it is there or not."""
        return [path for path in vars(self).values() if path != self.path]

    @property
    def is_unfinished(self) -> bool:
        """Whether a run has begun here and not ended: one that goes on, or was interrupted."""
        return self.config.is_file() and self.checkpoint.is_dir()

    @property
    def has_ended(self) -> bool:
        """Whether a run has begun here and come to its end."""
        return self.config.is_file() and not self.checkpoint.is_dir()

    def read_record(self) -> RunRecord:
        """Returns what config.json holds.

        Raises:
            OSError: it is missing or is not what `train` writes.
        """
        self._refuse_group()
        if not self.config.is_file():
            raise FileNotFoundError(
                f"{self.path}: no run here; expected {self.config.name} in it. "
                f"Train one: keras-cifar train --run-dir {self.path}"
            )
        return read_record(self.config, of="run", from_json=RunRecord.from_json)

    def write_record(self, record: RunRecord) -> None:
        """Writes config.json."""
        write_json(self.config, record.as_json())

    def _refuse_group(self) -> None:
        if is_group(self.path):
            raise FileNotFoundError(
                f"{self.path}: a group of runs. Name one of them: "
                f"{next(iter(runs_at(self.path)), RunDir(self.path / 'seed-N')).path}"
            )

    def require_model(self) -> Path:
        """Returns the trained model's path; raises FileNotFoundError if there is none."""
        self._refuse_group()
        if not self.model.is_file():
            raise FileNotFoundError(
                f"{self.path}: no trained model; expected {self.model.name} in it. {self._way_on()}"
            )
        return self.model

    def require_writable(self) -> None:
        """Raises OSError if nothing can be written here: before the work, not after it."""
        require_writable(self.path, name="run, say a copy")

    def _way_on(self) -> str:
        """Returns what leads to a model where there is none."""
        whole = self.path.parent if is_group(self.path.parent) else self.path
        if self.is_unfinished:
            go_on = f"keras-cifar train --resume --run-dir {whole}"
            return f"Wait for the end of the first epoch, or go on with the run: {go_on}"
        if self.has_ended:
            return "The run had one. Move the folder away, and train again."
        return f"Train one: keras-cifar train --run-dir {whole}"


class RunGroup:
    """A folder of runs that differ by their seeds alone, and the names in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # The settings that all have in common, and the seeds.
        self.config = path / _GROUP
        self.plot = path / "history.png"  # the curves of all runs
        self.suspects = path / "suspects.json"  # what `evaluate --suspect-labels` found by all runs
        self.report = path / "report.html"  # the page that `report` writes of all runs
        self.model_card = path / "model_card.md"  # the same in Markdown

    def files(self) -> list[Path]:
        """Everything that the commands write here beside the runs, whether it is there or not."""
        return [path for path in vars(self).values() if path != self.path]

    def run(self, seed: int) -> RunDir:
        """Returns the run of a seed, whether it is there or not."""
        return RunDir(self.path / f"seed-{seed}")

    def runs(self) -> list[RunDir]:
        """Returns the run of each seed, whether it is there or not, in the order of training."""
        return [self.run(seed) for seed in self.read_record().seeds]

    def require_ended(self) -> list[int]:
        """Returns the seeds of the runs that have ended, and says on stderr which have not.

        Raises:
            OSError: none has ended, or as `read_record`.
        """
        seeds = self.read_record().seeds
        ended = [seed for seed in seeds if self.run(seed).has_ended]
        if not ended:
            raise FileNotFoundError(
                f"{self.path}: no run has ended. Go on with them: "
                f"keras-cifar train --resume --run-dir {self.path}"
            )
        if left_out := ", ".join(str(seed) for seed in seeds if seed not in ended):
            click.echo(f"{self.path}: left out, since not ended: seed {left_out}", err=True)
        return ended

    @property
    def is_unfinished(self) -> bool:
        """Whether a group has begun here and some run of it has not ended."""
        return self.config.is_file() and not all(run.has_ended for run in self.runs())

    def read_record(self) -> GroupRecord:
        """Returns what seeds.json holds.

        Raises:
            OSError: it is missing or is not what `train --seeds` writes.
        """
        if not self.config.is_file():
            raise FileNotFoundError(
                f"{self.path}: no group of runs here; expected {_GROUP} in it. "
                f"Train one: keras-cifar train --seeds 0-4 --run-dir {self.path}"
            )
        return read_record(self.config, of="group", from_json=GroupRecord.from_json)

    def write_record(self, record: GroupRecord) -> None:
        """Writes seeds.json."""
        write_json(self.config, record.as_json())


def is_group(path: Path) -> bool:
    """Tells whether a folder is that of a group."""
    return (path / _GROUP).is_file()


def runs_at(path: Path) -> list[RunDir]:
    """Returns the runs of a group that have begun, in the order of training, or else the run.

    Raises:
        OSError: seeds.json is damaged.
    """
    if not is_group(path):
        return [RunDir(path)]
    return [run for run in RunGroup(path).runs() if run.config.is_file()]


def ended_runs_at(path: Path) -> list[RunDir]:
    """Returns the runs of a group that have ended, and says which have not; or else the run.

    Raises:
        OSError: seeds.json is damaged, or no run of the group has ended.
    """
    if not is_group(path):
        return [RunDir(path)]
    group = RunGroup(path)
    return [group.run(seed) for seed in group.require_ended()]


@contextmanager
def new_run(name: str) -> Iterator[RunDir]:
    """Gives RUNS/NAME to this process alone; if nothing was written, it is gone after the block.

    Of processes that start in the same second, the later ones get NAME-2, NAME-3 and so on.

    Raises:
        OSError: it cannot be made.
    """
    require_writable(RUNS, name="--run-dir")
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    paths = map(RUNS.joinpath, names)
    path = next(path for path in paths if not path.is_file() and make_folder(path))
    try:
        yield RunDir(path)
    finally:
        with suppress(OSError):  # of a folder that is not empty
            path.rmdir()


def newest_run() -> RunDir:
    """Returns what was started last under RUNS, a run or the folder of a group of runs.

    Raises:
        FileNotFoundError: there is none.
    """
    return _newest_first()[0]


def newest_to_resume() -> RunDir:
    """Returns what was started last, and has not ended, under RUNS; or else as `newest_run`."""
    found = _newest_first()
    unfinished = (run for run in found if run.is_unfinished or RunGroup(run.path).is_unfinished)
    return next(unfinished, found[0])


def _newest_first() -> list[RunDir]:
    started: dict[Path, float] = {}
    for pattern in ("*/config.json", f"*/{_GROUP}", "*/seed-*/config.json"):
        for path in RUNS.glob(pattern):
            folder = RUNS / path.relative_to(RUNS).parts[0]
            started[folder] = max(started.get(folder, 0.0), path.stat().st_mtime)
    if not started:
        raise FileNotFoundError(f"{RUNS}: no run here. Train one: keras-cifar train")
    return [RunDir(path) for path in sorted(started, key=started.__getitem__, reverse=True)]
