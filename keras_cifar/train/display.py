"""How far training has come, for the person at the terminal."""

import shutil
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from statistics import fmean
from typing import Any

import click
import keras

_ERASED_LINE = "\r\x1b[K"  # to the left, and erase to the end
_BAR_WIDTH = 24
_SECONDS_BETWEEN_BARS = 0.1
Logs = dict[str, Any]


class ProgressDisplay(keras.callbacks.Callback):
    """A line an epoch on stderr; on a terminal, also a bar below it while the epoch runs.

    Args:
        costs: of each epoch of the run, beside the others.
        steps_per_epoch: of the optimiser.
        batch_size: images in a step.
    """

    def __init__(self, costs: Sequence[float], *, steps_per_epoch: int, batch_size: int) -> None:
        super().__init__()
        self.costs, self.steps_per_epoch = costs, steps_per_epoch
        self.batch_size = batch_size
        self.paces: list[float] = []  # seconds per cost of each epoch of this process

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Starts the epoch's clock."""
        self.epoch, self.started, self.drawn = epoch, time.perf_counter(), 0.0
        self.calls = 0

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Moves the bar, and takes the time before validation, which trains no images."""
        now = time.perf_counter()
        self.training_seconds = now - self.started
        self.calls += 1
        if self.calls == 1:
            self.first_call_seconds = self.training_seconds
        if sys.stderr.isatty() and now - self.drawn > _SECONDS_BETWEEN_BARS:
            self.drawn = now
            self.clear_bar()
            click.echo(self._bar(batch + 1, logs or {}), nl=False, err=True)

    def clear_bar(self) -> None:
        """Leaves the cursor on an empty line: what comes next must not stand behind the bar."""
        if sys.stderr.isatty():
            click.echo(_ERASED_LINE, nl=False, err=True)

    def _bar(self, step: int, logs: Logs) -> str:
        """Returns a line shorter than the terminal's: a longer one would wrap and stay."""
        columns = shutil.get_terminal_size().columns - 1
        status = self._status(step, logs)
        width = min(_BAR_WIDTH, columns - len(self._label() + status) - len("  []  "))
        done = round(max(0, width) * step / self.steps_per_epoch)
        bar = f"[{'#' * done}{'-' * (width - done)}]  " if width > 0 else ""
        return f"{self._label()}  {bar}{status}"[:columns]

    def _label(self) -> str:
        epochs = len(self.costs)
        return f"epoch {self.epoch + 1:>{len(str(epochs))}}/{epochs}"

    def _status(self, step: int, logs: Logs) -> str:
        seconds = time.perf_counter() - self.started
        return (
            f"loss {logs['loss']:.3f}  accuracy {logs['accuracy']:.3f}  "
            f"{step * self.batch_size / seconds:,.0f} images/s  "
            f"{self._remaining(step, seconds)} left"
        )

    def _remaining(self, step: int, seconds: float) -> timedelta:
        """Time to the end of the run, at the pace of the epochs so far or of this one."""
        epoch_seconds = self._without_tracing(seconds) / step * self.steps_per_epoch
        # The first epoch's pace may have its tracing in it, where it was a single call.
        paces = self.paces[1:] or self.paces or [epoch_seconds / self.costs[self.epoch]]
        rest_of_epoch = epoch_seconds * (1 - step / self.steps_per_epoch)
        left = rest_of_epoch + fmean(paces) * sum(self.costs[self.epoch + 1 :])
        return timedelta(seconds=round(left))

    def _without_tracing(self, seconds: float) -> float:
        """Returns the seconds of the epoch so far, had its first step been like the others.

        The first step of a process builds the graph, and so does the one after a layer is frozen.
        """
        if self.calls < 2:
            return seconds
        others = (self.training_seconds - self.first_call_seconds) / (self.calls - 1)
        return seconds - max(0.0, self.first_call_seconds - others)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Prints the epoch's line in place of the bar."""
        seconds = time.perf_counter() - self.started
        self.paces.append(self._without_tracing(seconds) / self.costs[epoch])
        self.clear_bar()
        values = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        rate = self.steps_per_epoch * self.batch_size / self.training_seconds
        left = self._remaining(self.steps_per_epoch, seconds)
        click.echo(
            f"{self._label()}  {values}  {rate:,.0f} images/s  {seconds:.0f} s, {left} left",
            err=True,
        )
