"""A model directory as TensorFlow Serving reads it: a folder a version, its number the name."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_cifar.files import (
    lock,
    make_folder,
    open_lock,
    remove_unfinished,
    sync,
    sync_tree,
    temporary_folder,
)

# By format, the file that makes a folder a version of it.
FORMAT_FILES = {"saved_model": "saved_model.pb", "onnx": "model.onnx", "litert": "model.tflite"}
FORMATS = tuple(FORMAT_FILES)
MAX_VERSION = 2**63 - 1


def versions(model_dir: Path) -> dict[int, Path]:
    """Returns what a server takes for the versions in `model_dir`, by number, ascending.

    A number may have leading zeros. Other names, of unfinished versions too, do not count.
    """
    if not model_dir.is_dir():
        return {}
    numbers = {
        int(path.name): path
        for path in sorted(model_dir.iterdir())
        if path.name.isascii() and path.name.isdecimal() and int(path.name) <= MAX_VERSION
    }
    return dict(sorted(numbers.items()))


def version_format(version: Path) -> str | None:
    """Returns the format of a version's model; None if there is none that is known."""
    found = (name for name, file in FORMAT_FILES.items() if (version / file).is_file())
    return next(found, None)


@contextmanager
def unfinished_version(model_dir: Path) -> Iterator[Path]:
    """Gives an empty folder in `model_dir` that no server takes for a version.

    It is gone after the block, unless `publish` made it a version. What killed exports left is
    removed first, if no other export is running.

    Args:
        model_dir: made where it is missing.
    """
    make_folder(model_dir)
    with open_lock(model_dir / ".lock") as file:
        # Otherwise what is unfinished may be at work; a later export removes the rest.
        if lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            remove_unfinished(model_dir)
        lock(file, fcntl.LOCK_SH)
        with temporary_folder(model_dir) as folder:
            yield folder


def publish(folder: Path, *, number: int | None) -> Path:
    """Makes a finished folder a version, in one step: a server sees all of it or nothing.

    Args:
        folder: as `unfinished_version` gave it.
        number: of the version; None for one above the highest.

    Returns:
        MODEL_DIR/NUMBER.

    Raises:
        FileExistsError: there is a version `number` already.
    """
    sync_tree(folder)
    while True:
        refuse_existing(folder.parent, number=number)
        present = versions(folder.parent)
        chosen = max(present, default=0) + 1 if number is None else number
        if chosen > MAX_VERSION:
            raise FileExistsError(
                f"{present[MAX_VERSION]}: no number is higher. Name a free one: --version N."
            )
        target = folder.parent / str(chosen)
        try:
            folder.rename(target)
        except OSError as error:
            # Another export was quicker to take the number: the next one, or the refusal above.
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                continue
            raise
        sync(target.parent)
        return target


def refuse_existing(model_dir: Path, *, number: int | None) -> None:
    """Raises FileExistsError, before the work, as `publish` would after it."""
    present = versions(model_dir)
    if number in present:
        raise FileExistsError(
            f"{present[number]}: this version exists. "
            "Name another --version, or none for the next number."
        )


def refuse_other_formats(model_dir: Path, *, format: str) -> None:
    """Raises FileExistsError if a version has another format: no runtime could read them all."""
    for version in versions(model_dir).values():
        found = version_format(version)
        if found not in (format, None):
            raise FileExistsError(
                f"{version}: holds a model as {found}. Name another MODEL_DIR for one as {format}."
            )
