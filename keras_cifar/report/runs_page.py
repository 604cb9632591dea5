"""What is known of several runs -> what their page shows: a row for each of their settings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_cifar.history import History
from keras_cifar.measure.comparison import McNemar, bootstrap_differences, mcnemar
from keras_cifar.measure.intervals import Interval, Spread, mean_and_deviation
from keras_cifar.recipes import TrainConfig
from keras_cifar.report.charts import Chart
from keras_cifar.report.curves import Run, curve_charts
from keras_cifar.report.facts import Absent, RunFacts, correct, gather_test
from keras_cifar.report.findings import suspects_of_group
from keras_cifar.report.run_page import Time, commands
from keras_cifar.run_dir import RunDir


class Row(NamedTuple):
    """Runs of equal settings, the seed aside.

    Attributes:
        letter: A, B, ...
        settings: of the first of them.
        runs: in the order of their seeds.
        accuracy: of the test images; None where none was measured.
        loss: of the test images.
        calibration_error: of the test images.
        validation_accuracy: the best of each run; None without a validation split.
        seconds: of training.
    """

    letter: str
    settings: TrainConfig
    runs: list[RunFacts]
    accuracy: Spread | None
    loss: Spread | None
    calibration_error: Spread | None
    validation_accuracy: Spread | None
    seconds: Spread | None


class Difference(NamedTuple):
    """How much more accurate a row is than the first, with its interval."""

    letter: str
    mean: float
    interval: Interval


def page_of_runs(runs: Sequence[RunDir], *, data_dir: Path | None) -> dict[str, Any]:
    """Returns the values that templates/runs.html and runs.md name.

    Raises:
        OSError: one of these is no run, or the data cannot be had.
    """
    facts = [gather_test(run, data_dir=data_dir) for run in runs]
    rows = rows_of(facts)
    first = asdict(rows[0].settings)
    all_settings = [asdict(row.settings) for row in rows]
    differing = [
        name
        for name in first
        if name != "seed" and any(s[name] != first[name] for s in all_settings)
    ]
    return {
        "rows": rows,
        "first": first,
        "differing": differing,
        "common": {n: v for n, v in first.items() if n not in differing and n != "seed"},
        "names": names_of(runs),
        "circumstances": _circumstances(facts),
        "notes": _notes(rows),
        "curves": _curves(rows),
        "suspects": suspects_of_group(facts, data_dir=data_dir),
        "tested": _tested(rows),
        "differences": _differences(rows),
        "commands": [command for row in rows for command in _commands(row)],
    }


def _commands(row: Row) -> list[str]:
    """Returns what trains all runs of a row again."""
    each = [commands(run.record)[0] for run in row.runs]
    if len(each) == 1 or row.runs[0].record.origin:  # --seeds and --from exclude each other
        return each
    seeds = ",".join(str(run.settings.seed) for run in row.runs)
    return [each[0].replace(f"--seed {row.settings.seed}", f"--seeds {seeds}")]


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    """Yields what else there is to know before rows are compared."""
    for row in rows:
        if origin := row.runs[0].record.origin:
            yield f"{row.letter}: started from {origin.path}"
        for run in row.runs:
            if run.unfinished:
                yield f"{row.letter}: {run.unfinished}"
            if isinstance(run.test, Absent):
                yield run.test.reason


def names_of(runs: Sequence[RunDir]) -> dict[Path, str]:
    """Returns the folders' names, with those of the folders they are in where two are the same."""
    names = {run.path: run.path.resolve().name for run in runs}
    if len(set(names.values())) < len(names):
        names = {path: "/".join(path.resolve().parts[-2:]) for path in names}
    return names


def rows_of(facts: Sequence[RunFacts]) -> list[Row]:
    """Returns a row for each of the settings, in the order in which they come."""
    found: list[list[RunFacts]] = []
    for one in facts:
        row = next((row for row in found if _differs_by_seed(one, row)), None)
        if row is None:
            found.append([one])
        else:
            row.append(one)
    return [
        _row(_letter(position), sorted(runs, key=lambda one: one.settings.seed))
        for position, runs in enumerate(found)
    ]


