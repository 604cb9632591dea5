"""Where corrupted images come from: CIFAR-10-C, or computed here."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import click
import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import NUM_CLASSES
from keras_cifar.data.cifar10_c import is_there, missing_parts, read_part
from keras_cifar.data.examples import Examples
from keras_cifar.measure.corruptions import CORRUPTIONS, SEVERITIES, corrupt

PARTS = [(corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES]
_LIBRARIES = {"NumPy": "numpy", "SciPy": "scipy", "Pillow": "pillow", "matplotlib": "matplotlib"}
_BATCH_SIZE = 250  # images that are corrupted at a time: their numbers are floats, 24 kB an image
_MISSING_SHOWN = 5


class Source(NamedTuple):
    """Corrupted images.

    Attributes:
        name: what they are, in words.
        kind: whether they were computed here or are those of CIFAR-10-C.
        seed: of what was computed.
        versions: of the libraries that computed, by name.
        part: gives the examples of a corruption and a severity; those of all parts show the same
            things in the same order.
    """

    name: str
    kind: Literal["computed", "CIFAR-10-C"]
    seed: int | None
    versions: dict[str, str]
    part: Callable[[str, int], Examples]


def chosen(labels: npt.NDArray[np.int64], count: int | None) -> npt.NDArray[np.int64]:
    """Returns the first positions of each class, as many of each as possible, in ascending order.

    Args:
        labels: (n,).
        count: of positions; None for all.

    Raises:
        ValueError: not in 1..n.
    """
    if count is None:
        return np.arange(len(labels))
    if not 1 <= count <= len(labels):
        raise ValueError(f"corruption_images: got {count}, expected 1 to {len(labels):,}.")
    rank = np.zeros_like(labels)
    for label in range(NUM_CLASSES):
        rank[labels == label] = np.arange((labels == label).sum())
    return np.sort(np.argsort(rank, kind="stable")[:count])


def computed(examples: Examples, *, count: int | None, seed: int) -> Source:
    """Corrupts `count` of these examples, as `chosen` takes them, when a part is asked for."""
    versions = {name: importlib.metadata.version(package) for name, package in _LIBRARIES.items()}
    positions = chosen(examples.labels, count)

    def part(corruption: str, severity: int) -> Examples:
        images = [
            corrupt(
                examples.images[numbers],
                corruption=corruption,
                severity=severity,
                seed=seed,
                numbers=numbers,
            )
            for numbers in np.split(positions, range(_BATCH_SIZE, len(positions), _BATCH_SIZE))
        ]
        return Examples(np.concatenate(images), examples.labels[positions])

    by = f"SciPy {versions['SciPy']} and Pillow {versions['Pillow']}"
    name = f"15 corruptions, computed here with {by}, seed {seed}; not CIFAR-10-C"
    return Source(name, "computed", seed, versions, part)


def published(data_dir: Path, *, count: int | None) -> Source | None:
    """Returns CIFAR-10-C of a TFDS data folder, `count` images of each part; None if not whole.

    It says on stderr which parts are missing.
    """
    if not is_there(data_dir):
        return None
    missing = missing_parts(data_dir, PARTS)
    if missing:
        names = ", ".join(missing[:_MISSING_SHOWN])
        more = ", ..." if len(missing) > _MISSING_SHOWN else ""
        click.echo(
            f"{data_dir}: CIFAR-10-C lacks {len(missing)} of {len(PARTS)} parts ({names}{more}); "
            "the corruptions are computed instead.",
            err=True,
        )
        return None
    labels = read_part(data_dir, corruption=PARTS[0][0], severity=PARTS[0][1]).labels
    positions = chosen(labels, count)

    def part(corruption: str, severity: int) -> Examples:
        examples = read_part(data_dir, corruption=corruption, severity=severity)
        if not np.array_equal(examples.labels, labels):
            raise OSError(
                f"{data_dir}: CIFAR-10-C's {corruption}_{severity} has its images in another order "
                "than the first part. Prepare all parts with one version of TFDS."
            )
        return examples.take(positions)

    return Source("CIFAR-10-C", "CIFAR-10-C", None, {}, part)
