"""Folders and lists -> the image files in them."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from keras_cifar.client.answers import Failure
from keras_cifar.image.header import FORMATS
from keras_cifar.model_dir import version_format, versions
from keras_cifar.run_dir import RunDir

# Of what a person calls a picture. Those that cannot be read are to be named, not passed over.
_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp"),
    *(".avif", ".heic", ".heif", ".jp2", ".jxl", ".tif", ".tiff"),
}
_CHUNK_BYTES = 1 << 16


def find_images(paths: Iterable[Path]) -> Iterator[Path | Failure]:
    """Puts in the place of a folder the images in it and in its subfolders.

    Images are known by their suffixes. What is hidden (a name that begins with a dot) and
    folders that are linked to are left out.

    Yields:
        The paths of files; why there are none for a folder that cannot be read, has no images,
        or is a model.
    """
    for path in paths:
        if _is_model(path):
            yield Failure(path, f"is a model, not a picture. To ask it: --model {path}")
        elif _is_folder(path):
            yield from _images_in(path)
        else:
            yield path


def _is_folder(path: Path) -> bool:
    with suppress(OSError, ValueError):  # reading it will say why
        return path.is_dir()
    return False


def _is_model(path: Path) -> bool:
    with suppress(OSError, ValueError):
        folders = [path, *versions(path).values()]
        is_saved = any(map(version_format, folders)) or RunDir(path).model.is_file()
        return is_saved or path.suffix == ".keras"
    return False


def _images_in(folder: Path) -> Iterator[Path | Failure]:
    unreadable: list[OSError] = []
    is_empty = True
    for parent, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if path.suffix.lower() in _SUFFIXES and not name.startswith("."):
                is_empty = False
                yield Failure(path, "is no file") if _is_special(path) else path
    for error in unreadable:
        yield Failure(Path(error.filename), error.strerror or str(error))
    if is_empty and not unreadable:
        yield Failure(folder, f"no pictures in this folder; expected {', '.join(FORMATS)}")


def _is_special(path: Path) -> bool:
    """Tells whether it is a pipe, say, which to read could take for ever."""
    with suppress(OSError):  # reading it will say why
        return not stat.S_ISREG(path.stat().st_mode)
    return False


def read_list(file: BufferedReader) -> Iterator[Path]:
    """Yields the paths of a list as it comes in: one a line, or separated by NUL.

    No path has a NUL in it, so one in what comes first tells which.
    """
    is_lines = b"\0" not in file.peek(_CHUNK_BYTES)
    separator, ignored = (b"\n", b"\r") if is_lines else (b"\0", b"")
    rest = b""
    while chunk := file.read1(_CHUNK_BYTES):
        *names, rest = (rest + chunk).split(separator)
        yield from _paths(names, ignored=ignored)
    yield from _paths([rest], ignored=ignored)


def _paths(names: Iterable[bytes], *, ignored: bytes) -> Iterator[Path]:
    for name in names:
        if kept := name.removesuffix(ignored):
            yield Path(os.fsdecode(kept))
