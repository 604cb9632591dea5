"""Files that appear whole or not at all, folders that are writable, and locks."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Files with this prefix are unfinished; a killed process leaves them behind.
TEMPORARY = ".unfinished-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its place when the block ends well.

    Synced to the disk before the rename, so that a power cut leaves the old file or the new one.
    """
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path):
            yield temporary
            temporary.chmod(0o666 & ~umask())  # mkstemp's own is 0o600
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives `path` to the error of a full disk: in writing, Python does not know the name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # else it is a message, and a name would garble it
            error.filename = error.filename or str(path)
        raise


def umask() -> int:
    """Returns the permissions that this process takes away from what it makes."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync(path: Path) -> None:
    """Has the system write a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Writes a folder and all in it to the disk, so that a power cut after a rename is harmless."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def remove_unfinished(folder: Path) -> None:
    """Removes what processes that were killed in `replacing` left in `folder`, folders too."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def require_writable(path: Path, *, name: str) -> None:
    """Refuses a folder that cannot be made or written to.

    Args:
        path: of the folder, which need not exist.
        name: what the user calls it, for the error.

    Raises:
        OSError: it, or what it would be in, is a file or not writable.
    """
    present = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not present.is_dir():
        raise NotADirectoryError(f"{present}: is not a folder. Name another {name}.")
    if not os.access(present, os.W_OK | os.X_OK):
        raise PermissionError(f"{present}: is not writable. Name another {name}.")


@contextmanager
def locked(path: Path, *, when_busy: Callable[[], object]) -> Iterator[None]:
    """Holds the lock file `path` for the block; the system lets go of it when the process ends.

    Args:
        path: made where it is missing, and left there: removing it would let two processes
            lock two files of the same name.
        when_busy: called if a living process holds the lock. It may raise; if it returns, the
            lock is waited for.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_busy()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
