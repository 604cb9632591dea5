"""What is known of one run -> what its page shows, section by section."""

import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.errors import printable
from keras_cifar.history import History
from keras_cifar.measure.calibration import fit_temperature, negative_log_likelihood
from keras_cifar.measure.metrics import Metrics
from keras_cifar.measure.metrics_file import read_metrics
from keras_cifar.measure.predictions import Predictions
from keras_cifar.measure.scoring import measure
from keras_cifar.measure.sheets import augmented_sheet
from keras_cifar.model.logits import log_softmax
from keras_cifar.recipes import TrainConfig
from keras_cifar.report import charts, images, words
from keras_cifar.report.curves import Run, curve_charts
from keras_cifar.report.facts import Absent, RunFacts
from keras_cifar.report.findings import robustness_of, suspects_of
from keras_cifar.report.tables import class_rows, epoch_rows, matrix
from keras_cifar.run_record import RunRecord

_CONFUSIONS = 8
_MOST_EPOCHS = 1000  # of which a sheet is made: config.json may claim any number
_ALWAYS_TOLD = ("recipe", "optimizer", "seed", "precision")


class Scaled(NamedTuple):
    """What temperature scaling makes of a model.

    Attributes:
        temperature: by which logits are divided.
        test: figures of the test images afterwards.
        validation_losses: before and afterwards.
    """

    temperature: float
    test: Metrics
    validation_losses: tuple[float, float]


def page_of(facts: RunFacts) -> dict[str, Any]:
    """Returns the values that templates/run.html and run.md name."""
    metrics, history, test = facts.metrics, facts.history, facts.test
    scaled = scale(facts.validation, test)
    return {
        "name": facts.run.path.resolve().name,
        "facts": facts,
        "settings": asdict(facts.settings),
        "metrics": metrics,
        "with_views": measured_with_views(facts),
        "interval": _given(metrics, words.accuracy_interval),
        "summary": _given(metrics, words.summary),
        "classes": _given(metrics, class_rows),
        "matrix": _given(metrics, matrix),
        "confusions": _given(metrics, lambda figures: words.confusions(figures)[:_CONFUSIONS]),
        "scaled": scaled,
        "reliability": _given(metrics, lambda figures: _reliability(figures, scaled)),
        "curves": _given(history, lambda found: curve_charts([Run(found)])),
        "epochs": _given(history, epoch_rows),
        "time": _given(history, lambda found: Time.of(found, facts.settings)),
        "mistakes": _given(test, _mistakes),
        "hardest": _given(test, _hardest),
        "looked_at": _looked_at(facts.model, test),
        "filters": _given(facts.model, _or_absent(images.filters_picture)),
        "robustness": robustness_of(facts),
        "suspects": suspects_of(facts),
        "augmented": _given(facts.training, lambda training: _augmented(facts, training)),
        "validation": _given(facts.validation, _first_ones),
        "commands": commands(facts.record),
    }


def _given(part: Any, make: Callable[[Any], Any]) -> Any:
    """Returns what is made of a part, or why there is none."""
    return part if isinstance(part, Absent) else make(part)


def measured_with_views(facts: RunFacts) -> Metrics | Absent:
    """Returns what `evaluate --tta` measured on the test images, if it was the last to do so."""
    with suppress(OSError):
        metrics = read_metrics(facts.run.metrics)
        if metrics.split == "test" and metrics.views > 1:
            return metrics
    return Absent("Not measured with several views of an image.")


def _or_absent(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Has a function that a network may not suit say so in the place of its result."""

    def tried(part: Any) -> Any:
        try:
            return make(part)
        except ValueError as error:
            return Absent(f"Not for this network: {error}")

    return tried


def scale(validation: Predictions | Absent, test: Predictions | Absent) -> Scaled | Absent:
    """Fits a temperature on the validation images, if there are any, and applies it to the test."""
    if isinstance(validation, Absent):
        return validation
    if isinstance(test, Absent):
        return test
    labels = validation.examples.labels
    temperature = fit_temperature(validation.logits, labels=labels)
    before, after = (
        negative_log_likelihood(logits, labels=labels)
        for logits in (validation.logits, validation.logits / temperature)
    )
    figures = measure(test.logits / temperature, labels=test.examples.labels, split="test")
    return Scaled(temperature, figures, (before, after))


def _reliability(metrics: Metrics, scaled: Scaled | Absent) -> list[charts.Chart]:
    drawn = [charts.reliability("before", "As the model says it", metrics.calibration)]
    if not isinstance(scaled, Absent):
        title = f"At temperature {scaled.temperature:.2f}"
        drawn.append(charts.reliability("after", title, scaled.test.calibration))
    return drawn


class Time(NamedTuple):
    """How long training took, in seconds, and how many images it took a second."""

    seconds: float
    images_per_second: float

    @classmethod
    def of(cls, history: History, settings: TrainConfig) -> "Time":
        """Returns both; validation counts as training's time."""
        seconds = sum(history.seconds)
        images_seen = settings.training_examples * len(history.epoch)
        return cls(seconds, images_seen / seconds if seconds > 0 else 0.0)


def _mistakes(test: Predictions) -> dict[str, Any]:
    confidence = np.exp(log_softmax(test.logits).max(axis=1))
    wrong = test.logits.argmax(axis=1) != test.examples.labels
    return {
        "sentence": words.sure_mistakes(confidence[wrong].tolist()),
        "pictures": images.pictures(test, images.surest_mistakes(test)),
    }


def _hardest(test: Predictions) -> list[images.Picture]:
    return images.pictures(test, [i for row in images.hardest_by_class(test) for i in row])


def _looked_at(model: keras.Model | Absent, test: Predictions | Absent) -> Any:
    if isinstance(test, Absent):
        return test
    rows = _given(model, _or_absent(lambda network: images.looked_at(network, test)))
    return _given(rows, lambda found: list(zip(CLASS_NAMES, found, strict=True)))


def _augmented(facts: RunFacts, training: Any) -> dict[str, Any]:
    epochs = min(facts.settings.epochs, _MOST_EPOCHS)
    settings = replace(facts.settings, epochs=epochs)
    sheet = augmented_sheet(settings, examples=training, epoch=epochs - 1)
    return {"uri": images.data_uri(sheet), "epoch": epochs}


def _first_ones(validation: Predictions) -> list[images.Picture]:
    return images.pictures(validation, range(min(images.SHOWN, len(validation.logits))))


def commands(record: RunRecord) -> list[str]:
    """Returns the commands that make a run and its report again."""
    settings = record.settings
    usual = TrainConfig.of(settings.recipe, settings.optimizer)
    told = [
        _option(name, value)
        for name, value in asdict(settings).items()
        if name in _ALWAYS_TOLD or value != getattr(usual, name)
    ]
    if record.origin:
        # On one line: in the model card, another one could end the block of code.
        told.append(f"--from {printable(shlex.quote(str(record.origin.path)))}")
    return [f"keras-cifar train {' '.join(told)}", "keras-cifar evaluate", "keras-cifar report"]


def _option(name: str, value: object) -> str:
    if name == "accelerate":
        return "--accelerate" if value else "--no-accelerate"
    return f"--{name.replace('_', '-')} {shlex.quote(str(value))}"
