"""Biases of convolutions whose gradient is left to what stands behind them.

The gradient of a bias is a sum over all examples and pixels: 1 to 2 ms for a large layer of the
article's network, 8 of the 270 ms of a step (AMD EPYC, 2 cores, TensorFlow 2.21, November 2026). On
a CPU, TensorFlow also adds bfloat16 gradients in bfloat16, where a sum of ones stops at 256.

Before a batch normalisation, which subtracts the mean, nothing depends on the bias. Its gradient is
0; what Keras computes of it is rounding. Before a max pooling, one output of four comes through:
the gradient is a sum over a quarter of the numbers, here in float32.
"""

from collections.abc import Callable

import tensorflow as tf
from keras import activations, layers

from keras_cifar.accelerate.pooling import is_halving
from keras_cifar.model.rewrite import Line

_POOLING = {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "VALID"}


def replace(piece: layers.Layer, layer: layers.Layer, line: Line) -> list[layers.Layer]:
    """Splits a convolution from its bias where a batch normalisation or a max pooling follows.

    The pooling then stands before the ReLU that was before it, which returns the same and has a
    quarter of the work.
    """
    options = {"dtype": layer.dtype_policy.name, "name": f"{layer.name}_bias"}
    if _pooling_behind(layer, line):
        return [_without_bias(layer), PooledBias(**options)]
    if _is_linear(layer) and type(line.behind(layer)) is layers.BatchNormalization:
        return [_without_bias(layer), NormalizedBias(**options)]
    convolution = line.before(line.before(layer))
    if convolution and _pooling_behind(convolution, line) is layer:
        return []
    return [piece]


def _pooling_behind(layer: layers.Layer, line: Line) -> layers.Layer | None:
    """Returns the 2x2 max pooling behind the ReLU behind a convolution, if that is what it is."""
    relu = line.behind(layer)
    pooling = line.behind(relu)
    is_pooled = (
        _is_linear(layer)
        and type(relu) is layers.ReLU
        and (relu.max_value, relu.negative_slope, relu.threshold) == (None, 0.0, 0.0)
        and is_halving(pooling)
    )
    return pooling if is_pooled else None


def _is_linear(layer: layers.Layer) -> bool:
    return (
        type(layer) is layers.Conv2D
        and layer.use_bias
        and layer.activation is activations.linear
        and layer.data_format == "channels_last"
    )


def _without_bias(layer: layers.Conv2D) -> layers.Conv2D:
    return layers.Conv2D.from_config({**layer.get_config(), "use_bias": False})


class _Bias(layers.Layer):
    """A number for each channel."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the bias."""
        self.bias = self.add_weight(input_shape[-1:], "zeros", name="bias")


class NormalizedBias(_Bias):
    """Adds a bias before a batch normalisation; the gradient of the bias is 0."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Returns images + bias, (n, height, width, channels)."""
        bias = tf.custom_gradient(_with_gradient_zero)(tf.convert_to_tensor(self.bias))
        return tf.nn.bias_add(images, bias)


def _with_gradient_zero(bias: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    return tf.identity(bias), tf.zeros_like


class PooledBias(_Bias):
    """Adds a bias and takes the largest of each 2x2 pixels."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Pools (n, height, width, channels) to (n, height / 2, width / 2, channels)."""
        return tf.custom_gradient(_add_and_pool)(images, tf.convert_to_tensor(self.bias))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape after the pooling."""
        count, *size, channels = input_shape
        return count, *(side and side // 2 for side in size), channels


def _add_and_pool(
    images: tf.Tensor, bias: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
    biased = tf.nn.bias_add(images, bias)
    pooled = tf.raw_ops.MaxPool(input=biased, **_POOLING)

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_images = tf.raw_ops.MaxPoolGrad(
            orig_input=biased, orig_output=pooled, grad=upstream, **_POOLING
        )
        of_bias = tf.reduce_sum(tf.cast(upstream, tf.float32), [0, 1, 2])
        return of_images, tf.cast(of_bias, bias.dtype)

    return pooled, gradients
