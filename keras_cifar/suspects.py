"""Finds images whose label is probably wrong, by what models say that have not learned it."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import CLASS_NAMES, DATASETS, NUM_CLASSES
from keras_cifar.data.examples import Examples
from keras_cifar.data.prepare import load
from keras_cifar.data.split import split_stratified
from keras_cifar.files import write_json
from keras_cifar.measure.metrics import Split
from keras_cifar.measure.predictions import check_split, predict_views
from keras_cifar.model.load import load_model
from keras_cifar.model.logits import log_softmax
from keras_cifar.model.session import own_session
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir, ended_runs_at


@dataclass(frozen=True)
class Suspect:
    """An image whose label is in doubt.

    Attributes:
        number: of the image in its split, from 0, in the order of `keras_cifar.data`.
        label: name of its class, as given.
        label_probability: of that class.
        suggestion: name of the most probable class, another one.
        suggestion_probability: of that class.
        quality: cleanlab's score, the lower the more suspect: half of 1 more than the difference
            between the two probabilities.
    """

    number: int
    label: str
    label_probability: float
    suggestion: str
    suggestion_probability: float
    quality: float


@dataclass(frozen=True)
class Suspects:
    """What was found; `dataclasses.asdict` of it is suspects.json.

    Attributes:
        split: of the images; of several runs, "train" means those that some run validated with.
        runs: how many answered.
        views: of an image, of which the logits are the mean.
        views_share: of the images, the least certain by one view, that got as many.
        examples: images that were looked at.
        estimate: how many of them cleanlab takes for wrong.
        suspects: the most suspect first.
    """

    split: Split
    runs: int
    views: int
    views_share: float
    examples: int
    estimate: int
    suspects: list[Suspect]


def find_suspects(
    run_dir: RunDir,
    *,
    split: Split,
    data_dir: Path | None,
    top: int = 20,
    views: int = 1,
    views_share: float = 1.0,
) -> Suspects:
    """Finds the images whose label a run, or the runs of a group, doubt most.

    Args:
        run_dir: of a run, or of a group, which answers by the mean of its runs' probabilities.
        split: "test", or "validation" for a run, or "train" for a group.
        data_dir: where TFDS data sets are, as `load_model_and_split` takes it.
        top: how many at most; only images that are taken for another class.
        views: of an image, as `predict_views` takes them.
        views_share: of the images, as `predict_views` takes it.

    Returns:
        What suspects.json holds.

    Raises:
        ValueError: models have learned the labels of that split, or there is none.
        OSError: as `load_model_and_split` does, or it cannot write.
    """
    run_dirs = ended_runs_at(run_dir.path)
    _check(split, runs=len(run_dirs))
    records = [each.read_record() for each in run_dirs]
    for each, record in zip(run_dirs, records, strict=True):
        check_split("validation" if split == "train" else split, settings=record.settings)
        each.require_model()
    run_dir.require_writable()
    whole = load(
        DATASETS[records[0].settings.dataset],
        split="test" if split == "test" else "train",
        data_dir=records[0].find_data(data_dir),
    )
    total, times = np.zeros((len(whole.labels), NUM_CLASSES)), np.zeros(len(whole.labels), int)
    for each, record in zip(run_dirs, records, strict=True):
        asked = _asked(split, whole.labels, settings=record.settings)
        images = whole.images[asked]
        total[asked] += _probabilities(each, images, views=views, views_share=views_share)
        times[asked] += 1
    answered = np.flatnonzero(times)
    labels, mean = whole.labels[answered], total[answered] / times[answered, None]
    numbers = answered if split == "train" else np.arange(len(answered))
    suspects, estimate = _most_suspect(labels, mean, numbers=numbers, top=top)
    found = Suspects(split, len(run_dirs), views, views_share, len(labels), estimate, suspects)
    write_json(run_dir.suspects, asdict(found))
    return found


def _check(split: Split, *, runs: int) -> None:
    if split == "train" and runs < 2:
        raise ValueError(
            "split: got 'train', whose labels this run has learned, so that it doubts none of "
            "them. Expected test or validation, or a group of runs with different seeds."
        )
    if split == "validation" and runs > 1:
        raise ValueError(
            "split: got 'validation', which is another part of the training images in each run "
            "of a group. Expected test, or train for all of these parts."
        )


def _asked(
    split: Split, labels: npt.NDArray[np.int64], *, settings: TrainConfig
) -> npt.NDArray[np.int64]:
    """Returns which images a run of these settings has not learned, in ascending order."""
    everything = np.arange(len(labels))
    if split == "test":
        return everything
    # Numbers in place of the images, so that the split tells which they are.
    numbered = Examples(everything, labels)  # type: ignore[arg-type]
    _, validation = split_stratified(
        numbered, validation_fraction=settings.validation_fraction, seed=settings.seed
    )
    return np.asarray(validation.images)


def _probabilities(
    run_dir: RunDir, images: npt.NDArray[np.uint8], *, views: int, views_share: float
) -> npt.NDArray[np.float64]:
    with own_session():
        model = load_model(run_dir.require_model())
        logits = predict_views(
            model, images, views=views, views_share=views_share, source=run_dir.model
        )
    return np.exp(log_softmax(logits))


def _most_suspect(
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    *,
    numbers: npt.NDArray[np.int64],
    top: int,
) -> tuple[list[Suspect], int]:
    """Ranks by cleanlab's score; the second result is how many labels it takes for wrong."""
    # Here, since only an extra brings it.
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    quality = get_label_quality_scores(labels, probabilities, method="normalized_margin")
    estimate = int(find_label_issues(labels, probabilities, n_jobs=1).sum())
    suggested = probabilities.argmax(axis=1)
    order = np.argsort(quality, kind="stable")
    order = order[suggested[order] != labels[order]][:top]
    suspects = [
        Suspect(
            number=int(numbers[position]),
            label=CLASS_NAMES[labels[position]],
            label_probability=float(probabilities[position, labels[position]]),
            suggestion=CLASS_NAMES[suggested[position]],
            suggestion_probability=float(probabilities[position].max()),
            quality=float(quality[position]),
        )
        for position in order
    ]
    return suspects, estimate


def format_table(found: Suspects) -> str:
    """Returns what a person reads: a line a suspect."""
    by = f", by {found.runs} runs" if found.runs > 1 else ""
    return "\n".join(
        [
            f"{found.split}: {found.examples:,} images{by}; "
            f"cleanlab takes about {found.estimate:,} labels for wrong",
            "",
            f"{'image':>6}  {'label':<20}{'suggestion':<20}{'quality':>8}",
            *(
                f"{of.number:>6}  {of.label:<12}{of.label_probability:6.1%}  "
                f"{of.suggestion:<12}{of.suggestion_probability:6.1%}  {of.quality:>8.4f}"
                for of in found.suspects
            ),
        ]
    )
