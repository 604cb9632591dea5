"""Figures -> charts as coordinates, which templates/macros.html draws as SVG.

Not matplotlib: its SVG has colours and sizes of its own, where these take those of the page, light
or dark, and its text is text.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from keras_cifar.measure.intervals import wilson
from keras_cifar.measure.metrics import Calibration, CalibrationBin

WIDTH, HEIGHT = 420, 290
LEFT, RIGHT, TOP, BOTTOM = 62, WIDTH - 22, 12, HEIGHT - 46  # of what lies between the axes
_MOST_POINTS = 200  # of a line: more cannot be seen
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


class Scale(NamedTuple):
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


def horizontal(low: float, high: float) -> Scale:
    """Returns the scale of an x axis."""
    return Scale(low, high, LEFT, RIGHT)


def vertical(low: float, high: float) -> Scale:
    """Returns the scale of a y axis."""
    return Scale(low, high, BOTTOM, TOP)


def line_of(
    values: Sequence[float], *, x: Scale, y: Scale, series: int = 0, is_training: bool = False
) -> Line:
    """Returns a line through at least one figure, at 1, 2, 3, ..."""
    step = max(1, math.ceil(len(values) / _MOST_POINTS))
    kept = sorted({*range(0, len(values), step), len(values) - 1})
    points = [(x.place(i + 1), y.place(values[i])) for i in kept]
    path = " ".join(f"{'L' if n else 'M'}{px:g} {py:g}" for n, (px, py) in enumerate(points))
    if len(points) == 1:
        path += " h0.1"  # a dot
    return Line(path, series, is_training, "", points[-1])


def reliability(name: str, title: str, calibration: Calibration) -> Chart:
    """Returns how often answers of a probability are right, over that probability.

    Args:
        name: the chart's id.
        title: above it.
        calibration: of at least one image.
    """
    x, y = horizontal(0, 1), vertical(0, 1)
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


def _bar(one: CalibrationBin, *, most: int, x: Scale, y: Scale) -> Bar:
    left, right = x.place(one.lower), x.place(one.upper)
    top = y.place(one.examples / most * _BARS_SHARE)
    return Bar(left + 1, top, round(right - left - 2, 1), round(y.place(0) - top, 1))


def _whisker(one: CalibrationBin, *, x: Scale, y: Scale) -> Whisker:
    ends = wilson(round(one.accuracy * one.examples), trials=one.examples)
    return Whisker(
        x.place(one.confidence), y.place(one.accuracy), y.place(ends.upper), y.place(ends.lower)
    )


def _bin_in_words(one: CalibrationBin) -> str:
    return f"of {one.examples:,} answers at {one.confidence:.0%}, {one.accuracy:.0%} were right"


def severities(accuracy: Mapping[str, Sequence[float]], *, clean: float) -> Chart:
    """Returns the mean accuracy over all corruptions by severity, 0 for none."""
    means = [clean, *np.mean(list(accuracy.values()), axis=0)]
    x, y = horizontal(0, len(means) - 1), vertical(0, 1)
    line = line_of(means, x=x._replace(low=1, high=len(means)), y=y)
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
