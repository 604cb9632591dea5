"""Examples in memory: images with their labels, in an order that only their content decides."""

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import NUM_CLASSES, SplitFacts


class Examples(NamedTuple):
    """Images and their labels.

    Attributes:
        images: uint8 (n, 32, 32, 3), red-green-blue.
        labels: int64 (n,), 0..9.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def take(self, positions: npt.NDArray[np.int64]) -> "Examples":
        """Returns the examples at `positions`, int64 (m,), in that order."""
        return Examples(self.images[positions], self.labels[positions])


class Splits(NamedTuple):
    """Both splits of a dataset."""

    train: Examples
    test: Examples


def example_digests(examples: Examples) -> npt.NDArray[np.bytes_]:
    """Returns the SHA-256 of each example's label byte and pixels: bytes, void32 (n,)."""
    digests = b"".join(
        hashlib.sha256(bytes([label]) + image.tobytes()).digest()
        for image, label in zip(examples.images, examples.labels, strict=True)
    )
    return np.frombuffer(digests, dtype="V32")


def in_canonical_order(examples: Examples) -> tuple[Examples, str]:
    """Sorts examples by the digest of their content, which mixes the classes.

    Copies of CIFAR-10 hold the same examples in different orders (TFDS shuffles, the Parquet
    files have another order than the original archive). Sorted, they are all the same.

    Returns:
        The examples sorted, and the SHA-256 of all sorted digests: equal for equal content.
    """
    digests = example_digests(examples)
    order = np.argsort(digests)
    return examples.take(order), hashlib.sha256(digests[order].tobytes()).hexdigest()


def checked_labels(labels: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """Returns labels of any integer type as int64; raises ValueError if one is not in 0..9."""
    if labels.dtype.kind not in "iu" or not np.isin(labels, range(NUM_CLASSES)).all():
        raise ValueError(f"its labels are not all 0 to {NUM_CLASSES - 1}")
    return labels.astype(np.int64)


def check(examples: Examples, digest: str, *, facts: SplitFacts) -> None:
    """Raises ValueError unless number, classes and content are those of `facts`."""
    per_class = np.bincount(examples.labels, minlength=NUM_CLASSES).tolist()
    expected = [facts.examples // NUM_CLASSES] * NUM_CLASSES
    if per_class != expected:
        raise ValueError(f"got {per_class} examples of the classes, expected {expected}")
    if digest != facts.sha256:
        raise ValueError(f"got content with SHA-256 {digest}, expected {facts.sha256}")
