"""What happens while `fit` runs: the run's files, the progress display, the halt at a bad loss."""

import math
import shutil
import sys
import time
from datetime import timedelta
from typing import Any

import click
import keras

from keras_cifar.atomic import replacing
from keras_cifar.config import RunDir
from keras_cifar.history import COLUMNS, write_history
from keras_cifar.train import checkpoint
from keras_cifar.train.checkpoint import Progress

Logs = dict[str, Any]
_ERASED_LINE = "\r\x1b[K"  # to the left, and erase to the end
_BAR_WIDTH = 24
_SECONDS_BETWEEN_BARS = 0.1


class StopAtNonFiniteLoss(keras.callbacks.Callback):
    """Ends training with an error; Keras's TerminateOnNaN ends it as if all were well."""

    def __init__(self, *, learning_rate: float) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Notes the epoch for the message."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Raises FloatingPointError if the mean loss of the epoch so far is not a number."""
        self._check((logs or {})["loss"], where=f"step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Raises FloatingPointError if the last step spoilt the weights: validation shows it."""
        self._check((logs or {}).get("val_loss", 0.0), where="validation")

    def _check(self, loss: float, *, where: str) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"Training diverged: the loss is {loss} in epoch {self.epoch + 1}, {where}. "
                f"Try a lower --learning-rate; it was {self.learning_rate:g}."
            )


class RunFiles(keras.callbacks.Callback):
    """Writes history.csv, the chosen model and a checkpoint after each epoch, in this order.

    Keras's CSVLogger, ModelCheckpoint and BackupAndRestore write in place and keep their state
    apart; a kill between them leaves files of different epochs. Here the checkpoint comes last
    and holds the state of the others: what was written before it is written again, the same.
    """

    def __init__(self, run_dir: RunDir, *, chosen: keras.Model, progress: Progress) -> None:
        super().__init__()
        self.run_dir = run_dir
        self.chosen = chosen
        self.progress = progress
        self.started = 0.0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Adds the epoch to the run's files."""
        # From end to end, so that the epochs add up to the whole, the writing of files included.
        seconds, self.started = time.perf_counter() - self.started, time.perf_counter()
        row: dict[str, float | None] = {
            **dict.fromkeys(COLUMNS),
            **(logs or {}),
            "epoch": epoch + 1,
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": seconds,
        }
        self.progress.epoch = epoch + 1
        self.progress.history.append({name: row[name] for name in COLUMNS})
        write_history(self.run_dir.history, self.progress.history)
        if self._is_best(row["val_accuracy"]):
            self.chosen.set_weights(self.model.get_weights())
            with replacing(self.run_dir.model) as path:
                self.chosen.save(path)
        checkpoint.save(self.run_dir.checkpoint, model=self.model, progress=self.progress)

    def _is_best(self, accuracy: float | None) -> bool:
        """Notes and tells whether this epoch's model is the one to keep."""
        if accuracy is not None and accuracy <= self.progress.best_accuracy:
            return False
        self.progress.best_epoch = self.progress.epoch
        self.progress.best_accuracy = -1.0 if accuracy is None else accuracy
        return True


class ProgressDisplay(keras.callbacks.Callback):
    """A line an epoch on stderr; on a terminal, also a bar below it while the epoch runs."""

    def __init__(self, *, epochs: int, steps_per_epoch: int, batch_size: int) -> None:
        super().__init__()
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.images_per_epoch = steps_per_epoch * batch_size
        self.batch_size = batch_size
        self.epoch_seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Starts the epoch's clock."""
        self.epoch, self.started, self.drawn = epoch, time.perf_counter(), 0.0

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Moves the bar."""
        now = time.perf_counter()
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
        return f"epoch {self.epoch + 1:>{len(str(self.epochs))}}/{self.epochs}"

    def _status(self, step: int, logs: Logs) -> str:
        seconds = time.perf_counter() - self.started
        return (
            f"loss {logs['loss']:.3f}  accuracy {logs['accuracy']:.3f}  "
            f"{step * self.batch_size / seconds:,.0f} images/s  "
            f"{timedelta(seconds=round(self._remaining(step, seconds)))} left"
        )

    def _remaining(self, step: int, seconds: float) -> float:
        """Seconds to the end of the run, at the pace of the epochs so far or of this one."""
        rest_of_epoch = seconds / step * (self.steps_per_epoch - step)
        per_epoch = (
            sum(self.epoch_seconds) / len(self.epoch_seconds)
            if self.epoch_seconds
            else seconds / step * self.steps_per_epoch
        )
        return rest_of_epoch + per_epoch * (self.epochs - self.epoch - 1)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Takes the rate before validation, which trains no images."""
        self.training_seconds = time.perf_counter() - self.started

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Prints the epoch's line in place of the bar."""
        seconds = time.perf_counter() - self.started
        self.epoch_seconds.append(seconds)
        self.clear_bar()
        values = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        rate = self.images_per_epoch / getattr(self, "training_seconds", seconds)
        left = format_seconds(self._remaining(self.steps_per_epoch, seconds))
        click.echo(
            f"{self._label()}  {values}  {rate:,.0f} images/s  "
            f"{format_seconds(seconds)}, {left} left",
            err=True,
        )


def format_seconds(seconds: float) -> str:
    """Returns a duration as "42 s", "3 min 20 s" or "1 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
