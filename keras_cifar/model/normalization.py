"""The normalisation of images, in less time."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="keras_cifar")
class ImageNormalization(keras.layers.Normalization):
    """Keras's layer for channels, over whole rows of pixels.

    TensorFlow takes an operation with 96 numbers, of a row, at twice the speed of one with 3.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalises (n, height, width, channels)."""
        shape = keras.ops.shape(inputs)
        *_, width, channels = shape
        rows = tf.reshape(tf.cast(inputs, self.compute_dtype), [-1, width * channels])
        mean, deviation = (
            tf.tile(tf.reshape(tf.cast(value, self.compute_dtype), [channels]), [width])
            for value in (self.mean, tf.sqrt(self.variance))
        )
        return tf.reshape((rows - mean) / deviation, shape)
