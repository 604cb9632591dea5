"""Examples in memory -> batches for training and evaluation."""

from collections.abc import Sequence

import tensorflow as tf

from keras_cifar.cifar10 import IMAGE_SHAPE
from keras_cifar.data.examples import Examples

CROP_PADDING = 4  # pixels on each side


def train_batches(
    examples: Examples, *, batch_size: int, seed: int, epochs: range
) -> tf.data.Dataset:
    """Shuffles, augments and batches, anew in each epoch and the same for the same seed.

    Args:
        examples: n training examples.
        batch_size: examples in a batch; an epoch leaves out the last n % batch_size of its order.
        seed: with the epoch's number, fixes the order and the augmentation of that epoch.
        epochs: which epochs to give; range(3, 10) is what a run resumed after 3 epochs still needs.

    Returns:
        images uint8 (batch_size, 32, 32, 3), labels int64 (batch_size,).
    """
    images, labels = tf.constant(examples.images), tf.constant(examples.labels)
    steps_per_epoch = len(examples.labels) // batch_size

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, step_of_epoch = step // steps_per_epoch, step % steps_per_epoch
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        position = step_of_epoch * batch_size + tf.range(batch_size, dtype=tf.int64)
        index = tf.random.experimental.index_shuffle(position, key, len(examples.labels) - 1)
        # The order took the key itself; augmentation takes another one for each batch.
        batch_key = tf.random.experimental.stateless_fold_in(key, step_of_epoch)
        return augment(tf.gather(images, index), seed=batch_key), tf.gather(labels, index)

    # Deterministic by default: the batches keep their order whatever the parallelism.
    return (
        tf.data.Dataset.range(epochs.start * steps_per_epoch, epochs.stop * steps_per_epoch)
        .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def augment(images: tf.Tensor, *, seed: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Crops each image at random from its 4-pixel reflection padding and mirrors half of them.

    One gather does both: it reads each output pixel from where crop and mirroring put it, so no
    padded copy is made.

    Args:
        images: uint8 (batch, 32, 32, 3).
        seed: two integers; the outcome is a pure function of them.

    Returns:
        uint8 (batch, 32, 32, 3).
    """
    height, width, channels = IMAGE_SHAPE
    count = tf.shape(images)[0]
    crop_seed, mirror_seed = tf.unstack(tf.random.experimental.stateless_split(seed))
    offset = tf.random.stateless_uniform(
        [2, count, 1], crop_seed, -CROP_PADDING, CROP_PADDING + 1, dtype=tf.int32
    )
    mirrored = tf.random.stateless_uniform([count, 1], mirror_seed) < 0.5
    rows = _reflect(tf.range(height) + offset[0], size=height)
    columns = _reflect(tf.range(width) + offset[1], size=width)
    columns = tf.where(mirrored, columns[:, ::-1], columns)
    first_row = tf.range(count)[:, None] * height
    pixel = (first_row + rows)[:, :, None] * width + columns[:, None, :]  # (batch, 32, 32)
    return tf.gather(tf.reshape(images, [-1, channels]), pixel)


def _reflect(position: tf.Tensor, *, size: int) -> tf.Tensor:
    """Folds positions in (-size, 2 * size - 1) back into 0..size-1, the edge not repeated."""
    return size - 1 - tf.abs(size - 1 - tf.abs(position))


def eval_batches(examples: Examples, *, batch_size: int) -> tf.data.Dataset:
    """Batches all examples in their order, the short last batch included.

    Returns:
        images uint8 (at most batch_size, 32, 32, 3), labels int64.
    """
    return (
        tf.data.Dataset.from_tensor_slices(tuple(examples))
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )
