"""A gradient that a CPU computes faster than by TensorFlow's own operation; the same values."""

from collections.abc import Callable

import keras
import tensorflow as tf
from keras import layers

# With fewer, and so larger images, the gradient of oneDNN itself is the faster one.
_MANY_CHANNELS = 128
_MANY_FILTERS = 256


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
    images = _even_number(images)
    count, height, width, channels = keras.ops.shape(images)
    rows = tf.transpose(tf.reshape(images, [count, height * width * channels]))
    gradient = tf.nn.conv2d(
        tf.reshape(rows, [1, height, width * channels, count]),
        tf.transpose(_even_number(upstream), [1, 2, 0, 3]),
        1,
        [[0, 0], [1, 1], [channels, channels], [0, 0]],
        dilations=[1, channels],
    )
    return tf.reshape(gradient, [3, 3, channels, upstream.shape[-1]])


def _even_number(images: tf.Tensor) -> tf.Tensor:
    """Adds an image of zeros to an odd number of them.

    oneDNN takes bfloat16 channels, which images are here, in pairs. With an odd number it reads on
    behind the last one: NaN times 0, where that is what memory holds. (Not in one `tf.pad` with the
    borders: TensorFlow 2.21 fuses that with the convolution and forgets the channels.)
    """
    return tf.pad(images, [[0, keras.ops.shape(images)[0] % 2], [0, 0], [0, 0], [0, 0]])
