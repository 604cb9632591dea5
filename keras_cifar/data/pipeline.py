"""Examples in memory -> batches for training and evaluation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_cifar.data.augment import Part, random_shifts, shift_and_mirror
from keras_cifar.data.examples import Examples
from keras_cifar.data.options import without_autotune

CROP_PADDING = 4  # pixels on each side
# Batches that are made at a time, and kept ready: more than any training takes.
_PARALLEL = 2
_READY = 2


class Share(NamedTuple):
    """Which parts of each batch this process trains or evaluates on.

    Attributes:
        replicas: the numbers of the replicas that take the elements of its dataset in turn.
        of: replicas in all.
    """

    replicas: range = range(1)
    of: int = 1


def train_batches(
    examples: Examples, *, batch_size: int, seed: int, epochs: range, share: Share | None = None
) -> tf.data.Dataset:
    """Shuffles, augments and batches, anew in each epoch and the same for the same seed.

    Args:
        examples: n training examples.
        batch_size: examples in a batch; an epoch leaves out the last n % batch_size of its order.
        seed: with the epoch's number, fixes the order and the augmentation of that epoch.
        epochs: which epochs to give; range(3, 10) is what a run resumed after 3 epochs still needs.
        share: what to give of each batch, where several processes give the rest; None for all.

    Returns:
        images uint8 (batch_size / share.of, 32, 32, 3), labels int64, an element for each replica
        of the share.
    """
    images, labels = tf.constant(examples.images), tf.constant(examples.labels)
    steps_per_epoch = len(examples.labels) // batch_size

    share = share or Share()
    here, part_size = len(share.replicas), batch_size // share.of

    def batch(element: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        positions, key = shuffled(
            element // here, count=len(examples.labels), batch_size=batch_size, seed=seed
        )
        first = (share.replicas.start + tf.cast(element % here, tf.int32)) * part_size
        part = Part(first, of=batch_size)
        positions = part.cut(positions, count=part_size)
        augmented = augment(tf.gather(images, positions), seed=key, part=part)
        return augmented, tf.gather(labels, positions)

    # Deterministic by default: the batches keep their order whatever the parallelism.
    first, last = (epoch * steps_per_epoch * here for epoch in (epochs.start, epochs.stop))
    return (
        tf.data.Dataset.range(first, last)
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


def augment(
    images: tf.Tensor, *, seed: Sequence[int] | tf.Tensor, part: Part | None = None
) -> tf.Tensor:
    """Crops each image at random from its 4-pixel reflection padding and mirrors half of them.

    Args:
        images: uint8 (n, 32, 32, 3).
        seed: two integers; the outcome is a pure function of them.
        part: where the images are in their batch; None for a whole batch.

    Returns:
        uint8 (n, 32, 32, 3).
    """
    count = tf.shape(images)[0]
    part = part or Part(0, of=count)
    crop_seed, mirror_seed = tf.unstack(tf.random.experimental.stateless_split(seed))
    shifts = random_shifts(part.of, at_most=CROP_PADDING, seed=crop_seed)
    mirrored = tf.random.stateless_uniform([part.of], mirror_seed) < 0.5
    return shift_and_mirror(
        images, shifts=part.cut(shifts, count=count), mirrored=part.cut(mirrored, count=count)
    )


def eval_batches(
    examples: Examples, *, batch_size: int, share: Share | None = None
) -> tf.data.Dataset:
    """Batches all examples in their order, the short last batch included.

    Args:
        examples: at least as many as there are replicas.
        batch_size: examples in a batch.
        share: which of the batches to give, where several processes give the rest; None for all.
            Each replica has as many of them, of as many examples, but for one.

    Returns:
        images uint8 (at most batch_size, 32, 32, 3), labels int64.
    """
    if share:
        return _even_batches(examples, batch_size=batch_size, share=share)
    return (
        tf.data.Dataset.from_tensor_slices(tuple(examples))
        .batch(batch_size)
        .prefetch(_READY)
        .with_options(without_autotune())
    )


def _even_batches(examples: Examples, *, batch_size: int, share: Share) -> tf.data.Dataset:
    images, labels = tf.constant(examples.images), tf.constant(examples.labels)
    rounds = -(-len(examples.labels) // (batch_size * share.of))
    bounds = np.linspace(0, len(examples.labels), rounds * share.of + 1).astype(int)
    mine = [turn * share.of + replica for turn in range(rounds) for replica in share.replicas]
    return (
        tf.data.Dataset.from_tensor_slices((bounds[mine], bounds[1:][mine]))
        .map(lambda first, last: (images[first:last], labels[first:last]))
        .prefetch(_READY)
        .with_options(without_autotune())
    )
