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
   "Invalid reduction dimension 0 for input with 0 dimensions". Here each of them has one axis.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_cifar.data.pipeline import WHOLE, Share

Logs = dict[str, Any]


class MultiWorkerFit:
    """What a model class puts before Keras's to be fitted on several workers."""

    def train_step(self, data: Any) -> Logs:
        """Returns Keras's metrics, each with shape (1,)."""
        return _with_axis(super().train_step(data))  # type: ignore[misc]

    def test_step(self, data: Any) -> Logs:
        """Returns Keras's metrics, each with shape (1,)."""
        return _with_axis(super().test_step(data))  # type: ignore[misc]

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds metrics and loss from the shapes of images and labels."""
        model: Any = self
        images = [keras.KerasTensor(each.shape, each.dtype) for each in model.inputs]
        labels = keras.KerasTensor((None,), "int64")
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=(*images, labels))


def _with_axis(metrics: Logs) -> Logs:
    return {name: tf.reshape(value, [1]) for name, value in metrics.items()}


class MultiWorkerModel(MultiWorkerFit, keras.Model):
    """A Functional model for several workers.

    Args:
        network: its layers become this model's.
    """

    def __init__(self, network: keras.Model) -> None:
        super().__init__(network.inputs, network.outputs, name=network.name)


def shared_out(
    make: Callable[..., tf.data.Dataset], strategy: tf.distribute.Strategy
) -> tf.data.Dataset:
    """Returns the dataset that this process fits on, `make(share=...)` of its own share."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return make(share=WHOLE)

    def own(context: tf.distribute.InputContext) -> tf.data.Dataset:
        here = context.num_replicas_in_sync // context.num_input_pipelines
        first = context.input_pipeline_id * here
        return make(share=Share(range(first, first + here), of=context.num_replicas_in_sync))

    return strategy.distribute_datasets_from_function(own)


def synchronise(network: keras.Model) -> None:
    """Has batch normalisation take the moments of the whole batch, over all replicas."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


class AverageMoments(keras.callbacks.Callback):
    """Makes the moving moments of batch normalisation the means of the replicas', each epoch.

    Each replica moves its own by its share of the images. Training takes no notice of them, so once
    is enough: after the last step, before they are used for validation and kept.
    """

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Averages after the last step of the epoch."""
        if batch + 1 == self.params["steps"]:
            moments = [
                variable
                for variable in self.model.non_trainable_variables
                if variable.name in ("moving_mean", "moving_variance")
            ]
            strategy = self.model.distribute_strategy
            tf.function(lambda: strategy.run(_average, args=(moments,)), autograph=False)()


def _average(variables: list[keras.Variable]) -> None:
    replica = tf.distribute.get_replica_context()
    # Read with `identity`: without, the value has no device, which the reduction asks for.
    values = [tf.identity(variable) for variable in variables]
    means = replica.all_reduce(tf.distribute.ReduceOp.MEAN, values)
    for variable, mean in zip(variables, means, strict=True):
        variable.assign(mean)
