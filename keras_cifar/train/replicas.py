"""What replicas of a model must share, and what each of them must have of its own.

A strategy keeps a copy of each variable on every device. Gradients are summed over the replicas, so
weights stay equal. All else Keras leaves to each replica: moving moments drift apart, and masks of
dropout are the same on all (Keras 3.15).
"""

from typing import Any

import keras
import tensorflow as tf


def why_not_shared(batch_size: int, *, replicas: int) -> str | None:
    """Returns why replicas cannot share a batch equally, and which they can; None if they can.

    Keras takes the mean of each replica's share and the mean of those: where the shares differ, an
    example of a small one counts for more.
    """
    if batch_size % replicas == 0:
        return None
    below = batch_size // replicas * replicas
    sizes = " or ".join(str(size) for size in (below, below + replicas) if size)
    return f"{replicas} devices cannot share {batch_size} images equally. Take {sizes}"


def eval_batch_size(count: int, *, replicas: int, at_most: int) -> int:
    """Returns the largest batch size that leaves no replica without an example in any batch.

    TensorFlow's convolution of no images, by oneDNN, ends in an error. A replica's share of a batch
    is rounded up, so that the last replicas of many may have none.

    Args:
        count: examples in all.
        replicas: that share each batch.
        at_most: the size that is wanted.
    """

    def serves_all(batch: int) -> bool:
        share = -(-batch // replicas)
        return not batch or share * (replicas - 1) < batch

    sizes = range(at_most, 0, -1)
    served = (s for s in sizes if serves_all(min(s, count)) and serves_all(count % s))
    return next(served, at_most)


def draw_own_masks(model: keras.Model) -> None:
    """Gives each replica's dropout a seed of its own, by its number; the first keeps its seed.

    A checkpoint holds the seeds of the first replica: after it was restored, all have those.
    """
    strategy = model.distribute_strategy
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    if strategy.num_replicas_in_sync == 1:
        return

    def shift() -> None:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        for dropout in dropouts:
            seed = dropout.seed_generator.state
            seed.assign(seed + tf.cast(tf.stack([replica, 0]), seed.dtype))

    tf.function(lambda: strategy.run(shift))()


class MeanMoments(keras.callbacks.Callback):
    """Sets the moving moments to their mean over the replicas, once at the end of each epoch.

    Before validation, so that all validate the model that is kept: a run keeps the moments of the
    first replica. Training does not depend on them. A moving mean is linear, so this is what the
    mean of each step would come to, without a reduction in each step.
    """

    def set_model(self, model: keras.Model) -> None:
        """Notes the moments."""
        super().set_model(model)
        self._moments = [w for w in model.non_trainable_weights if w.name.startswith("moving_")]
        self._mean = tf.function(self._reduce)
        self._is_done = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Lets the moments of an epoch be reduced."""
        self._is_done = False

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reduces them before validation."""
        self._share()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reduces them where nothing is validated."""
        self._share()

    def _share(self) -> None:
        if self._is_done or not self._moments:
            return
        parts = tf.split(self._mean(), [int(tf.size(moment)) for moment in self._moments])
        for moment, part in zip(self._moments, parts, strict=True):
            moment.assign(tf.reshape(part, moment.shape))
        self._is_done = True

    def _reduce(self) -> tf.Tensor:
        """Returns the means of all, one after the other: one message for all of them."""
        strategy = self.model.distribute_strategy
        own = strategy.run(lambda: tf.concat([tf.reshape(m, [-1]) for m in self._moments], 0))
        return strategy.reduce("MEAN", own, axis=None)
