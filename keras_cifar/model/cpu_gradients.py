"""A gradient that a CPU computes faster than by TensorFlow's own operation; the same values."""

from collections.abc import Callable

import keras
import tensorflow as tf
from keras import layers

# With fewer, and so larger images, the gradient of oneDNN itself is the faster one.
_MANY_CHANNELS = 64
_MANY_FILTERS = 128
# A quarter of the images at a time stays in the cache between transposition and convolution. Of
# 128 images with 128 channels of 16x16 pixels: 25.6 ms as one, 23.6 in 4 parts, 23.4 in 16.
_PARTS = 4


def use_cpu_gradients(model: keras.Model) -> None:
    """Has the deep convolutions, those of 3x3 pixels on many channels, use `convolve`."""
    # Keras has no public way to list the layers within a `Residual` too.
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Conv2D):
            *_, channels, filters = layer.kernel.shape
            if channels >= _MANY_CHANNELS and filters >= _MANY_FILTERS:
                layer.convolution_op = convolve


def convolve(images: tf.Tensor, kernel: tf.Tensor | keras.Variable) -> tf.Tensor:
    """Convolves with zeros around the images; the kernel's gradient is a convolution as well.

    In bfloat16, oneDNN's convolutions are twice as fast as its gradients of kernels where images
    are small and channels many. That gradient is itself a convolution, in which examples and
    channels have changed places and the gradient of the output is the kernel.

    Args:
        images: (n, height, width, channels).
        kernel: (3, 3, channels, filters).

    Returns:
        (n, height, width, filters).
    """
    convolution = tf.custom_gradient(_convolution_and_gradients)
    return convolution(images, tf.convert_to_tensor(kernel))


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
        return of_images, _kernel_gradient(images, upstream)

    return tf.nn.conv2d(images, kernel, 1, "SAME"), gradients


def _kernel_gradient(images: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """The sum over examples and pixels of each channel and its neighbours times `upstream`.

    All channels of all pixels of a row lie side by side, as one row of pixels that has an example
    in each channel. So a neighbouring pixel is as many pixels away as there are channels, and only
    one transposition of a matrix is needed.
    """
    images, upstream = _in_parts(images), _in_parts(upstream)
    _, count, height, width, channels = keras.ops.shape(images)
    rows = tf.transpose(tf.reshape(images, [_PARTS, count, height * width * channels]), [0, 2, 1])
    rows = tf.reshape(rows, [_PARTS, height, width * channels, count])
    kernels = tf.transpose(upstream, [0, 2, 3, 1, 4])
    gradients = [
        tf.nn.conv2d(
            rows[part : part + 1],
            kernels[part],
            1,
            [[0, 0], [1, 1], [channels, channels], [0, 0]],
            dilations=[1, channels],
        )
        for part in range(_PARTS)
    ]
    gradient = tf.add_n([tf.cast(gradient, tf.float32) for gradient in gradients])
    return tf.reshape(tf.cast(gradient, images.dtype), [3, 3, channels, upstream.shape[-1]])


def _in_parts(images: tf.Tensor) -> tf.Tensor:
    """Adds images of zeros, so that each part has the same even number of them.

    oneDNN takes bfloat16 channels, which images are here, in pairs. With an odd number it reads on
    behind the last one: NaN times 0, where that is what memory holds. (Not in one `tf.pad` with the
    borders: TensorFlow 2.21 fuses that with the convolution and forgets the channels.)

    Returns:
        (parts, images of a part, height, width, channels).
    """
    count, *shape = keras.ops.shape(images)
    missing = -count % (2 * _PARTS)
    whole = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
    return tf.reshape(whole, [_PARTS, (count + missing) // _PARTS, *shape])
