"""The usual 15 corruptions at 5 severities, of images of 32x32.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations (2019), arXiv 1903.12261, figure 1. The severities are those of CIFAR-10-C, from the
authors' make_cifar_c.py: those of ImageNet-C, which libraries have, are for images seven times as
wide. The images are not those of CIFAR-10-C: other random numbers, drawn frost, and rounding where
the authors cut off.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_cifar.measure.corruptions import blur, digital, noise, weather
from keras_cifar.measure.corruptions.image_batches import Images
from keras_cifar.measure.corruptions.weather import Snow

SEVERITIES = (1, 2, 3, 4, 5)


class Corruption(NamedTuple):
    """A way to corrupt images.

    Attributes:
        apply: images, level and a randomness for each image -> images, not clipped.
        levels: of severity 1 to 5.
    """

    apply: Callable[[Images, Any, Sequence[np.random.RandomState]], Images]
    levels: tuple[Any, Any, Any, Any, Any]


CORRUPTIONS = {
    "gaussian_noise": Corruption(noise.gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": Corruption(noise.shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": Corruption(noise.impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": Corruption(
        blur.defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
    ),
    "glass_blur": Corruption(
        blur.glass_blur, ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))
    ),
    "motion_blur": Corruption(blur.motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": Corruption(blur.zoom_blur, (1.05, 1.10, 1.15, 1.20, 1.25)),
    "snow": Corruption(
        weather.snow,
        (
            Snow(0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            Snow(0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            Snow(0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            Snow(0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            Snow(0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": Corruption(weather.frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": Corruption(weather.fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": Corruption(weather.brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption(digital.contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": Corruption(
        digital.elastic_transform,
        (
            (0, 0, 2.56),
            (1.6, 6.4, 2.24),
            (2.56, 1.92, 1.92),
            (3.2, 1.28, 1.6),
            (3.2, 0.96, 0.96),
        ),
    ),
    "pixelate": Corruption(digital.pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": Corruption(digital.jpeg_compression, (80, 65, 58, 50, 40)),
}


def corrupt(
    images: npt.NDArray[np.uint8],
    *,
    corruption: str,
    severity: int,
    seed: int,
    numbers: npt.NDArray[np.int64],
) -> npt.NDArray[np.uint8]:
    """Corrupts images; what becomes of one does not depend on the others.

    Args:
        images: uint8 (n, 32, 32, 3).
        corruption: a name of `CORRUPTIONS`.
        severity: 1..5.
        seed: with the corruption and the image's number, decides about chance; the severity does
            not, so that an image meets more of the same.
        numbers: (n,), of the images in their split.

    Returns:
        uint8 (n, 32, 32, 3).
    """
    apply, levels = CORRUPTIONS[corruption]
    position = list(CORRUPTIONS).index(corruption)
    # RandomState's stream is frozen for good (NEP 19); Generator's may change with NumPy.
    randoms = [np.random.RandomState([seed, position, number]) for number in numbers.tolist()]
    corrupted = apply(images / 255, levels[severity - 1], randoms)
    return np.rint(np.clip(corrupted, 0, 1) * 255).astype(np.uint8)
