"""A run on disk: the names of its files, and its settings."""

import dataclasses
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from keras_cifar.files import make_folder, replacing, require_writable
from keras_cifar.recipes import TrainConfig

RUNS = Path("runs")
_GROUP = "seeds.json"


class RunRecord(NamedTuple):
    """What config.json holds of a run.

    Attributes:
        settings: without "auto".
        versions: of Python and the packages that computed, by name.
        device: that it was started on.
        choices: what was chosen for that device and why, by name: "precision", "oneDNN", and on
            a GPU "XLA".
        data_dir: where TFDS kept its data set; None of a run of an older version.
    """

    settings: TrainConfig
    versions: dict[str, str]
    device: str
    choices: dict[str, str]
    data_dir: Path | None = None

    def find_data(self, told: Path | None) -> Path | None:
        """Returns the data folder to use: as told, or else the run's own if it is still there."""
        if told is None and self.data_dir and self.data_dir.is_dir():
            return self.data_dir
        return told


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
        self.checkpoint = path / "checkpoint"  # what resume needs; gone when the run has ended well
        self.tensorboard = path / "tensorboard"  # TensorBoard's logs, where they were asked for

    def files(self) -> list[Path]:
        """Everything that the commands write here, whether it is there or not."""
        return [path for path in vars(self).values() if path != self.path]

    def read_record(self) -> RunRecord:
        """Returns what config.json holds.

        Raises:
            OSError: it is missing or is not what `train` writes.
        """
        if not self.config.is_file():
            raise FileNotFoundError(
                f"{self.path}: no run here; expected {self.config.name} in it. "
                f"Train one: keras-cifar train --run-dir {self.path}"
            )
        try:
            document = json.loads(self.config.read_text())
            settings = TrainConfig(**document["settings"])
            data_dir = document.get("data_dir") and Path(document["data_dir"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise OSError(f"{self.config}: not the config.json of a run ({error}).") from error
        return RunRecord(
            settings,
            document.get("versions", {}),
            document.get("device", "an unknown device"),
            document.get("choices", {}),
            data_dir,
        )

    def write_record(self, record: RunRecord) -> None:
        """Writes config.json."""
        document = {
            **record._asdict(),
            "settings": dataclasses.asdict(record.settings),
            "data_dir": record.data_dir and str(record.data_dir),
        }
        with replacing(self.config) as path:
            path.write_text(json.dumps(document, indent=2) + "\n")

    def require_model(self) -> Path:
        """Returns the trained model's path; raises FileNotFoundError if there is none."""
        if not self.model.is_file():
            raise FileNotFoundError(
                f"{self.path}: no trained model; expected {self.model.name} in it. "
                f"Train one: keras-cifar train --run-dir {self.path}"
            )
        return self.model


class RunGroup:
    """A folder of runs that differ by their seeds alone, and the names in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # The settings that all have in common, and the seeds.
        self.config = path / _GROUP

    def run(self, seed: int) -> RunDir:
        """Returns the run of a seed, whether it is there or not."""
        return RunDir(self.path / f"seed-{seed}")


def runs_at(path: Path) -> list[RunDir]:
    """Returns the runs of a group that have begun, by their seeds, or else the run itself."""
    if not (path / _GROUP).is_file():
        return [RunDir(path)]
    begun = [folder.parent for folder in path.glob("seed-*/config.json")]
    return [RunDir(folder) for folder in sorted(begun, key=lambda folder: int(folder.name[5:]))]


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
    """Returns the run under RUNS that was started last; raises FileNotFoundError if none."""
    configs = list(RUNS.glob("*/config.json"))
    if not configs:
        raise FileNotFoundError(f"{RUNS}: no run here. Train one: keras-cifar train")
    return RunDir(max(configs, key=lambda path: path.stat().st_mtime).parent)
