"""A run on disk: the names of its files, and its settings."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_cifar.config import TrainConfig

RUNS = Path("runs")


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

    def read_config(self) -> dict[str, Any]:
        """Returns config.json: {"settings": {...}, "versions": {...}, "device": ...}.

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
            TrainConfig(**document["settings"])
        except (ValueError, TypeError, KeyError) as error:
            raise OSError(f"{self.config}: not the config.json of a run ({error}).") from error
        return {"versions": {}, "device": "an unknown device", **document}

    def read_settings(self) -> TrainConfig:
        """Returns the settings of the run; raises OSError as `read_config` does."""
        return TrainConfig(**self.read_config()["settings"])

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
