"""Examples in memory -> batches for training and evaluation."""

from collections.abc import Sequence

import tensorflow as tf

from keras_cifar.data.augment import random_shifts, shift_and_mirror
from keras_cifar.data.examples import Examples
from keras_cifar.data.options import without_autotune

CROP_PADDING = 4  # pixels on each side
# Batches that are made at a time, and kept ready: more than any training takes.
_PARALLEL = 2
_READY = 2


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
        positions, key = shuffled(
            step, count=len(examples.labels), batch_size=batch_size, seed=seed
        )
        return augment(tf.gather(images, positions), seed=key), tf.gather(labels, positions)

    # Deterministic by default: the batches keep their order whatever the parallelism.
    return (
        tf.data.Dataset.range(epochs.start * steps_per_epoch, epochs.stop * steps_per_epoch)
        .map(batch, num_parallel_calls=_PARALLEL)
        .prefetch(_READY)
        .with_options(without_autotune())
    )


def shuffled(
    step: tf.Tensor, *, count: int, batch_size: int, seed: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns which examples a step trains on, and the key of its randomness.

    Args:
        step: int64, counted from the run's first one.
        count: examples in all.
        batch_size: examples in a step; count // batch_size steps are an epoch.
        seed: decides the order of each epoch.

    Returns:
        Positions int64 (batch_size,), of which an epoch has none twice, and int64 (2,).
    """
    steps_per_epoch = count // batch_size
    epoch, step_of_epoch = step // steps_per_epoch, step % steps_per_epoch
    key = tf.stack([tf.constant(seed, tf.int64), epoch])
    place = step_of_epoch * batch_size + tf.range(batch_size, dtype=tf.int64)
    positions = tf.random.experimental.index_shuffle(place, key, count - 1)
    # The order took the key itself; augmentation takes another one for each batch.
    return positions, tf.random.experimental.stateless_fold_in(key, step_of_epoch)


def augment(images: tf.Tensor, *, seed: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Crops each image at random from its 4-pixel reflection padding and mirrors half of them.

    Args:
        images: uint8 (batch, 32, 32, 3).
        seed: two integers; the outcome is a pure function of them.

    Returns:
        uint8 (batch, 32, 32, 3).
    """
    count = tf.shape(images)[0]
    crop_seed, mirror_seed = tf.unstack(tf.random.experimental.stateless_split(seed))
    shifts = random_shifts(count, at_most=CROP_PADDING, seed=crop_seed)
    mirrored = tf.random.stateless_uniform([count], mirror_seed) < 0.5
    return shift_and_mirror(images, shifts=shifts, mirrored=mirrored)


def eval_batches(examples: Examples, *, batch_size: int) -> tf.data.Dataset:
    """Batches all examples in their order, the short last batch included.

    Returns:
        images uint8 (at most batch_size, 32, 32, 3), labels int64.
    """
    return (
        tf.data.Dataset.from_tensor_slices(tuple(examples))
        .batch(batch_size)
        .prefetch(_READY)
        .with_options(without_autotune())
    )
