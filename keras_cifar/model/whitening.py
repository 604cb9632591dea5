"""The first layer of the fast networks: filters that whiten small patches of the images."""

import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import MEAN, STANDARD_DEVIATION

PATCH_SIZE = 2
# As many images tell the statistics of their patches well enough (airbench94.py).
WHITENING_IMAGES = 5000


def whitening_filters(
    images: npt.NDArray[np.uint8], *, epsilon: float = 5e-4
) -> npt.NDArray[np.float32]:
    """Returns filters that make the entries of 2x2 patches uncorrelated, and their negatives.

    Each is an eigenvector of the patches' second moments, divided by the root of its eigenvalue.
    With the negatives, a rectifier behind them loses nothing (the paper, section 3.1).

    Args:
        images: uint8 (n, 32, 32, 3), as they come.
        epsilon: added to the variances, so that directions that hardly vary are not blown up
            (airbench94.py).

    Returns:
        float32 (2, 2, 3, 24): a kernel for images that are normalised to mean 0 and deviation 1.
    """
    normalised = (images - np.array(MEAN)) / np.array(STANDARD_DEVIATION)
    window = (PATCH_SIZE, PATCH_SIZE)
    patches = np.lib.stride_tricks.sliding_window_view(normalised, window, axis=(1, 2))
    # In rows, their entries in a kernel's order.
    patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, PATCH_SIZE**2 * images.shape[-1])
    second_moments = patches.T @ patches / len(patches)  # (12, 12), not centred
    variances, directions = np.linalg.eigh(second_moments)
    filters = directions / np.sqrt(variances + epsilon)  # one a column
    kernel = np.concatenate([filters, -filters], axis=1)
    return kernel.reshape(PATCH_SIZE, PATCH_SIZE, images.shape[-1], -1).astype(np.float32)
