"""What replicas of a model share, of one machine or several, and what each has of its own."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_cifar.data.pipeline import Share

Logs = dict[str, Any]


def draw_own_masks(model: keras.Model) -> None:
    """Gives each replica's dropout a seed of its own, by its number; the first keeps its seed.

    In Keras 3.15 all replicas draw the same masks. A checkpoint holds the first one's seeds: to be
    called after it was restored, once.
    """
    strategy = model.distribute_strategy
    dropouts = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout) and layer.rate  # one of 0 has no seed
    ]
    if strategy.num_replicas_in_sync == 1 or not dropouts:
        return

    def shift() -> None:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        for dropout in dropouts:
            seed = dropout.seed_generator.state
            seed.assign(seed + tf.cast(tf.stack([replica, 0]), seed.dtype))

    tf.function(lambda: strategy.run(shift), autograph=False)()


def shared_out(
    make: Callable[..., tf.data.Dataset], strategy: tf.distribute.Strategy
) -> tf.data.Dataset:
    """Returns what this process fits on: what `make` makes of its own `share`, if it has one."""
    if strategy.num_replicas_in_sync == 1:
        return make(share=None)

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

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Makes the function, which is to be traced once, not each epoch."""
        moments = [
            variable
            for variable in self.model.non_trainable_variables
            if variable.name in ("moving_mean", "moving_variance")
        ]
        strategy = self.model.distribute_strategy
        self.average = tf.function(lambda: strategy.run(_average, args=(moments,)), autograph=False)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Averages after the last step of the epoch."""
        if batch + 1 == self.params["steps"]:
            self.average()


def _average(variables: list[keras.Variable]) -> None:
    replica = tf.distribute.get_replica_context()
    # Read with `identity`: without, the value has no device, which the reduction asks for.
    values = [tf.identity(variable) for variable in variables]
    means = replica.all_reduce(tf.distribute.ReduceOp.MEAN, values)
    for variable, mean in zip(variables, means, strict=True):
        variable.assign(mean)
