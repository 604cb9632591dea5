"""Encoded images of a data set -> pixels, for no more memory than those take."""

import tensorflow as tf

from keras_cifar.cifar10 import IMAGE_SHAPE

# How a PNG of a 32x32 image begins: signature, then a header of 13 bytes, width, height.
_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes([0, 0, 0, 32]) * 2


def decode_png(png: tf.Tensor) -> tf.Tensor:
    """Returns the (32, 32, 3) uint8 pixels of a PNG.

    Raises:
        tf.errors.InvalidArgumentError: its header says another size, or it is damaged.
    """
    fits = tf.strings.substr(png, 0, len(_START)) == _START
    checked = tf.debugging.Assert(fits, ["not all its images are PNGs of 32x32 pixels"])
    with tf.control_dependencies([checked]):
        return tf.reshape(tf.io.decode_png(png, channels=3), IMAGE_SHAPE)
