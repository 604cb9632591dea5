"""What `evaluate` found besides the metrics: corruptions.json and suspects.json.

Both come with a run, which may be anybody's: each value is checked.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from keras_cifar.cifar10 import CLASS_NAMES, DATASETS
from keras_cifar.data.examples import Examples
from keras_cifar.data.prepare import load
from keras_cifar.errors import described
from keras_cifar.files import read_document
from keras_cifar.measure.predictions import Predictions
from keras_cifar.report import charts
from keras_cifar.report.facts import Absent, RunFacts
from keras_cifar.report.images import Picture, data_uri
from keras_cifar.report.tables import HEAT_STEPS
from keras_cifar.run_dir import RunDir, is_group

_SUSPECTS = 20
_SEVERITIES = 5
_MOST_CORRUPTIONS = 30
_Found = TypeVar("_Found")


class Robustness(NamedTuple):
    """Accuracy on corrupted images.

    Attributes:
        name: of the images, in words.
        split: of which they are the corrupted ones.
        examples: of each corruption and severity.
        clean_accuracy: of the images as they are.
        mean_corruption_error: the share of wrong answers over all corruptions and severities.
        rows: by corruption, of severity 1 to 5, with the colour 0..9 of each.
        chart: of the mean over the severities.
    """

    name: str
    split: str
    examples: int
    clean_accuracy: float
    mean_corruption_error: float
    rows: list[tuple[str, list[tuple[float, int]]]]
    chart: charts.Chart


class Suspects(NamedTuple):
    """Images whose label is probably wrong.

    Attributes:
        split: of the images.
        examples: that were looked at.
        estimate: how many of them have a wrong label, by cleanlab's estimate.
        pictures: of the most suspect ones.
    """

    split: str
    examples: int
    estimate: int
    pictures: list[Picture]


def robustness_of(facts: RunFacts) -> Robustness | Absent:
    """Returns what corruptions.json says, or why it says nothing."""
    return _read(facts.run.corruptions, _robustness, option="--corruptions")


def suspects_of(facts: RunFacts) -> Suspects | Absent:
    """Returns what a run's suspects.json says, with its images, or why it says nothing."""
    answers = {"test": facts.test, "validation": facts.validation}

    def examples_of(split: str) -> Examples | None:
        found = answers.get(split)
        return found.examples if isinstance(found, Predictions) else None

    return _suspects_at(facts.run, examples_of)


def suspects_of_group(runs: Sequence[RunFacts], *, data_dir: Path | None) -> Suspects | Absent:
    """Does as `suspects_of` for runs that are those of a group, which has a suspects.json too."""
    folder = runs[0].run.path.parent
    if not is_group(folder) or any(one.run.path.parent != folder for one in runs):
        return Absent("They are looked for in one run, or in a group of runs.")
    record = runs[0].record

    def examples_of(split: str) -> Examples | None:
        if split not in ("test", "train"):
            return None
        dataset, place = DATASETS[record.settings.dataset], record.find_data(data_dir)
        return load(dataset, split="train" if split == "train" else "test", data_dir=place)

    return _suspects_at(RunDir(folder), examples_of)


def _suspects_at(run: RunDir, examples_of: Callable[[str], Examples | None]) -> Suspects | Absent:
    def parse(document: dict[str, Any]) -> Suspects:
        examples = examples_of(document["split"])
        if examples is None:
            raise ValueError(f"its images, {document['split']}, are not at hand")
        return _suspects(document, examples)

    return _read(run.suspects, parse, option="--suspect-labels")


def _read(path: Path, parse: Callable[[dict[str, Any]], _Found], *, option: str) -> _Found | Absent:
    if not path.is_file():
        return Absent(f"Not measured. keras-cifar evaluate {option} does so.")
    try:
        return parse(json.loads(read_document(path)))
    except OSError as error:  # the file cannot be read, or the images cannot be had
        return Absent(described(error))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return Absent(f"{path}: not what evaluate {option} writes ({error}).")


def _robustness(document: dict[str, Any]) -> Robustness:
    accuracy = {str(name): _shares(of) for name, of in document["accuracy"].items()}
    if not 0 < len(accuracy) <= _MOST_CORRUPTIONS:
        raise ValueError(f"{len(accuracy)} corruptions")
    clean = _share(document["clean_accuracy"])
    return Robustness(
        str(document["name"]),
        str(document["split"]),
        _count(document["examples"]),
        clean,
        _share(document["mean_corruption_error"]),
        [
            (name, [(share, round(HEAT_STEPS * (1 - share))) for share in shares])
            for name, shares in accuracy.items()
        ],
        charts.severities(accuracy, clean=clean),
    )


def _suspects(document: dict[str, Any], examples: Examples) -> Suspects:
    return Suspects(
        str(document["split"]),
        _count(document["examples"]),
        _count(document["estimate"]),
        [_suspect(one, examples) for one in document["suspects"][:_SUSPECTS]],
    )


def _suspect(document: dict[str, Any], examples: Examples) -> Picture:
    number, label, suggestion = (document[key] for key in ("number", "label", "suggestion"))
    if not 0 <= _count(number) < len(examples.labels):
        raise ValueError(f"there is no image {number}")
    if label != CLASS_NAMES[examples.labels[number]] or suggestion not in CLASS_NAMES:
        raise ValueError(f"image {number} is of another class")
    return Picture(
        data_uri(examples.images[number]),
        label,
        suggestion,
        _share(document["suggestion_probability"]),
        _share(document["label_probability"]),
    )


def _shares(values: list[Any]) -> list[float]:
    if len(values) != _SEVERITIES:
        raise ValueError(f"{len(values)} severities, expected {_SEVERITIES}")
    return [_share(value) for value in values]


def _share(value: Any) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{value!r} is no share")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 10**9:
        raise ValueError(f"{value!r} is no number of images")
    return value
