"""Figures -> charts as coordinates, which templates/charts.html draws as SVG.

Not matplotlib: its SVG has colours and sizes of its own, where these take those of the page, light
or dark, and its text is text.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from keras_cifar.history import History
from keras_cifar.measure.intervals import wilson
from keras_cifar.measure.metrics import Calibration, CalibrationBin

WIDTH, HEIGHT = 420, 290
LEFT, RIGHT, TOP, BOTTOM = 62, WIDTH - 22, 12, HEIGHT - 46  # of what lies between the axes
_MOST_POINTS = 200  # of a line: more cannot be seen
_LETTER_HEIGHT = 14
_BARS_SHARE = 0.25  # of the height: the numbers of images behind a reliability diagram


class Tick(NamedTuple):
    """A mark of an axis: where, and what it says."""

    place: float
    text: str


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
        path: SVG's commands for it.
        series: which colour it has, 0, 1, ...
        is_training: whether it is drawn dashed.
        label: at its end; may be empty.
        end: of the line, x and y of the label.
    """

    path: str
    series: int
    is_training: bool
    label: str
    end: tuple[float, float]


class Whisker(NamedTuple):
    """A point with an interval."""

    x: float
    y: float
    top: float
    bottom: float


class Bar(NamedTuple):
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float


class Chart(NamedTuple):
    """What is drawn within `WIDTH` by `HEIGHT`.

    Attributes:
        name: its id.
        title: above it.
        summary: what it shows, for who cannot see it.
        x_label: of the x axis.
        y_label: of the y axis.
        x_ticks: of the x axis.
        y_ticks: of the y axis.
        lines: drawn over the bars.
        bars: drawn behind all else.
        whiskers: drawn over all else.
        diagonal: whether the line of equality is drawn.
    """

    name: str
    title: str
    summary: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: Sequence[Line] = ()
    bars: Sequence[Bar] = ()
    whiskers: Sequence[Whisker] = ()
    diagonal: str = ""


