"""SiLU with a gradient in one pass over memory.

TensorFlow computes the gradient as six operations, each of which goes through memory in the
precision of its inputs. XLA makes one pass of them, in float32: 11.4 -> 3.0 ms for 325 images of
256 channels at 7x7 pixels in bfloat16, 7.8 -> 2.7 in float32. Of a step of fast94 at 32 pixels that
is 40 of 590 ms (AMD EPYC with bfloat16, 2 cores, TensorFlow 2.21, November 2026).
"""

from collections.abc import Callable

import tensorflow as tf
from keras import activations, layers


def replace(piece: layers.Layer, layer: layers.Layer, line: object) -> list[layers.Layer]:
    """Replaces SiLU where it is a layer of its own."""
    if type(piece) is not layers.Activation or piece.activation is not activations.silu:
        return [piece]
    return [FusedSilu.from_config(piece.get_config())]


class FusedSilu(layers.Activation):
    """Keras's layer, its gradient compiled."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns inputs * sigmoid(inputs), of the same shape and dtype."""
        return tf.custom_gradient(_silu_and_gradient)(inputs)


def _silu_and_gradient(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    return tf.nn.silu(x), lambda upstream: _compiled_gradient(x, upstream)


def _gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    exact = tf.cast(x, tf.float32)
    # The sigmoid, by what XLA has vector code for.
    sigmoid = 0.5 + 0.5 * tf.tanh(0.5 * exact)
    slope = sigmoid * (1 + exact * (1 - sigmoid))
    return tf.cast(tf.cast(upstream, tf.float32) * slope, x.dtype)


_compiled_gradient = tf.function(_gradient, autograph=False, jit_compile=True)
