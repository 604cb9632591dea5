"""Batches that are made where the model trains: the host only tells which images come next."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_cifar.cifar10 import IMAGE_SHAPE
from keras_cifar.data.augment import (
    GENERATOR,
    Part,
    cut_out,
    random_shifts,
    resize,
    resize_matrix,
    shift_and_mirror,
)
from keras_cifar.data.examples import Examples
from keras_cifar.data.options import without_autotune
from keras_cifar.data.pipeline import shuffled


def mirror_half(images: npt.NDArray[np.uint8], *, seed: int) -> npt.NDArray[np.uint8]:
    """Returns a copy in which half of the images, chosen at random, are mirrored.

    From then on all are mirrored in every second epoch ("alternating flip", the paper, section
    3.6): in two successive epochs each image is seen both ways, which chance would do for half.
    """
    mirrored = np.random.RandomState(seed).permutation(len(images)) < len(images) // 2
    images = images.copy()
    images[mirrored] = images[mirrored, :, ::-1]
    return images


def plan_steps(
    count: int,
    *,
    batch_size: int,
    seed: int,
    epochs: range,
    sizes: Sequence[int],
    copies: int = 1,
) -> tf.data.Dataset:
    """Tells for each step what `make_batch` needs, the same for the same seed.

    Args:
        count: training examples.
        batch_size: examples in a step; an epoch leaves out the last count % batch_size of its
            order.
        seed: with the epoch's number, fixes the order and the augmentation of that epoch.
        epochs: which epochs to give.
        sizes: side of the images in each epoch of the run, in pixels.
        copies: of each plan, one after the other: one for each replica that takes from here.

    Returns:
        positions int64 (batch_size,); key int64 (2,); mirrored bool (); resize float32 (side, 32).
    """

    def plan_epoch(epoch: int) -> tf.data.Dataset:
        matrix = tf.constant(resize_matrix(IMAGE_SHAPE[0], to=sizes[epoch]))

        def plan(step: tf.Tensor) -> dict[str, tf.Tensor]:
            positions, key = shuffled(step, count=count, batch_size=batch_size, seed=seed)
            mirrored = tf.constant(epoch % 2 == 1)
            return {"positions": positions, "key": key, "mirrored": mirrored, "resize": matrix}

        first = epoch * steps_per_epoch
        last = first + steps_per_epoch
        return tf.data.Dataset.range(first * copies, last * copies).map(
            lambda element: plan(element // copies)
        )

    steps_per_epoch = count // batch_size
    # A run that was killed after its last epoch has none left.
    none = plan_epoch(0).take(0)
    plans = reduce(tf.data.Dataset.concatenate, map(plan_epoch, epochs), none)
    return plans.prefetch(2).with_options(without_autotune())


def make_batch(
    plan: dict[str, tf.Tensor],
    examples: Examples,
    *,
    shift: int,
    cutout: int,
    part: Part | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gathers and augments the images of a step.

    Args:
        plan: an element of `plan_steps`, perhaps with fewer positions.
        examples: tensors on the device, the images as `mirror_half` gives them.
        shift: pixels by which an image is moved at most.
        cutout: side of the square that is blanked, in pixels; 0 for none.
        part: where the positions are in their step, if others train on the rest, without cutout.

    Returns:
        images uint8 (batch, side, side, 3), labels int64 (batch,).
    """
    images = tf.gather(examples.images, plan["positions"])
    shift_key, cutout_key = tf.unstack(
        tf.random.experimental.stateless_split(plan["key"], alg=GENERATOR)
    )
    count = tf.shape(images)[0]
    part = part or Part(0, of=count)
    images = shift_and_mirror(
        images,
        shifts=part.cut(random_shifts(part.of, at_most=shift, seed=shift_key), count=count),
        mirrored=tf.fill([count], plan["mirrored"]),
    )
    if cutout:
        images = cut_out(images, side=cutout, seed=cutout_key)
    return resize(images, plan["resize"]), tf.gather(examples.labels, plan["positions"])