class _Scale(NamedTuple):
    """A range of figures and the pixels that they take."""

    low: float
    high: float
    start: float
    stop: float

    def place(self, value: float) -> float:
        """Returns where a figure is."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self, *, text: Callable[[float], str], are_whole: bool = False) -> list[Tick]:
        """Returns round figures within the range."""
        locator = MaxNLocator(nbins=6, integer=are_whole, steps=[1, 2, 2.5, 5, 10])
        values = locator.tick_values(self.low, self.high)
        margin = 1e-9 * (self.high - self.low)
        within = [float(v) for v in values if self.low - margin <= v <= self.high + margin]
        return [Tick(self.place(value), text(value)) for value in within]


def _horizontal(low: float, high: float) -> _Scale:
    return _Scale(low, high, LEFT, RIGHT)


def _vertical(low: float, high: float) -> _Scale:
    return _Scale(low, high, BOTTOM, TOP)


class Run(NamedTuple):
    """A run whose curves are drawn.

    Attributes:
        history: its curves.
        series: its colour, 0, 1, ...
        letter: at the end of its lines; empty where there is one run only.
    """

    history: History
    series: int = 0
    letter: str = ""


def curves(runs: Sequence[Run]) -> list[Chart]:
    """Returns a chart of the loss and one of the accuracy over the epochs."""
    losses = [(run, run.history.loss, run.history.val_loss) for run in runs]
    accuracies = [(run, run.history.accuracy, run.history.val_accuracy) for run in runs]
    return [
        _curve_chart("loss", "Loss (cross entropy)", losses, text=lambda value: f"{value:g}"),
        _curve_chart("accuracy", "Accuracy", accuracies, text=lambda value: f"{value:.0%}"),
    ]


_Values = tuple[Run, list[float], list[float]]


def _curve_chart(
    name: str, title: str, runs: Sequence[_Values], *, text: Callable[[float], str]
) -> Chart:
    lists = [values for _, *both in runs for values in both]
    finite = [value for values in lists for value in values if math.isfinite(value)] or [0.0]
    low = 0.0 if name == "loss" else min(finite)
    x = _horizontal(1, max(2, *map(len, lists)))
    y = _vertical(low, max(finite) if max(finite) > low else low + 1)
    lines = [
        _line(values, x=x, y=y, series=run.series, is_training=is_training)
        for run, *both in runs
        for values, is_training in zip(both, (True, False), strict=True)
        if values
    ]
    return Chart(
        name,
        title,
        _curve_summary(runs, text=text),
        "epoch",
        "",
        x.ticks(text=lambda value: f"{value:.0f}", are_whole=True),
        y.ticks(text=text),
        _labelled(lines, letters={run.series: run.letter for run, *_ in runs}),
    )


def _line(
    values: Sequence[float], *, x: _Scale, y: _Scale, series: int = 0, is_training: bool = False
) -> Line:
    step = max(1, math.ceil(len(values) / _MOST_POINTS))
    kept = sorted({*range(0, len(values), step), len(values) - 1})
    points = [(x.place(i + 1), y.place(values[i])) for i in kept if math.isfinite(values[i])]
    path = " ".join(f"{'L' if n else 'M'}{px:g} {py:g}" for n, (px, py) in enumerate(points))
    if len(points) == 1:
        path += " h0.1"  # a dot
    return Line(path, series, is_training, "", points[-1] if points else (0.0, 0.0))


def _labelled(lines: Sequence[Line], *, letters: Mapping[int, str]) -> list[Line]:
    """Puts letters at the ends of the lines, one for each colour and none over another."""
    placed, lowest = list(lines), -math.inf
    last = {line.series: position for position, line in enumerate(lines)}
    for position in sorted(last.values(), key=lambda position: lines[position].end[1]):
        right, height = lines[position].end
        lowest = max(height, lowest + _LETTER_HEIGHT)
        letter = letters[lines[position].series]
        placed[position] = lines[position]._replace(label=letter, end=(right, lowest))
    return placed


def _curve_summary(runs: Sequence[_Values], *, text: Callable[[float], str]) -> str:
    """Says how each line begins and ends."""
    said = [
        f"{run.letter} {kind} from {_short(values[0], text)} to {_short(values[-1], text)}".strip()
        for run, *both in runs
        for values, kind in zip(both, ("training", "validation"), strict=True)
        if values
    ]
    return f"Over {max(len(run[1]) for run in runs)} epochs: {'; '.join(said)}."


def _short(value: float, text: Callable[[float], str]) -> str:
    return text(round(value, 3)) if math.isfinite(value) else "no number"


def reliability(name: str, title: str, calibration: Calibration) -> Chart:
    """Returns how often answers of a probability are right, over that probability.

    Args:
        name: the chart's id.
        title: above it.
        calibration: of at least one image.
    """
    x, y = _horizontal(0, 1), _vertical(0, 1)
    filled = [one for one in calibration.bins if one.examples]
    most = max(one.examples for one in filled)
    return Chart(
        name,
        title,
        "; ".join(_bin_in_words(one) for one in filled) + ".",
        "probability of the answer",
        "share that is right",
        x.ticks(text=lambda value: f"{value:.0%}"),
        y.ticks(text=lambda value: f"{value:.0%}"),
        bars=[_bar(one, most=most, x=x, y=y) for one in filled],
        whiskers=[_whisker(one, x=x, y=y) for one in filled],
        diagonal=f"M{x.place(0):g} {y.place(0):g} L{x.place(1):g} {y.place(1):g}",
    )


def _bar(one: CalibrationBin, *, most: int, x: _Scale, y: _Scale) -> Bar:
    left, right = x.place(one.lower), x.place(one.upper)
    top = y.place(one.examples / most * _BARS_SHARE)
    return Bar(left + 1, top, round(right - left - 2, 1), round(y.place(0) - top, 1))


def _whisker(one: CalibrationBin, *, x: _Scale, y: _Scale) -> Whisker:
    ends = wilson(round(one.accuracy * one.examples), trials=one.examples)
    return Whisker(
        x.place(one.confidence), y.place(one.accuracy), y.place(ends.upper), y.place(ends.lower)
    )


def _bin_in_words(one: CalibrationBin) -> str:
    return f"of {one.examples:,} answers at {one.confidence:.0%}, {one.accuracy:.0%} were right"


def severities(accuracy: Mapping[str, Sequence[float]], *, clean: float) -> Chart:
    """Returns the mean accuracy over all corruptions by severity, 0 for none."""
    means = [clean, *np.mean(list(accuracy.values()), axis=0)]
    x, y = _horizontal(0, len(means) - 1), _vertical(0, 1)
    line = _line(means, x=x._replace(low=1, high=len(means)), y=y)
    return Chart(
        "severities",
        "Mean accuracy by severity",
        _by_severity(means),
        "severity, 0: not corrupted",
        "accuracy",
        x.ticks(text=lambda value: f"{value:.0f}", are_whole=True),
        y.ticks(text=lambda value: f"{value:.0%}"),
        [line],
    )


def _by_severity(means: Iterable[float]) -> str:
    return "; ".join(f"severity {level}: {mean:.1%}" for level, mean in enumerate(means)) + "."
