"""Histories -> the charts of loss and accuracy, of one run or of several."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from keras_cifar.history import History
from keras_cifar.report.charts import Chart, Line, horizontal, line_of, vertical

_LETTER_HEIGHT = 14


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


def curve_charts(runs: Sequence[Run]) -> list[Chart]:
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
    low = 0.0 if name == "loss" else min(itertools.chain(*lists))
    high = max(itertools.chain(*lists))
    x = horizontal(1, max(2, *map(len, lists)))
    y = vertical(low, high if high > low else low + 1)
    lines = [
        line_of(values, x=x, y=y, series=run.series, is_training=is_training)
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
    return text(round(value, 3))
