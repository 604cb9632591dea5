"""Convolutions without the rows and columns that the pooling behind them discards.

A 2x2 pooling takes no notice of the last row and column of images of odd height and width. Without
them a convolution has the same outputs for less: 6, 13 and 27 % less of 31x31, 15x15 and 7x7
pixels, the sizes in fast94. A step of it took 384, 500 and 637 ms at 24, 28 and 32 pixels before,
and 357, 485 and 586 ms after (AMD EPYC with bfloat16, 2 cores, TensorFlow 2.21, November 2026). On
an A100 it gained nothing (a note of fulcrumresearch/cifar-10-speedrun, July 2026).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from keras_cifar.accelerate.kernel_gradients import (
    SimpleConvolution,
    is_deep,
    is_simple,
    kernel_gradient,
)
from keras_cifar.accelerate.pooling import is_halving
from keras_cifar.model.rewrite import Line


def replace(piece: layers.Layer, layer: layers.Layer, line: Line) -> list[layers.Layer]:
    """Replaces a convolution of 3x3 pixels right before a 2x2 pooling, but for even sizes."""
    if (
        not is_simple(piece)
        or not is_halving(line.behind(layer))
        or any(size is not None and size % 2 == 0 for size in layer.input.shape[1:-1])
    ):
        return [piece]
    as_convolution = is_deep(piece, channels=layer.kernel.shape[-2])
    options = {"dtype": piece.dtype_policy.name, "name": piece.name}
    return [PooledConvolution(piece.filters, as_convolution=as_convolution, **options)]


class PooledConvolution(SimpleConvolution):
    """A simple convolution for a pooling of 2x2 pixels behind it.

    Args:
        filters: as every simple convolution's.
        as_convolution: whether the gradient of its kernel is a convolution as well.
        options: as every layer's.
    """

    def __init__(self, filters: int, *, as_convolution: bool, **options: Any) -> None:
        super().__init__(filters, **options)
        self.as_convolution = as_convolution

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Convolves (n, height, width, channels) to (n, height, width, filters).

        If height and width are odd, the last row and column are missing.
        """
        convolve = partial(
            _convolve, images, tf.convert_to_tensor(self.kernel), as_convolution=self.as_convolution
        )
        _, height, width, _ = keras.ops.shape(images)
        is_odd = (height % 2 == 1) & (width % 2 == 1)
        if isinstance(is_odd, bool):
            return convolve(zeros_behind=0 if is_odd else 1)
        return tf.cond(is_odd, lambda: convolve(zeros_behind=0), lambda: convolve(zeros_behind=1))


def _convolve(
    images: tf.Tensor, kernel: tf.Tensor, *, as_convolution: bool, zeros_behind: int
) -> tf.Tensor:
    """Convolves with one row and column of zeros before the images, and 0 or 1 behind them."""

    def convolve(
        images: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # oneDNN has gradients for equal borders only. A gradient by the images is a convolution
            # with the kernel turned round.
            turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
            of_images = tf.nn.conv2d(upstream, turned, 1, _borders(2 - zeros_behind))
            if as_convolution:
                return of_images, kernel_gradient(images, upstream, zeros_behind=zeros_behind)
            of_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=tf.pad(images, _borders(zeros_behind)),
                filter_sizes=kernel.shape,
                out_backprop=upstream,
                strides=[1, 1, 1, 1],
                padding="VALID",
            )
            return of_images, of_kernel

        return tf.nn.conv2d(images, kernel, 1, _borders(zeros_behind)), gradients

    return tf.custom_gradient(convolve)(images, kernel)


def _borders(behind: int) -> list[list[int]]:
    return [[0, 0], [1, behind], [1, behind], [0, 0]]
