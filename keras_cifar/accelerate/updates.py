"""The optimiser's step compiled by XLA, while TensorFlow runs the rest of the network.

TensorFlow goes through a variable's memory for each operation of an update, and waits for it. XLA
updates each variable in one pass: 4 to 5 of an article step's 282 ms (AMD EPYC, 2 cores, TensorFlow
2.21, November 2026).
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class _CompiledUpdates:
    """What an optimiser class puts before Keras's.

    It is for a model that neither XLA compiles as a whole nor a strategy trains.
    """

    def apply(
        self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[Any] | None = None
    ) -> None:
        """Updates all variables."""
        apply = super().apply  # type: ignore[misc]
        # XLA casts to float32 in the same pass.
        before_cast = [grad.op.inputs[0] if grad.op.type == "Cast" else grad for grad in grads]
        step = tf.function(
            lambda *values: apply(
                [tf.cast(value, grad.dtype) for value, grad in zip(values, grads, strict=True)],
                trainable_variables,
            ),
            autograph=False,
            jit_compile=True,
        )
        step(*before_cast)


class CompiledSGD(_CompiledUpdates, keras.optimizers.SGD):
    """Keras's SGD with compiled updates."""


class CompiledAdam(_CompiledUpdates, keras.optimizers.Adam):
    """Keras's Adam with compiled updates."""
