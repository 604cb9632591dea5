"""2x2 max pooling whose gradient XLA can compute the same each time on a GPU.

TensorFlow's gradient of max pooling has no deterministic form in XLA on a GPU (tensorflow #69417).
This one is made of comparisons: each maximum passes its gradient to the first pixel of its window
that has it, as TensorFlow's does on a CPU.
"""

from collections.abc import Callable

import keras
import tensorflow as tf
from keras import layers


def replace(piece: layers.Layer, layer: layers.Layer, line: object) -> list[layers.Layer]:
    """Replaces a max pooling of windows of 2x2 pixels."""
    if not is_halving(piece):
        return [piece]
    return [ComparingMaxPooling.from_config(piece.get_config())]


def is_halving(layer: layers.Layer) -> bool:
    """Returns whether it is a max pooling that halves height and width, rounded down."""
    return (
        type(layer) is layers.MaxPooling2D
        and layer.pool_size == layer.strides == (2, 2)
        and (layer.padding, layer.data_format) == ("valid", "channels_last")
    )


class ComparingMaxPooling(layers.MaxPooling2D):
    """Keras's layer by comparisons of the four pixels of a window."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Pools (n, height, width, channels) to (n, height // 2, width // 2, channels)."""
        _, height, width, channels = keras.ops.shape(inputs)
        rows, columns = height // 2, width // 2
        whole = inputs[:, : 2 * rows, : 2 * columns]
        windows = tf.reshape(whole, [-1, rows, 2, columns, 2, channels])
        return tf.custom_gradient(_pool)(windows)


def _pool(windows: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Returns the largest of axes 2 and 4 of (n, rows, 2, columns, 2, channels)."""
    largest = tf.reduce_max(windows, [2, 4], keepdims=True)

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        has_it = tf.cast(windows == largest, tf.int32)
        # Of a window's pixels in a row, how many before each, and in the rows before, have it.
        before_in_row = tf.cumsum(has_it, axis=4, exclusive=True)
        in_rows_before = tf.cumsum(tf.reduce_sum(has_it, 4, keepdims=True), axis=2, exclusive=True)
        is_first = (has_it == 1) & (before_in_row + in_rows_before == 0)
        return tf.where(is_first, tf.reshape(upstream, tf.shape(largest)), 0)

    return tf.squeeze(largest, [2, 4]), gradient
