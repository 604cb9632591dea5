"""Corruptions by weather: something is between the camera and the thing."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

from keras_cifar.cifar10 import IMAGE_SHAPE
from keras_cifar.measure.corruptions.blur import magnified, streaked
from keras_cifar.measure.corruptions.image_batches import Images, drawn

_SIZE = IMAGE_SHAPE[0]
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
# Of the five photographs of the authors, reduced to a fifth as they do: the mean of a picture of
# 32x32, and how far a pixel is from it. Red, green and blue of ice.
_FROST_BRIGHTNESS = (0.4, 0.8)
_FROST_CONTRAST = 0.3
_FROST_COLOUR = (0.86, 1.02, 1.12)


class Snow(NamedTuple):
    """How it snows.

    Attributes:
        mean: of the normal distribution of which flakes are the highest values.
        deviation: of that distribution.
        magnification: of the flakes.
        threshold: above which there is a flake.
        radius: of its streak, in pixels.
        sigma: of its streak, in pixels.
        kept: share of the image's own colour; the rest is whitened.
    """

    mean: float
    deviation: float
    magnification: float
    threshold: float
    radius: int
    sigma: float
    kept: float


def snow(images: Images, level: Snow, randoms: Sequence[np.random.RandomState]) -> Images:
    """Whitens the image, and lets flakes fall along two lines."""
    noise = drawn(randoms, lambda random: random.normal(size=(_SIZE, _SIZE, 1)))
    flakes = magnified(level.mean + level.deviation * noise, level.magnification)
    flakes = np.clip(np.where(flakes < level.threshold, 0, flakes), 0, 1)
    angles = drawn(randoms, lambda random: random.uniform(-135, -45))
    flakes = streaked(flakes, radius=level.radius, sigma=level.sigma, angles=angles)
    grey = (images @ np.array(_LUMA))[..., None]
    whitened = np.maximum(images, grey * 1.5 + 0.5)
    image = level.kept * images + (1 - level.kept) * whitened
    return np.asarray(image + flakes + np.rot90(flakes, k=2, axes=(1, 2)))


def frost(
    images: Images, level: tuple[float, float], randoms: Sequence[np.random.RandomState]
) -> Images:
    """Covers the image with ice.

    The authors take photographs of ice. Here it is drawn, with their brightness and colour.

    Args:
        images: to cover.
        level: share of the image, share of the ice.
        randoms: one for each image.
    """
    brightness = drawn(randoms, lambda random: random.uniform(*_FROST_BRIGHTNESS))
    ice = _plasma(randoms, decay=1.2)
    ice -= ice.mean(axis=(1, 2), keepdims=True)
    ice = brightness[:, None, None] + _FROST_CONTRAST * ice
    of_image, of_ice = level
    return np.asarray(of_image * images + of_ice * ice[..., None] * np.array(_FROST_COLOUR))


def fog(
    images: Images, level: tuple[float, float], randoms: Sequence[np.random.RandomState]
) -> Images:
    """Adds clouds, and darkens all so that the brightest stays as bright.

    Args:
        images: to cover.
        level: weight of the clouds, by how much smaller clouds are weaker.
        randoms: one for each image.
    """
    weight, decay = level
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    clouded = images + weight * _plasma(randoms, decay=decay)[..., None]
    return np.asarray(clouded * brightest / (brightest + weight))


def _plasma(randoms: Sequence[np.random.RandomState], *, decay: float) -> npt.NDArray[np.float64]:
    """Draws clouds by the diamond-square algorithm, whose edges meet: (n, 32, 32), 0..1."""
    noise = drawn(randoms, lambda random: random.uniform(-1, 1, size=(_SIZE, _SIZE)))
    heights = np.zeros_like(noise)
    step, weight = _SIZE, 100.0**2
    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        centres = (pairs + np.roll(pairs, -1, axis=2)) / 4
        centres = centres + weight * noise[:, half::step, half::step]
        heights[:, half::step, half::step] = centres
        beside = pairs + centres + np.roll(centres, 1, axis=2)
        above = corners + np.roll(corners, -1, axis=2) + centres + np.roll(centres, 1, axis=1)
        heights[:, half::step, ::step] = beside / 4 + weight * noise[:, half::step, ::step]
        heights[:, ::step, half::step] = above / 4 + weight * noise[:, ::step, half::step]
        step, weight = half, weight / decay**2
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return np.asarray(heights / heights.max(axis=(1, 2), keepdims=True))


def brightness(images: Images, more: float, _: Sequence[np.random.RandomState]) -> Images:
    """Adds light: to the value of hue, saturation and value."""
    hsv = rgb_to_hsv(images)
    hsv[..., 2] = np.clip(hsv[..., 2] + more, 0, 1)
    return np.asarray(hsv_to_rgb(hsv))
