"""A run on disk: the names of its files, and its settings."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from keras_cifar.files import replacing
from keras_cifar.recipes import TrainConfig

RUNS = Path("runs")


class RunRecord(NamedTuple):
    """What config.json holds of a run.

    Attributes:
        settings: without "auto".
        versions: of Python and the packages that computed, by name.
        device: that it was started on.
    """

    settings: TrainConfig
    versions: dict[str, str]
    device: str


@dataclass(frozen=True)
class RunDir:
    """A run's folder and the names of the files in it."""

    path: Path

    @property
    def config(self) -> Path:
        """Every setting, and the versions and the device it was trained with."""
        return self.path / "config.json"

    @property
    def history(self) -> Path:
        """A row an epoch."""
        return self.path / "history.csv"

    @property
    def model(self) -> Path:
        """The chosen model."""
        return self.path / "model.keras"

    @property
    def plot(self) -> Path:
        """Loss and accuracy, training and validation."""
        return self.path / "history.png"

    @property
    def metrics(self) -> Path:
        """What `evaluate` measured."""
        return self.path / "metrics.json"

    @property
    def checkpoint(self) -> Path:
        """What resume needs; gone when the run has ended well."""
        return self.path / "checkpoint"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's logs, where they were asked for."""
        return self.path / "tensorboard"

    def files(self) -> tuple[Path, ...]:
        """Everything that the commands write here, whether it is there or not."""
        return (
            self.config,
            self.history,
            self.model,
            self.plot,
            self.metrics,
            self.checkpoint,
            self.tensorboard,
        )

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
        except (ValueError, TypeError, KeyError) as error:
            raise OSError(f"{self.config}: not the config.json of a run ({error}).") from error
        return RunRecord(
            settings, document.get("versions", {}), document.get("device", "an unknown device")
        )

    def write_record(self, record: RunRecord) -> None:
        """Writes config.json."""
        document = {**record._asdict(), "settings": dataclasses.asdict(record.settings)}
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


def newest_run(runs: Path = RUNS) -> RunDir:
    """Returns the run under `runs` that was started last; raises FileNotFoundError if none."""
    configs = list(runs.glob("*/config.json"))
    if not configs:
        raise FileNotFoundError(f"{runs}: no run here. Train one: keras-cifar train")
    return RunDir(max(configs, key=lambda path: path.stat().st_mtime).parent)
