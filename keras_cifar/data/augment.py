"""What is done to the images of a batch; each function pure, its randomness an argument."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_cifar.cifar10 import IMAGE_SHAPE, MEAN

# TensorFlow's own choice depends on the device: XLA's would be another one than the CPU's.
GENERATOR = "philox"


class Part(NamedTuple):
    """Where some images are in their batch, so that they get the randomness that is theirs.

    Attributes:
        first: place of the first one of them.
        of: images in the batch.
    """

    first: int | tf.Tensor
    of: int | tf.Tensor

    def cut(self, values: tf.Tensor, *, count: tf.Tensor) -> tf.Tensor:
        """Returns what is theirs of a tensor (..., of): (..., count)."""
        others = values.shape[:-1]
        # Unlike [...], it tells the shape, which layers that follow ask for.
        return tf.slice(values, [0] * len(others) + [self.first], [*others, count])


def random_shifts(count: tf.Tensor, *, at_most: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws for each image by how many pixels it is moved up and to the left.

    Returns:
        int32 (2, count), within -at_most..at_most.
    """
    return tf.random.stateless_uniform(
        [2, count], seed, -at_most, at_most + 1, dtype=tf.int32, alg=GENERATOR
    )


def shift_and_mirror(images: tf.Tensor, *, shifts: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Moves images, reflecting them where their border comes in, and mirrors some of them.

    One gather does both: it reads each output pixel from where crop and mirroring put it, so no
    padded copy is made.

    Args:
        images: uint8 (batch, 32, 32, 3).
        shifts: int32 (2, batch), as `random_shifts` gives them.
        mirrored: bool (batch,): which ones are mirrored, left to right.

    Returns:
        uint8 (batch, 32, 32, 3).
    """
    height, width, channels = IMAGE_SHAPE
    rows = _reflect(tf.range(height) + shifts[0, :, None], size=height)
    columns = _reflect(tf.range(width) + shifts[1, :, None], size=width)
    columns = tf.where(mirrored[:, None], columns[:, ::-1], columns)
    first_row = tf.range(tf.shape(images)[0])[:, None] * height
    pixel = (first_row + rows)[:, :, None] * width + columns[:, None, :]  # (batch, 32, 32)
    return tf.gather(tf.reshape(images, [-1, channels]), pixel)


def _reflect(position: tf.Tensor, *, size: int) -> tf.Tensor:
    """Folds positions in (-size, 2 * size - 1) back into 0..size-1, the edge not repeated."""
    return size - 1 - tf.abs(size - 1 - tf.abs(position))


def cut_out(images: tf.Tensor, *, side: int, seed: tf.Tensor) -> tf.Tensor:
    """Blanks a square of each image, with the mean colour (DeVries and Taylor, 2017).

    Args:
        images: uint8 (batch, 32, 32, 3).
        side: of the square, in pixels; it lies within the image.
        seed: two integers; they decide where.

    Returns:
        uint8 (batch, 32, 32, 3).
    """
    height, width, _ = IMAGE_SHAPE
    shape = [2, tf.shape(images)[0], 1]
    top, left = tf.unstack(
        tf.random.stateless_uniform(shape, seed, 0, height - side + 1, tf.int32, alg=GENERATOR)
    )
    rows, columns = tf.range(height), tf.range(width)
    in_rows = (rows >= top) & (rows < top + side)  # (batch, 32)
    in_columns = (columns >= left) & (columns < left + side)
    is_cut = in_rows[:, :, None, None] & in_columns[:, None, :, None]
    return tf.where(is_cut, tf.constant(np.round(MEAN), images.dtype), images)


def resize_matrix(size: int, *, to: int) -> npt.NDArray[np.float32]:
    """Returns what shrinks a line of pixels when it is multiplied with it.

    Each new pixel is the mean of the old ones that it covers, in part or whole ("area").

    Returns:
        float32 (to, size), rows that add up to 1.
    """
    edges = np.linspace(0, size, to + 1)
    old = np.arange(size)
    covered = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return np.asarray(np.clip(covered, 0, None) * to / size, np.float32)


def resize(images: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Shrinks images by a `resize_matrix`: uint8 (batch, 32, 32, 3) to (batch, to, to, 3)."""
    rows = tf.einsum("oh,bhwc->bowc", matrix, tf.cast(images, matrix.dtype))
    shrunk = tf.einsum("ow,bhwc->bhoc", matrix, rows)
    return tf.cast(tf.round(shrunk), images.dtype)
