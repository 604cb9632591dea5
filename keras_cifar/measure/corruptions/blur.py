"""Corruptions by blur: light lands beside its place."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from keras_cifar.cifar10 import IMAGE_SHAPE
from keras_cifar.measure.corruptions.image_batches import Images, drawn

_SIZE = IMAGE_SHAPE[0]
_KERNEL_RADIUS = 3  # pixels; holds each disk of `defocus_blur` and its soft edge


def defocus_blur(
    images: Images, level: tuple[float, float], _: Sequence[np.random.RandomState]
) -> Images:
    """Spreads each point over a disk, whose edge is softened.

    Args:
        images: to blur.
        level: radius of the disk in pixels, standard deviation of the softening.
    """
    radius, softening = level
    x, y = np.mgrid[-_KERNEL_RADIUS : _KERNEL_RADIUS + 1, -_KERNEL_RADIUS : _KERNEL_RADIUS + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.float64)
    kernel = ndimage.gaussian_filter(disk / disk.sum(), softening, radius=1)
    return np.asarray(ndimage.convolve(images, kernel[None, :, :, None], mode="mirror"))


def glass_blur(
    images: Images, level: tuple[float, int], randoms: Sequence[np.random.RandomState]
) -> Images:
    """Looks through frosted glass: blurs, mixes near pixels, and blurs again.

    Args:
        images: to blur.
        level: standard deviation of the blur in pixels, how many times the pixels are mixed.
        randoms: one for each image.
    """
    sigma, times = level
    images = _gaussian_blur(images, sigma)
    numbers = np.arange(len(images))[:, None, None]
    rows, columns = np.indices((_SIZE, _SIZE))
    for _ in range(times):
        # In the authors' code, a pixel takes the value of a neighbour above or to the left: of
        # the swap that it spells, NumPy's views make a copy.
        steps = drawn(randoms, lambda random: random.randint(-1, 1, size=(2, _SIZE, _SIZE)))
        steps[:, :, :2] = steps[:, :, :, :2] = 0
        images = images[numbers, rows + steps[:, 0], columns + steps[:, 1]]
    return _gaussian_blur(images, sigma)


def _gaussian_blur(images: Images, sigma: float) -> Images:
    return np.asarray(ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest"))


def motion_blur(
    images: Images, level: tuple[int, float], randoms: Sequence[np.random.RandomState]
) -> Images:
    """Moves the camera, within 45 degrees of the horizontal.

    Args:
        images: to blur.
        level: radius and standard deviation in pixels, as `streaked` takes them.
        randoms: one for each image.
    """
    radius, sigma = level
    angles = drawn(randoms, lambda random: random.uniform(-45, 45))
    return streaked(images, radius=radius, sigma=sigma, angles=angles)


def streaked(
    images: Images, *, radius: int, sigma: float, angles: npt.NDArray[np.float64]
) -> Images:
    """Blurs along a line, to one side, as MotionBlurImage of ImageMagick does.

    Args:
        images: (n, 32, 32, channels).
        radius: pixels; the line has 2 * radius + 1.
        sigma: standard deviation in pixels of the weights, which fall off from the line's start.
        angles: (n,), in degrees; 0 is to the right, 90 down.
    """
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    down, right = np.sin(np.radians(angles)), np.cos(np.radians(angles))
    numbers, places = np.arange(len(images))[:, None, None], np.arange(_SIZE)
    blurred = np.zeros_like(images)
    for step, weight in enumerate(weights / weights.sum()):
        rows, columns = (
            np.clip(places + np.ceil(step * side - 0.5).astype(int)[:, None], 0, _SIZE - 1)
            for side in (down, right)
        )
        blurred += weight * images[numbers, rows[:, :, None], columns[:, None, :]]
    return blurred


def zoom_blur(images: Images, most: float, _: Sequence[np.random.RandomState]) -> Images:
    """Moves the camera towards the middle: the mean of the image magnified by 1, 1.01, ... `most`.

    The image as it is counts once more.
    """
    factors = np.arange(1, most + 0.005, 0.01)
    total = sum((magnified(images, float(factor)) for factor in factors), images)
    return np.asarray(total / (len(factors) + 1))


def magnified(images: Images, factor: float) -> Images:
    """Returns the middle of images (n, 32, 32, channels), interpolated to their size."""
    kept = int(np.ceil(_SIZE / factor))
    first = (_SIZE - kept) // 2
    # Each row of the result is a weighted mean of rows, and each column of columns, of the same
    # weights: those that SciPy gives the identity.
    weights = ndimage.zoom(np.eye(_SIZE)[first : first + kept], (factor, 1), order=1)
    surplus = (len(weights) - _SIZE) // 2
    weights = weights[surplus : surplus + _SIZE]
    channels_first = np.moveaxis(images, 3, 1)
    return np.moveaxis(weights @ channels_first @ weights.T, 1, 3)
