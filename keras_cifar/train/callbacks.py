"""What happens between the steps of `fit`: the run's files, and the halt at a bad loss."""

import math
import time
from typing import Any

import keras

from keras_cifar.files import replacing
from keras_cifar.history import COLUMNS, write_history
from keras_cifar.run_dir import RunDir
from keras_cifar.train import checkpoint
from keras_cifar.train.checkpoint import Progress

Logs = dict[str, Any]


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

    def __init__(
        self, run_dir: RunDir, *, chosen: keras.Model, progress: Progress, started: float
    ) -> None:
        super().__init__()
        self.run_dir = run_dir
        self.chosen = chosen
        self.progress = progress
        self.started = started
        self.config = self._read_config()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Adds the epoch to the run's files."""
        self._require_folder()
        # From end to end, so that the epochs add up to the whole: building the model is part of the
        # first one, and the writing of files of each.
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

    def _require_folder(self) -> None:
        """Refuses to write where the run's folder was, since another run may lie there now."""
        # Not by the folder's number: over a network, it need not stay the same.
        if self._read_config() != self.config:
            raise FileNotFoundError(
                f"{self.run_dir.path}: the run's folder was moved or removed. Put it back, and go "
                "on with it by --resume."
            )

    def _read_config(self) -> bytes | None:
        return self.run_dir.config.read_bytes() if self.run_dir.config.is_file() else None

    def _is_best(self, accuracy: float | None) -> bool:
        """Notes and tells whether this epoch's model is the one to keep."""
        if accuracy is not None and accuracy <= self.progress.best_accuracy:
            return False
        self.progress.best_epoch = self.progress.epoch
        self.progress.best_accuracy = -1.0 if accuracy is None else accuracy
        return True
