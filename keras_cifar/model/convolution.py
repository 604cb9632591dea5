"""Convolutions that leave their bias's gradient to what comes behind them."""

from collections.abc import Callable

import keras
import tensorflow as tf
from keras import layers


@keras.saving.register_keras_serializable(package="keras_cifar")
class NormalizedConv2D(layers.Conv2D):
    """Keras's layer, before a batch normalisation: that subtracts the mean, and the bias with it.

    So nothing depends on the bias, and its gradient is 0; what is computed of it is the rounding.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolves (n, height, width, channels) to (n, height, width, filters)."""
        outputs = self.convolution_op(inputs, self.kernel)
        bias = tf.custom_gradient(_with_gradient_zero)(tf.convert_to_tensor(self.bias))
        return tf.nn.bias_add(outputs, bias)


def _with_gradient_zero(bias: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    return tf.identity(bias), tf.zeros_like


@keras.saving.register_keras_serializable(package="keras_cifar")
class PooledConv2D(layers.Conv2D):
    """Keras's layer, and a max pooling of 2x2 behind it, as one.

    Of four outputs one comes through, and with it the gradient: that of the bias is a sum over a
    quarter of the numbers.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolves (n, height, width, channels) to (n, height / 2, width / 2, filters)."""
        outputs = self.convolution_op(inputs, self.kernel)
        return tf.custom_gradient(_add_and_pool)(outputs, tf.convert_to_tensor(self.bias))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape after the pooling."""
        count, *size, filters = super().compute_output_shape(input_shape)
        return count, *(side and side // 2 for side in size), filters


def _add_and_pool(
    images: tf.Tensor, bias: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
    pooling = {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "VALID"}
    biased = tf.nn.bias_add(images, bias)
    pooled = tf.raw_ops.MaxPool(input=biased, **pooling)

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_images = tf.raw_ops.MaxPoolGrad(
            orig_input=biased, orig_output=pooled, grad=upstream, **pooling
        )
        # TensorFlow's own, BiasAddGrad, adds bfloat16 to bfloat16 on a CPU: it counts to 256.
        of_bias = tf.reduce_sum(tf.cast(upstream, tf.float32), [0, 1, 2])
        return of_images, tf.cast(of_bias, bias.dtype)

    return pooled, gradients
