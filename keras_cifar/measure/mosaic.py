"""Many images -> one."""

import math

import numpy as np
import numpy.typing as npt

GAP = 2  # pixels between two images
_WHITE = 255


def mosaic(
    images: npt.NDArray[np.uint8], *, columns: int, gap: int = GAP, background: int = _WHITE
) -> npt.NDArray[np.uint8]:
    """Puts images into rows, with a grey or white where there is none.

    Args:
        images: uint8 (n, height, width, 3), n at least 1.
        columns: images in a row.
        gap: pixels between two images.
        background: 0 for black to 255 for white.

    Returns:
        uint8 (rows * (height + gap) - gap, columns * (width + gap) - gap, 3).
    """
    rows = math.ceil(len(images) / columns)
    missing = rows * columns - len(images)
    border = ((0, missing), (0, gap), (0, gap), (0, 0))
    _, height, width, channels = images.shape
    cells = np.pad(images, border, constant_values=background)
    cells = cells.reshape(rows, columns, height + gap, width + gap, channels)
    sheet = cells.transpose(0, 2, 1, 3, 4).reshape(rows * (height + gap), -1, channels)
    return np.asarray(sheet[: len(sheet) - gap, : sheet.shape[1] - gap])
