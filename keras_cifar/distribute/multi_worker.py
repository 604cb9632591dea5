"""The way round what keeps `fit` of Keras from MultiWorkerMirroredStrategy (keras #20585).

In Keras 3.15.1, keras/src/backend/tensorflow/trainer.py has two faults, both met on this strategy
alone. A test of this project runs Keras's own `fit` on it, and fails when they are mended: then
this file can go.

1. `_maybe_symbolic_build` takes the first batch to see its shape, and reduces it over the replicas
   ("MEAN", axis=None). A batch on this strategy is per replica even where there is one on each
   worker: "Attempt to convert a value (PerReplica: ...) with an unsupported type". Where it would
   do, the labels, integers, would have no mean. Only shapes are needed, and no network: here they
   are those of the model's own inputs.
2. `reduce_per_replica` asks whether the strategy is this one before it asks whether the value is
   per replica, and reduces the metrics with `strategy.reduce("MEAN", v, axis=0)`. They are scalars:
   "Invalid reduction dimension 0 for input with 0 dimensions". Here they are one tensor with that
   axis, so that all of them take two small all-reduces, sum and count, in place of two each.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

Logs = dict[str, Any]


class MultiWorkerFit:
    """What a model class puts before Keras's to be fitted on several workers."""

    train_function: Any
    test_function: Any

    def train_step(self, data: Any) -> Logs:
        """Returns Keras's metrics as one of shape (1, metrics)."""
        return _packed(super().train_step(data))  # type: ignore[misc]

    def test_step(self, data: Any) -> Logs:
        """Returns Keras's metrics as one of shape (1, metrics)."""
        return _packed(super().test_step(data))  # type: ignore[misc]

    def make_train_function(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 (Keras's)
        """Gives each metric its name again, in what Keras's function returns."""
        if self.train_function is None or force:
            super().make_train_function(force)  # type: ignore[misc]
            self.train_function = _naming(self.train_function)

    def make_test_function(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 (Keras's)
        """The same for validation."""
        if self.test_function is None or force:
            super().make_test_function(force)  # type: ignore[misc]
            self.test_function = _naming(self.test_function)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds metrics and loss from the shapes of images and labels."""
        model: Any = self
        images = [keras.KerasTensor(each.shape, each.dtype) for each in model.inputs]
        labels = keras.KerasTensor((None,), "int64")
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=(*images, labels))


def _packed(metrics: Logs) -> Logs:
    return {" ".join(metrics): tf.stack(list(metrics.values()))[tf.newaxis]}


def _naming(run: Callable[[Any], Logs]) -> Callable[[Any], Logs]:
    def run_and_name(iterator: Any) -> Logs:
        ((names, values),) = run(iterator).items()
        # Of a cluster of one worker, Keras leaves the first axis.
        return dict(zip(names.split(), tf.unstack(tf.reshape(values, [-1])), strict=True))

    return run_and_name


class MultiWorkerModel(MultiWorkerFit, keras.Model):
    """A Functional model for several workers.

    Args:
        network: its layers become this model's.
    """

    def __init__(self, network: keras.Model) -> None:
        super().__init__(network.inputs, network.outputs, name=network.name)
