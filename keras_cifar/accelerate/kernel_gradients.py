"""Gradients of kernels that oneDNN computes faster as convolutions.

In bfloat16, oneDNN's convolutions are twice as fast as its gradients of kernels where images are
small and channels many: 119 -> 76 ms for 500 images of 256 channels at 7x7 pixels, 39 -> 13 at 3x3,
27.8 -> 23.6 ms for 128 images of 128 channels at 16x16, and 34 -> 20 ms for 325 of 64 channels at
15x15 (AMD EPYC with bfloat16, 2 cores, TensorFlow 2.21, November 2026). With fewer channels, and so
larger images, and in float32, oneDNN's own gradient is faster.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import activations, layers

_MANY_CHANNELS = 64  # and as many filters
# A quarter of the images at a time stays in the cache between transposition and convolution. Of
# 128 images with 128 channels of 16x16 pixels: 25.6 ms as one, 23.6 in 4 parts, 23.4 in 16.
_PARTS = 4


def replace(piece: layers.Layer, layer: layers.Layer, line: object) -> list[layers.Layer]:
    """Replaces a convolution in bfloat16 of 3x3 pixels on many channels, without bias."""
    if not is_simple(piece) or not is_deep(piece, channels=layer.kernel.shape[-2]):
        return [piece]
    return [DeepConvolution(piece.filters, dtype=piece.dtype_policy.name, name=piece.name)]


def is_simple(piece: layers.Layer) -> bool:
    """Returns whether it is a convolution of 3x3 pixels, zeros around the images, without bias."""
    return (
        type(piece) is layers.Conv2D
        and (piece.use_bias, piece.activation) == (False, activations.linear)
        and (piece.kernel_size, piece.strides) == ((3, 3), (1, 1))
        and (piece.padding, piece.data_format) == ("same", "channels_last")
        and (piece.groups, piece.dilation_rate) == (1, (1, 1))
    )


def is_deep(convolution: layers.Layer, *, channels: int) -> bool:
    """Returns whether its kernel's gradient is faster as a convolution."""
    return bool(
        convolution.compute_dtype == "bfloat16"
        and channels >= _MANY_CHANNELS
        and convolution.filters >= _MANY_CHANNELS
    )


class SimpleConvolution(layers.Layer):
    """A convolution of 3x3 pixels, zeros around the images, without bias.

    Args:
        filters: channels of what it returns.
        options: as every layer's.
    """

    def __init__(self, filters: int, **options: Any) -> None:
        super().__init__(**options)
        self.filters = filters

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the kernel."""
        self.kernel = self.add_weight((3, 3, input_shape[-1], self.filters), name="kernel")


class DeepConvolution(SimpleConvolution):
    """A simple convolution by `convolve`."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Convolves (n, height, width, channels) to (n, height, width, filters)."""
        return convolve(images, tf.convert_to_tensor(self.kernel))


def convolve(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolves with zeros around the images; the kernel's gradient is a convolution as well.

    In that convolution, examples and channels change places, and the gradient of the output is the
    kernel.

    Args:
        images: (n, height, width, channels).
        kernel: (3, 3, channels, filters).

    Returns:
        (n, height, width, filters).
    """
    return tf.custom_gradient(_convolution_and_gradients)(images, kernel)


def _convolution_and_gradients(
    images: tf.Tensor, kernel: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_images = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images),
            filter=kernel,
            out_backprop=upstream,
            strides=[1, 1, 1, 1],
            padding="SAME",
        )
        return of_images, kernel_gradient(images, upstream)

    return tf.nn.conv2d(images, kernel, 1, "SAME"), gradients


def kernel_gradient(images: tf.Tensor, upstream: tf.Tensor, *, zeros_behind: int = 1) -> tf.Tensor:
    """Returns the sum over examples and pixels of each channel and its neighbours times `upstream`.

    All channels of all pixels of a row lie side by side, as one row of pixels that has an example
    in each channel. So a neighbouring pixel is as many pixels away as there are channels, and only
    one transposition of a matrix is needed.

    Args:
        images: (n, height, width, channels).
        upstream: gradient of the output, (n, rows, columns, filters).
        zeros_behind: rows and columns of zeros that the convolution had behind the images; before
            them it had one.

    Returns:
        (3, 3, channels, filters).
    """
    images, upstream = _in_parts(images), _in_parts(upstream)
    _, count, height, width, channels = keras.ops.shape(images)
    # (parts, count, height * width * channels) -> (parts, height, width * channels, count)
    rows = tf.transpose(tf.reshape(images, [_PARTS, count, height * width * channels]), [0, 2, 1])
    rows = tf.reshape(rows, [_PARTS, height, width * channels, count])
    kernels = tf.transpose(upstream, [0, 2, 3, 1, 4])  # (parts, height, width, count, filters)
    gradients = [
        tf.nn.conv2d(
            rows[part : part + 1],
            kernels[part],
            1,
            [[0, 0], [1, zeros_behind], [channels, zeros_behind * channels], [0, 0]],
            dilations=[1, channels],
        )  # (1, 3, 3 * channels, filters)
        for part in range(_PARTS)
    ]
    gradient = tf.add_n([tf.cast(gradient, tf.float32) for gradient in gradients])
    return tf.reshape(tf.cast(gradient, images.dtype), [3, 3, channels, upstream.shape[-1]])


def _in_parts(images: tf.Tensor) -> tf.Tensor:
    """Splits a batch, after adding images of zeros, into parts of the same even number of images.

    oneDNN takes bfloat16 channels, which images are here, in pairs. With an odd number it reads the
    memory behind the last one and multiplies it by 0, which is NaN where that memory holds NaN.
    (The zeros are not added in one `tf.pad` with the borders: TensorFlow 2.21 fuses that with the
    convolution and forgets the channels.)

    Returns:
        (parts, images of a part, height, width, channels).
    """
    count, *shape = keras.ops.shape(images)
    missing = -count % (2 * _PARTS)
    whole = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
    return tf.reshape(whole, [_PARTS, (count + missing) // _PARTS, *shape])
