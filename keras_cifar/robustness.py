"""Measures a run's model on corrupted images, and keeps and tells the figures."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import click
import numpy as np
import numpy.typing as npt

from keras_cifar.data.examples import Examples
from keras_cifar.data.prepare import default_data_dir
from keras_cifar.files import write_json
from keras_cifar.measure.corruptions import CORRUPTIONS, SEVERITIES
from keras_cifar.measure.corruptions.sources import Source, chosen, computed, published
from keras_cifar.measure.metrics import Split
from keras_cifar.measure.predictions import load_model_and_split, predict_views
from keras_cifar.run_dir import RunDir


@dataclass(frozen=True)
class Robustness:
    """What was measured; `dataclasses.asdict` of it is corruptions.json.

    Attributes:
        name: of the corrupted images, in words.
        source: of the corrupted images.
        seed: of what was computed here.
        versions: of the libraries that computed, by name.
        split: of which these are the images.
        views: of an image, of which the logits are the mean.
        views_share: of the images, the least certain by one view, that got as many.
        examples: images of each corruption and severity.
        clean_examples: images of `clean_accuracy`.
        clean_accuracy: without a corruption.
        accuracy: by corruption, of severity 1 to 5.
        mean_accuracy: over all corruptions and severities.
        mean_accuracy_error: its standard error: that of the images' shares of right answers, since
            each image is in all 75 parts.
        mean_corruption_error: 1 - `mean_accuracy`, not divided by another network's errors.
    """

    name: str
    source: Literal["computed", "CIFAR-10-C"]
    seed: int | None
    versions: dict[str, str]
    split: Split
    views: int
    views_share: float
    examples: int
    clean_examples: int
    clean_accuracy: float
    accuracy: dict[str, list[float]]
    mean_accuracy: float
    mean_accuracy_error: float
    mean_corruption_error: float


def evaluate_corruptions(
    run_dir: RunDir,
    *,
    split: Split,
    data_dir: Path | None,
    corruption_images: int | None = None,
    views: int = 1,
    views_share: float = 1.0,
) -> Robustness:
    """Measures a run's chosen model under 15 corruptions at 5 severities.

    The images are those of CIFAR-10-C for the test split, where TFDS has prepared it, or else
    computed. It tells on stderr how far it is.

    Args:
        run_dir: of a run that has a model.
        split: as `load_model_and_split` takes it.
        data_dir: where TFDS data sets are, as `load_model_and_split` takes it.
        corruption_images: how many images of each part, as many of each class as possible; None
            for all.
        views: of an image, as `predict_views` takes them.
        views_share: of the images, as `predict_views` takes it.

    Returns:
        What corruptions.json holds.

    Raises:
        ValueError: more images than there are, or as `load_model_and_split` does.
        OSError: as `load_model_and_split` does, a part of CIFAR-10-C is damaged, or it cannot
            write.
    """
    model, examples = load_model_and_split(run_dir, split=split, data_dir=data_dir)
    run_dir.require_writable()
    source = _source(run_dir, split, examples, data_dir=data_dir, count=corruption_images)

    def is_right(shown: Examples) -> npt.NDArray[np.bool_]:
        logits = predict_views(
            model, shown.images, views=views, views_share=views_share, source=run_dir.model
        )
        return np.asarray(logits.argmax(axis=1) == shown.labels)

    clean = examples.take(chosen(examples.labels, corruption_images))
    clean_right = is_right(clean)
    right = _measure_parts(source, is_right)
    robustness = Robustness(
        name=source.name,
        source=source.kind,
        seed=source.seed,
        versions=source.versions,
        split=split,
        views=views,
        views_share=views_share,
        examples=right.shape[2],
        clean_examples=len(clean_right),
        clean_accuracy=float(clean_right.mean()),
        accuracy=dict(zip(CORRUPTIONS, right.mean(axis=2).tolist(), strict=True)),
        mean_accuracy=float(right.mean()),
        mean_accuracy_error=float(right.mean(axis=(0, 1)).std()) / math.sqrt(right.shape[2]),
        mean_corruption_error=1 - float(right.mean()),
    )
    write_json(run_dir.corruptions, asdict(robustness))
    return robustness


def _source(
    run_dir: RunDir, split: Split, examples: Examples, *, data_dir: Path | None, count: int | None
) -> Source:
    if split == "test":
        folder = run_dir.read_record().find_data(data_dir) or default_data_dir()
        if found := published(folder, count=count):
            return found
    return computed(examples, count=count, seed=0)


def _measure_parts(
    source: Source, is_right: Callable[[Examples], npt.NDArray[np.bool_]]
) -> npt.NDArray[np.bool_]:
    """Returns which answers are right, (corruptions, severities, images), and tells the time."""
    click.echo(source.name, err=True)
    started = time.perf_counter()
    right = []
    for number, corruption in enumerate(CORRUPTIONS, start=1):
        right.append([is_right(source.part(corruption, severity)) for severity in SEVERITIES])
        seconds = time.perf_counter() - started
        left = timedelta(seconds=round(seconds / number * (len(CORRUPTIONS) - number)))
        click.echo(f"{number:>2}/{len(CORRUPTIONS)}  {corruption:<18}{left} left", err=True)
    return np.array(right)


def format_table(robustness: Robustness) -> str:
    """Returns what a person reads: a row a corruption, and the means."""
    of = robustness
    rows = [
        f"{name:<18}{np.mean(values):>8.2%}" + "".join(f"{value:>9.2%}" for value in values)
        for name, values in of.accuracy.items()
    ]
    return "\n".join(
        [
            f"{of.split}: {of.examples:,} images of each corruption and severity",
            of.name,
            "",
            f"{'accuracy':<18}{'mean':>8}" + "".join(f"{severity:>9}" for severity in SEVERITIES),
            *rows,
            "",
            f"clean                  {of.clean_accuracy:7.2%}",
            f"corrupted              {of.mean_accuracy:7.2%}  "
            f"± {of.mean_accuracy_error:.2%} standard error",
            f"mean corruption error  {of.mean_corruption_error:7.2%}  unnormalised",
        ]
    )
