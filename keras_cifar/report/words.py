"""Figures -> sentences: each says what the figure means, and how sure it is."""

import statistics
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.measure.intervals import Interval, wilson
from keras_cifar.measure.metrics import ClassMetrics, Metrics
from keras_cifar.measure.metrics import confusions as counted_confusions

_PLURALS = {name: "deer" if name == "deer" else f"{name}s" for name in CLASS_NAMES}


def plural(name: str) -> str:
    """Returns the plural of a class."""
    return _PLURALS[name]


def percent(share: float, *, digits: int = 1) -> str:
    """Returns a share as people write it: 92.6 %."""
    return f"{share:.{digits}%}".replace("%", "\N{NO-BREAK SPACE}%")


def between(interval: Interval) -> str:
    """Returns an interval in words."""
    return f"{100 * interval.lower:.1f} to {percent(interval.upper)}"


def one_of(share: float) -> str:
    """Returns a share as a small fraction: "1 of 9", "3 of 8"."""
    if share < 0.1:
        return f"1 of {round(1 / share)}"
    fraction = Fraction(share).limit_denominator(10)
    return f"{fraction.numerator} of {fraction.denominator}"


class Confusion(NamedTuple):
    """How often one class is taken for another.

    Attributes:
        actual: what it is.
        predicted: what it is taken for.
        images: how many.
        share: of the images of the actual class.
        interval: of the share.
    """

    actual: str
    predicted: str
    images: int
    share: float
    interval: Interval

    @property
    def sentence(self) -> str:
        """Says it in words."""
        return (
            f"{plural(self.actual).capitalize()} are taken for {plural(self.predicted)} in about "
            f"{one_of(self.share)} cases ({percent(self.share)}, 95 % interval "
            f"{between(self.interval)})."
        )


def confusions(metrics: Metrics) -> list[Confusion]:
    """Returns the confusions that happened, the most frequent first."""
    return [
        _confusion(actual, predicted, count=count, of=metrics.per_class[actual].examples)
        for count, actual, predicted in counted_confusions(metrics)
    ]


def _confusion(actual: str, predicted: str, *, count: int, of: int) -> Confusion:
    return Confusion(actual, predicted, count, count / of, wilson(count, trials=of))


def accuracy_interval(metrics: Metrics) -> Interval:
    """Returns the interval of the accuracy."""
    right = sum(metrics.confusion_matrix[i][i] for i in range(len(CLASS_NAMES)))
    return wilson(right, trials=metrics.examples)


def recall_interval(of: ClassMetrics) -> Interval:
    """Returns the interval of the share of a class that is recognised."""
    return wilson(round(of.recall * of.examples), trials=max(1, of.examples))


def summary(metrics: Metrics) -> list[str]:
    """Returns what a reader should know first, a sentence or two each."""
    return list(_summary(metrics))


def _summary(metrics: Metrics) -> Iterator[str]:
    right = round(metrics.accuracy * metrics.examples)
    yield (
        f"The model is right about {right:,} of {metrics.examples:,} {metrics.split} images, "
        f"{percent(metrics.accuracy)}. On more images of this kind, expect "
        f"{between(accuracy_interval(metrics))} (95 % confidence)."
    )
    if found := confusions(metrics):
        yield _pair(metrics)
        yield found[0].sentence
    yield _best_and_worst(metrics)
    yield _certainty(metrics)


def _pair(metrics: Metrics) -> str:
    """Tells which two classes are confused most, both ways counted."""
    matrix, names = metrics.confusion_matrix, CLASS_NAMES
    pairs = {
        (names[i], names[j]): matrix[i][j] + matrix[j][i]
        for i in range(len(names))
        for j in range(i)
    }
    (first, second), count = max(pairs.items(), key=lambda pair: pair[1])
    mistakes = metrics.examples - round(metrics.accuracy * metrics.examples)
    return (
        f"What it confuses most are {plural(second)} and {plural(first)}: {count:,} of its "
        f"{mistakes:,} mistakes ({percent(count / mistakes, digits=0)})."
    )


def _best_and_worst(metrics: Metrics) -> str:
    ranked = sorted(metrics.per_class.items(), key=lambda item: item[1].recall)
    (worst, worst_figures), (best, best_figures) = ranked[0], ranked[-1]
    ends = recall_interval(worst_figures)
    rivals = [plural(name) for name, of in ranked[1:-1] if recall_interval(of).lower <= ends.upper]
    doubt = ""
    if rivals:
        doubt = f" By these images alone, {_listed(rivals)} may be as hard."
    return (
        f"It recognises {plural(best)} best ({percent(best_figures.recall)}) and {plural(worst)} "
        f"worst ({percent(worst_figures.recall)}, 95 % interval {between(ends)}).{doubt}"
    )


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _certainty(metrics: Metrics) -> str:
    """Tells whether the model is as often right as it is sure."""
    bins = metrics.calibration.bins
    confidence = sum(one.confidence * one.examples for one in bins) / metrics.examples
    ends = accuracy_interval(metrics)
    if ends.lower <= confidence <= ends.upper:
        verdict = "On average it is about as sure as it is right"
    else:
        verdict = f"It is too {'sure of itself' if confidence > ends.upper else 'modest'}"
    return (
        f"{verdict}: its answers come with a probability of {percent(confidence)} on average, "
        f"and {percent(metrics.accuracy)} of them are right."
    )


def sure_mistakes(confidences: Sequence[float]) -> str:
    """Tells how sure the model is when it is wrong.

    Args:
        confidences: of the wrong answers.
    """
    if not confidences:
        return ""
    middle = percent(statistics.median(confidences), digits=0)
    return (
        f"In half of its {len(confidences):,} mistakes, the model gives its wrong answer a "
        f"probability of {middle} or more."
    )
