"""Corruptions by noise: each pixel goes wrong on its own."""

from collections.abc import Sequence

import numpy as np

from keras_cifar.cifar10 import IMAGE_SHAPE
from keras_cifar.measure.corruptions.image_batches import Images, drawn


def gaussian_noise(
    images: Images, deviation: float, randoms: Sequence[np.random.RandomState]
) -> Images:
    """Adds noise of a normal distribution, as in the dark."""
    return images + deviation * drawn(randoms, lambda random: random.normal(size=IMAGE_SHAPE))


def shot_noise(images: Images, photons: int, randoms: Sequence[np.random.RandomState]) -> Images:
    """Counts light as single photons, `photons` of them in a white pixel."""
    counts = [
        random.poisson(image * photons) for image, random in zip(images, randoms, strict=True)
    ]
    return np.stack(counts) / photons


def impulse_noise(images: Images, share: float, randoms: Sequence[np.random.RandomState]) -> Images:
    """Sets a share of the values to 0 or 1, as bit errors do: salt and pepper in colour."""
    chances = drawn(randoms, lambda random: random.uniform(size=IMAGE_SHAPE))
    return np.where(chances < share / 2, 0, np.where(chances > 1 - share / 2, 1, images))
