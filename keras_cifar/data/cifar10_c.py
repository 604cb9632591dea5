"""CIFAR-10-C, the corrupted test images of its authors, where TFDS has prepared it."""

from collections.abc import Iterable
from pathlib import Path

from keras_cifar.data.examples import Examples, checked_labels
from keras_cifar.data.tfds_folder import DAMAGED, decode, is_prepared
from keras_cifar.errors import first_line

_NAME, _VERSION = "cifar10_corrupted", "1.0.0"
# TFDS's names of two corruptions.
_TFDS_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}


def is_there(data_dir: Path) -> bool:
    """Tells whether any of it is in TFDS's data folder."""
    return (data_dir / _NAME).is_dir()


def missing_parts(data_dir: Path, parts: Iterable[tuple[str, int]]) -> list[str]:
    """Returns TFDS's names of the parts, each a corruption and a severity, that are not there."""
    folders = [_folder(data_dir, corruption, severity) for corruption, severity in parts]
    return [folder.parent.name for folder in folders if not is_prepared(folder)]


def read_part(data_dir: Path, *, corruption: str, severity: int) -> Examples:
    """Decodes the images of one corruption at one severity, in TFDS's order.

    Raises:
        OSError: a file is missing or damaged.
    """
    folder = _folder(data_dir, corruption, severity)
    try:
        images, labels = decode(folder, split="test")
        return Examples(images, checked_labels(labels))
    except (ImportError, *DAMAGED) as error:
        raise OSError(
            f"{folder}: is damaged or is not CIFAR-10-C ({first_line(error)}). "
            "Move that folder away."
        ) from error


def _folder(data_dir: Path, corruption: str, severity: int) -> Path:
    return data_dir / _NAME / f"{_TFDS_NAMES.get(corruption, corruption)}_{severity}" / _VERSION
