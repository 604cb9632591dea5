"""Corruptions by processing: contrast, form, resolution and compression."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from keras_cifar.cifar10 import IMAGE_SHAPE
from keras_cifar.measure.corruptions.image_batches import Images, drawn

_SIZE = IMAGE_SHAPE[0]
# A triangle about the middle, whose corners are moved: (x, y) in pixels.
_TRIANGLE = np.array([[26.0, 26.0], [26.0, 6.0], [6.0, 6.0]])


def contrast(images: Images, share: float, _: Sequence[np.random.RandomState]) -> Images:
    """Keeps a share of each pixel's distance from the mean of its channel."""
    means = images.mean(axis=(1, 2), keepdims=True)
    return np.asarray((images - means) * share + means)


def elastic_transform(
    images: Images, level: tuple[float, float, float], randoms: Sequence[np.random.RandomState]
) -> Images:
    """Shears the image as a whole, then stretches it here and there.

    Args:
        images: to transform.
        level: in pixels: how strongly places are moved, over what distance that changes, and how
            far the corners of a triangle are moved at most.
        randoms: one for each image.
    """
    strength, sigma, jitter = level
    moved = _TRIANGLE + drawn(randoms, lambda random: random.uniform(-jitter, jitter, (3, 2)))
    # Where the moved corners came from tells where each pixel came from.
    origins = np.linalg.inv(np.insert(moved, 2, 1, axis=2)) @ np.insert(_TRIANGLE, 2, 1, axis=1)
    y, x = np.indices((_SIZE, _SIZE), dtype=np.float64)
    sources = np.stack([x, y, np.ones_like(x)], axis=2) @ origins[:, None]
    images = _sampled(images, x=sources[..., 0], y=sources[..., 1], mode="mirror")
    if not strength:
        return images
    shifts = drawn(randoms, lambda random: random.uniform(-1, 1, size=(2, _SIZE, _SIZE)))
    shifts = strength * ndimage.gaussian_filter(shifts, (0, 0, sigma, sigma), truncate=3)
    return _sampled(images, x=x + shifts[:, 0], y=y + shifts[:, 1], mode="reflect")


def _sampled(
    images: Images, *, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], mode: str
) -> Images:
    """Interpolates images at places (n, 32, 32)."""
    channels = [
        [
            ndimage.map_coordinates(image[..., channel], places, order=1, mode=mode)
            for channel in range(image.shape[2])
        ]
        for image, places in zip(images, np.stack([y, x], axis=1), strict=True)
    ]
    return np.moveaxis(np.array(channels), 1, 3)


def pixelate(images: Images, share: float, _: Sequence[np.random.RandomState]) -> Images:
    """Reduces width and height to a share, and enlarges that again."""
    size = int(_SIZE * share)

    def reduce_and_enlarge(image: Image.Image) -> Image.Image:
        small = image.resize((size, size), Image.Resampling.BOX)
        return small.resize((_SIZE, _SIZE), Image.Resampling.BOX)

    return _through_pillow(images, reduce_and_enlarge)


def jpeg_compression(images: Images, quality: int, _: Sequence[np.random.RandomState]) -> Images:
    """Saves the image as JPEG and reads that."""

    def compress(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _through_pillow(images, compress)


def _through_pillow(images: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    pixels = np.rint(images * 255).astype(np.uint8)
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in pixels]) / 255
