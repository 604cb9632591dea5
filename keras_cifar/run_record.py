"""What config.json holds of a run, and seeds.json of a group of runs."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from keras_cifar.files import read_document
from keras_cifar.recipes import TrainConfig
from keras_cifar.recipes.config import MAX_SEED

MAX_SEEDS = 1000
_Record = TypeVar("_Record")


class Origin(NamedTuple):
    """The model whose weights a run starts from.

    Attributes:
        path: of the .keras file, absolute.
        sha256: of its content.
    """

    path: Path
    sha256: str


class RunRecord(NamedTuple):
    """What config.json holds of a run.

    Attributes:
        settings: without "auto".
        versions: of Python and the packages that computed, by name.
        device: that it was started on.
        choices: what was chosen for that device and why, by name: "precision", "oneDNN", and on
            a GPU "XLA".
        data_dir: where TFDS kept its data set; None of a run of an older version.
        origin: None of a run that starts from random weights.
    """

    settings: TrainConfig
    versions: dict[str, str]
    device: str
    choices: dict[str, str]
    data_dir: Path | None = None
    origin: Origin | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "RunRecord":
        """Returns what `as_json` was made of; raises ValueError and the like for anything else."""
        origin = document.get("origin")
        versions, choices = (
            {name: str(value) for name, value in document.get(part, {}).items()}
            for part in ("versions", "choices")
        )
        return cls(
            TrainConfig(**document["settings"]),
            versions,
            document.get("device", "an unknown device"),
            choices,
            document.get("data_dir") and Path(document["data_dir"]),
            origin and Origin(Path(origin["path"]), str(origin["sha256"])),
        )

    def as_json(self) -> dict[str, Any]:
        """Returns the document that config.json is."""
        return {
            **self._asdict(),
            "settings": dataclasses.asdict(self.settings),
            "data_dir": self.data_dir and str(self.data_dir),
            "origin": self.origin and {**self.origin._asdict(), "path": str(self.origin.path)},
        }

    def find_data(self, told: Path | None) -> Path | None:
        """Returns the data folder to use: as told, or else the run's own if it is still there."""
        if told is None and self.data_dir and self.data_dir.is_dir():
            return self.data_dir
        return told


class GroupRecord(NamedTuple):
    """What seeds.json holds of a group.

    Attributes:
        seeds: in the order in which they are trained.
        common: what config.json is to hold of each run, but for the seed: its is the first one's.
    """

    seeds: tuple[int, ...]
    common: RunRecord

    def settings(self, seed: int) -> TrainConfig:
        """Returns the settings of the run of a seed."""
        return dataclasses.replace(self.common.settings, seed=seed)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "GroupRecord":
        """Returns what `as_json` was made of; raises ValueError and the like for anything else."""
        seeds = tuple(document["seeds"])
        check_seeds(seeds)
        document["settings"]["seed"] = seeds[0]
        return cls(seeds, RunRecord.from_json(document))

    def as_json(self) -> dict[str, Any]:
        """Returns the document that seeds.json is."""
        document = {"seeds": self.seeds, **self.common.as_json()}
        del document["settings"]["seed"]
        return document


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises ValueError for what cannot be the seeds of a group."""
    if not 1 <= len(seeds) <= MAX_SEEDS:
        raise ValueError(f"seeds: got {len(seeds):,} of them, expected 1 to {MAX_SEEDS:,}.")
    for position, seed in enumerate(seeds):
        if type(seed) is not int or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seeds: got {seed!r}, expected whole numbers from 0 to {MAX_SEED}.")
        if seed in seeds[:position]:
            raise ValueError(f"seeds: got {seed} twice, expected each once.")


def read_record(file: Path, *, of: str, from_json: Callable[[dict[str, Any]], _Record]) -> _Record:
    """Reads a file of JSON; raises OSError if it is not that `of` a run, say."""
    try:
        return from_json(json.loads(read_document(file)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise OSError(f"{file}: not the {file.name} of a {of} ({error}).") from error
