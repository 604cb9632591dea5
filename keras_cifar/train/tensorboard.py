"""What TensorBoard shows of a run: Keras's curves, live figures, and sheets of images."""

import os
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_cifar.data.examples import Examples
from keras_cifar.measure.sheets import answered_sheet, augmented_sheet
from keras_cifar.recipes import TrainConfig

# A point takes 1 ms (AMD EPYC, 2 cores, November 2026).
_SECONDS_BETWEEN_POINTS = 2.0
_ANSWERED = 32  # validation images on a sheet
_DESCRIPTIONS = {
    "training images": "The first ones of the epoch, augmented, as the network sees them.",
    "validation images": "Below each its label, and the network's answer after the epoch.",
}
_MEGABYTE = 1e6
_STATM = Path("/proc/self/statm")
Logs = dict[str, Any]


def tensorboard_callbacks(
    folder: Path, *, config: TrainConfig, training: Examples, validation: Examples
) -> list[keras.callbacks.Callback]:
    """Returns what writes to `folder`, each callback below a name of its own.

    TensorBoard reads of a folder the file that was begun last: so no two may write to one.
    """
    steps_per_epoch = len(training.labels) // config.batch_size
    return [
        keras.callbacks.TensorBoard(folder),
        LiveFigures(folder / "live", steps_per_epoch=steps_per_epoch, batch_size=config.batch_size),
        Sheets(folder / "images", config=config, training=training, validation=validation),
    ]


class LiveFigures(keras.callbacks.Callback):
    """Loss, accuracy, images/s and memory every few seconds, by the steps of the run.

    Where a whole epoch is one call, there is a point an epoch.

    Args:
        folder: to write to.
        steps_per_epoch: of the optimiser.
        batch_size: images in a step.
    """

    def __init__(self, folder: Path, *, steps_per_epoch: int, batch_size: int) -> None:
        super().__init__()
        self.writer = tf.summary.create_file_writer(str(folder))
        self.steps_per_epoch, self.batch_size = steps_per_epoch, batch_size

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Starts the epoch's first point."""
        self.first_step = epoch * self.steps_per_epoch
        self.step, self.sums = 0, {"loss": 0.0, "accuracy": 0.0}
        self.time = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Ends a point if it is time to, or the epoch's last step."""
        step, now = batch + 1, time.perf_counter()
        if now - self.time >= _SECONDS_BETWEEN_POINTS or step == self.steps_per_epoch:
            self._write(self._means_since_last_point(step, logs or {}), step=step, now=now)
            self.step, self.time = step, now

    def _means_since_last_point(self, step: int, logs: Logs) -> dict[str, float]:
        """Keras gives the means of the epoch so far, in which what is new hardly shows."""
        before, self.sums = self.sums, {name: logs[name] * step for name in self.sums}
        steps = step - self.step
        return {name: (total - before[name]) / steps for name, total in self.sums.items()}

    def _write(self, means: dict[str, float], *, step: int, now: float) -> None:
        rate = (step - self.step) * self.batch_size / (now - self.time)
        figures = {**means, "images_per_second": rate, **memory_megabytes()}
        with self.writer.as_default(step=self.first_step + step):
            for name, value in figures.items():
                tf.summary.scalar(f"live/{name}", value)
        self.writer.flush()


def memory_megabytes() -> dict[str, float]:
    """Returns what this process and its tensors on GPUs take, by name; what is known of it."""
    found = {}
    if _STATM.is_file():  # not on macOS
        resident_pages = int(_STATM.read_text().split()[1])
        found["process_memory_mb"] = resident_pages * os.sysconf("SC_PAGE_SIZE") / _MEGABYTE
    for number in range(len(tf.config.list_logical_devices("GPU"))):
        taken = tf.config.experimental.get_memory_info(f"GPU:{number}")
        found[f"gpu_{number}_memory_mb"] = taken["current"] / _MEGABYTE
        found[f"gpu_{number}_memory_peak_mb"] = taken["peak"] / _MEGABYTE
    return found


class Sheets(keras.callbacks.Callback):
    """Training images as the network sees them, and its answers to validation images.

    Of the first and the last epoch alone, which keeps the log small.

    Args:
        folder: to write to.
        config: settings of the run.
        training: its training examples.
        validation: its validation examples; perhaps none.
    """

    def __init__(
        self, folder: Path, *, config: TrainConfig, training: Examples, validation: Examples
    ) -> None:
        super().__init__()
        self.writer = tf.summary.create_file_writer(str(folder))
        self.config, self.training = config, training
        self.validation = validation.take(np.arange(min(_ANSWERED, len(validation.labels))))

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Shows what the epoch is going to train on."""
        if self._is_shown(epoch):
            sheet = augmented_sheet(self.config, examples=self.training, epoch=epoch)
            self._write("training images", sheet, epoch=epoch)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Shows what the epoch has come to."""
        if self._is_shown(epoch) and len(self.validation.labels):
            images = tf.constant(self.validation.images)
            logits = self.model(images, training=False).numpy()
            sheet = answered_sheet(self.validation, logits=logits)
            self._write("validation images", sheet, epoch=epoch)

    def _is_shown(self, epoch: int) -> bool:
        return epoch in (0, self.config.epochs - 1)

    def _write(self, name: str, sheet: Any, *, epoch: int) -> None:
        with self.writer.as_default(step=epoch):  # as Keras counts them
            tf.summary.image(name, sheet[None], description=_DESCRIPTIONS[name])
        self.writer.flush()
