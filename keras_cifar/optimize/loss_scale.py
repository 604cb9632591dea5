"""Keras's loss scaling for float16, made right for several replicas."""

from collections.abc import Sequence

import keras
import tensorflow as tf


class AgreedLossScale(keras.optimizers.LossScaleOptimizer):
    """Leaves out a step in which the gradients of any replica are not finite.

    Keras asks the first replica alone, before the gradients are summed ("`grads` is all-reduced
    across replicas", says its comment in `loss_scale_optimizer.py`, and is wrong). What overflows
    on another replica is then added to the weights (Keras 3.15).
    """

    def check_finite(self, grads: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns whether all gradients of all replicas are finite, the same on each."""
        overflows = tf.cast(~super().check_finite(grads), tf.float32)
        return tf.distribute.get_replica_context().all_reduce("sum", overflows) == 0


def agreed(optimizer: keras.optimizers.Optimizer, *, precision: str) -> keras.optimizers.Optimizer:
    """Wraps an optimiser under whose strategy several replicas train in float16."""
    is_shared = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return AgreedLossScale(optimizer) if is_shared and precision == "float16" else optimizer