def _differs_by_seed(one: RunFacts, row: Sequence[RunFacts]) -> bool:
    """Tells whether a run differs from those of a row by its seed, and by nothing else."""
    return one.settings.seed not in [of.settings.seed for of in row] and _kind(one) == _kind(row[0])


def _kind(one: RunFacts) -> tuple[TrainConfig, str | None, bool]:
    origin = one.record.origin
    return replace(one.settings, seed=0), origin and origin.sha256, one.run.is_unfinished


def _letter(position: int) -> str:
    """Returns A to Z, then A2, B2, ..."""
    turn, place = divmod(position, 26)
    return chr(ord("A") + place) + (str(turn + 1) if turn else "")


def _row(letter: str, runs: list[RunFacts]) -> Row:
    metrics = [one.metrics for one in runs if not isinstance(one.metrics, Absent)]
    histories = [one.history for one in runs if not isinstance(one.history, Absent)]
    return Row(
        letter,
        runs[0].settings,
        runs,
        _spread(of.accuracy for of in metrics),
        _spread(of.loss for of in metrics),
        _spread(of.calibration.expected_calibration_error for of in metrics),
        _spread(max(of.val_accuracy) for of in histories if of.val_accuracy),
        _spread(Time.of(of, runs[0].settings).seconds for of in histories),
    )


def _spread(values: Any) -> Spread | None:
    found = list(values)
    return mean_and_deviation(found) if found else None


def _circumstances(facts: Sequence[RunFacts]) -> dict[str, list[str]]:
    """Returns devices and versions, where the runs differ by them."""
    kinds: dict[str, Callable[[RunFacts], object]] = {
        "device": lambda one: one.record.device,
        "versions": lambda one: one.record.versions,
        "choices": lambda one: one.record.choices,
    }
    found = {name: list(dict.fromkeys(str(of(one)) for one in facts)) for name, of in kinds.items()}
    return {name: texts for name, texts in found.items() if len(texts) > 1}


def _curves(rows: Sequence[Row]) -> list[Chart] | Absent:
    runs = [
        Run(one.history, series, row.letter)
        for series, row in enumerate(rows)
        for one in row.runs
        if isinstance(one.history, History)
    ]
    return curve_charts(runs) if runs else Absent("None of the runs has a history.")


def _tested(rows: Sequence[Row]) -> McNemar | Absent:
    """Returns McNemar's test of two runs; or why not."""
    answers = _answers(rows)
    if isinstance(answers, Absent):
        return answers
    if [len(of) for of in answers] != [1, 1]:
        return Absent("There are more than two runs.")
    return mcnemar(answers[0][0], answers[1][0])


def _differences(rows: Sequence[Row]) -> list[Difference] | Absent:
    """Returns how much more accurate each row is than the first; or why that is not known."""
    answers = _answers(rows)
    if isinstance(answers, Absent):
        return answers
    shares = np.stack([np.mean(of, axis=0) for of in answers])
    means = shares.mean(axis=1) - shares[0].mean()
    intervals = bootstrap_differences(shares, reference=0)
    found = zip(rows, means.tolist(), intervals, strict=True)
    return [Difference(row.letter, *figures) for row, *figures in found][1:]


def _answers(rows: Sequence[Row]) -> list[list[Any]] | Absent:
    """Returns for each row, and each of its runs, which test images are answered right."""
    if len(rows) == 1:
        return Absent("All runs have the same settings but for the seed: nothing is compared.")
    if len({row.settings.dataset for row in rows}) > 1:
        return Absent("The runs are of different datasets, so they have no test images in common.")
    answers = [
        [correct(one.test) for one in row.runs if not isinstance(one.test, Absent)] for row in rows
    ]
    if not all(answers):
        return Absent("Some settings have no run with a model that could answer.")
    return answers
