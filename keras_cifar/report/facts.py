"""A run folder -> all that a report can tell of it; a part that is not to be had says why."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import DATASETS
from keras_cifar.data.examples import Examples
from keras_cifar.data.prepare import is_at_hand, load
from keras_cifar.errors import described
from keras_cifar.history import History, read_history
from keras_cifar.measure.metrics import Metrics
from keras_cifar.measure.metrics_file import read_metrics
from keras_cifar.measure.predictions import Predictions, training_parts
from keras_cifar.measure.scoring import measure
from keras_cifar.model.load import load_model
from keras_cifar.model.logits import predict_logits
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir
from keras_cifar.run_record import RunRecord


class Absent(NamedTuple):
    """What stands in the place of a part that is not to be had: why not, in a sentence."""

    reason: str


_NOT_COMPARED = Absent("A comparison of runs has no need of it.")


class RunFacts(NamedTuple):
    """What is known of one run.

    Attributes:
        run: its folder.
        record: its settings and versions.
        history: its curves.
        model: the chosen one.
        test: what the model answers to the test images.
        metrics: of the test images, by `test` or else as metrics.json has them.
        validation: what the model answers to the validation images.
        training: the training examples, not augmented.
    """

    run: RunDir
    record: RunRecord
    history: History | Absent
    model: keras.Model | Absent
    test: Predictions | Absent
    metrics: Metrics | Absent
    validation: Predictions | Absent
    training: Examples | Absent

    @property
    def settings(self) -> TrainConfig:
        """The run's settings."""
        return self.record.settings

    @property
    def unfinished(self) -> str:
        """What to know of a run that has not ended; nothing of one that has."""
        if not self.run.is_unfinished:
            return ""
        name = self.run.path.resolve().name
        return f"{name} has not ended: its figures are those of the epochs so far."


def gather(run: RunDir, *, data_dir: Path | None) -> RunFacts:
    """Reads a run and asks its model for the test and the validation images.

    Raises:
        OSError: this is no run, or it has a model and the test images cannot be had.
    """
    facts = gather_test(run, data_dir=data_dir)
    parts = _parts(facts, data_dir=facts.record.find_data(data_dir))
    if isinstance(parts, Absent):
        return facts._replace(training=parts, validation=parts)
    training, validation = parts
    return facts._replace(training=training, validation=_validation(facts, validation))


def gather_test(run: RunDir, *, data_dir: Path | None) -> RunFacts:
    """Does as `gather` without the training images, of which a comparison has no need."""
    record = run.read_record()
    model = _model(run)
    test = _test(run, model, record=record, data_dir=record.find_data(data_dir))
    if isinstance(test, Absent):
        model = test
    metrics = _metrics(run, test=test)
    return RunFacts(run, record, _history(run), model, test, metrics, _NOT_COMPARED, _NOT_COMPARED)


def _model(run: RunDir) -> keras.Model | Absent:
    try:
        return load_model(run.require_model())
    except OSError as error:
        return Absent(str(error))


def _test(
    run: RunDir, model: keras.Model | Absent, *, record: RunRecord, data_dir: Path | None
) -> Predictions | Absent:
    if isinstance(model, Absent):
        return model
    dataset = DATASETS[record.settings.dataset]
    return _answers(run, model, load(dataset, split="test", data_dir=data_dir))


def _parts(facts: RunFacts, *, data_dir: Path | None) -> tuple[Examples, Examples] | Absent:
    has_model = not isinstance(facts.model, Absent)
    if not has_model and not is_at_hand(DATASETS[facts.settings.dataset], data_dir=data_dir):
        return Absent("The images are not on this machine, and the run has no model yet.")
    try:
        return training_parts(facts.settings, data_dir=data_dir)
    except OSError as error:
        return Absent(described(error))


def _validation(facts: RunFacts, examples: Examples) -> Predictions | Absent:
    if not len(examples.labels):
        return Absent("This run trained on all images: there are no validation images to look at.")
    if isinstance(facts.model, Absent):
        return facts.model
    return _answers(facts.run, facts.model, examples)


def _answers(run: RunDir, model: keras.Model, examples: Examples) -> Predictions | Absent:
    try:
        return Predictions(examples, predict_logits(model, examples.images, source=run.model))
    except FloatingPointError as error:  # the training had diverged
        return Absent(str(error))


def _metrics(run: RunDir, *, test: Predictions | Absent) -> Metrics | Absent:
    if not isinstance(test, Absent):
        return measure(test.logits, labels=test.examples.labels, split="test")
    with suppress(OSError):
        metrics = read_metrics(run.metrics)
        if metrics.split == "test":
            return metrics
    return Absent(f"{test.reason} Nor is there a metrics.json of the test images.")


def _history(run: RunDir) -> History | Absent:
    try:
        return read_history(run.history)
    except OSError as error:
        return Absent(str(error))


def correct(predictions: Predictions) -> npt.NDArray[np.bool_]:
    """Returns which images the model is right about, bool (n,)."""
    return np.asarray(predictions.logits.argmax(axis=1) == predictions.examples.labels)
