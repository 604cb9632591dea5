"""Encoded images of a data set -> examples, for no more memory than their pixels take."""

import numpy as np
import tensorflow as tf

from keras_cifar.cifar10 import IMAGE_SHAPE
from keras_cifar.data.examples import Examples
from keras_cifar.data.options import without_autotune

# How a PNG of a 32x32 image begins: signature, then a header of 13 bytes, width, height.
_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes([0, 0, 0, 32]) * 2


def decode_pngs(rows: tf.data.Dataset) -> Examples:
    """Decodes the `image`, a PNG, of each row and keeps its `label`, in their order.

    Raises:
        tf.errors.InvalidArgumentError: the header of one says another size, or it is damaged.
        ValueError: there are none.
    """
    decoded = rows.map(
        lambda row: (_decode_png(row["image"]), row["label"]), num_parallel_calls=tf.data.AUTOTUNE
    )
    batches = decoded.batch(1000).with_options(without_autotune()).as_numpy_iterator()
    images, labels = zip(*batches, strict=True)
    return Examples(np.concatenate(images), np.concatenate(labels))


def _decode_png(png: tf.Tensor) -> tf.Tensor:
    fits = tf.strings.substr(png, 0, len(_START)) == _START
    checked = tf.debugging.Assert(fits, ["not all its images are PNGs of 32x32 pixels"])
    with tf.control_dependencies([checked]):
        return tf.reshape(tf.io.decode_png(png, channels=3), IMAGE_SHAPE)
