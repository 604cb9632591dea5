"""Batches of images in which each image has a randomness of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# float64 (n, 32, 32, channels), 0 for black and 1 for white.
Images = npt.NDArray[np.float64]


def drawn(
    randoms: Sequence[np.random.RandomState], draw: Callable[[np.random.RandomState], Any]
) -> npt.NDArray[Any]:
    """Returns what `draw` takes from each image's randomness, one row an image."""
    return np.stack([draw(random) for random in randoms])
