"""Files that appear whole or not at all, folders that are writable, and locks.

Some file systems cannot do all that this asks of them: cluster file systems may have no locks, and
some that are reached over a network cannot sync a folder. What is safe is done without, and said.
"""

import errno
import fcntl
import functools
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import click

# Files with this prefix are unfinished; a killed process leaves them behind.
TEMPORARY = ".unfinished-"
# Several times the history of a run with as many epochs as there can be.
_MAX_DOCUMENT_BYTES = 64 << 20
# What a file system answers that has no such thing.
_CANNOT_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF}
# Longer than `is_locked` takes.
_LOOK_SECONDS = 0.1
_CANNOT_LOCK = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its place when the block ends well.

    Synced to the disk before the rename, so that a power cut leaves the old file or the new one.
    """
    temporary = _temporary_path(path.parent, suffix=path.suffix)
    try:
        with naming(path):
            temporary.touch(exist_ok=False)
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, document: object) -> None:
    """Writes a file of JSON for programs and people, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")


def read_document(path: Path) -> str:
    """Returns the text of a file of a run, which may be anybody's.

    Raises:
        OSError: it is missing, or larger than any such file.
        ValueError: it is not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(_MAX_DOCUMENT_BYTES + 1)
    if len(content) > _MAX_DOCUMENT_BYTES:
        raise OSError(f"{path}: is larger than {_MAX_DOCUMENT_BYTES:,} bytes. Move it away.")
    return content.decode("utf-8")


@contextmanager
def temporary_folder(parent: Path, *, prefix: str = "") -> Iterator[Path]:
    """Gives an empty folder in `parent`, which is gone after the block if it is still there."""
    folder = _temporary_path(parent, prefix=prefix)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _temporary_path(parent: Path, *, prefix: str = "", suffix: str = "") -> Path:
    """Returns a name that is free.

    `tempfile` makes what it names, for its owner alone. To open it to those to whom the umask does
    takes `chmod`, which a file system need not have.
    """
    return parent / f"{TEMPORARY}{prefix}{secrets.token_hex(8)}{suffix}"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives `path` to the error of a full disk: in writing, Python does not know the name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # else it is a message, and a name would garble it
            error.filename = error.filename or str(path)
        raise


def sync(path: Path) -> None:
    """Has the system write a file, or a folder's list of names, to the disk, if it can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
        folder = path if path.is_dir() else path.parent
        _say_once(f"{folder}: cannot be synced; a power cut may cost the newest files there.")
    finally:
        os.close(descriptor)


@functools.cache
def _say_once(text: str) -> None:
    click.echo(text, err=True)


def sync_tree(folder: Path) -> None:
    """Writes a folder and all in it to the disk, so that a power cut after a rename is harmless."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def make_folder(folder: Path) -> bool:
    """Makes a folder, and those that it is to be in, and has their names written to the disk.

    Returns:
        Whether it was missing.
    """
    parent = folder.absolute().parent
    if not parent.is_dir():
        make_folder(parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
        return False
    sync(parent)
    return True


def remove_unfinished(folder: Path) -> None:
    """Removes what processes that were killed in `replacing` left in `folder`, folders too."""
    for path in folder.glob(f"{TEMPORARY}*"):
        remove_path(path)


def remove_path(path: Path) -> None:
    """Removes a file, or a folder and all in it; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
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


def is_closed(path: Path) -> bool:
    """Returns whether another user, as whom a server may run, cannot read a file or folder."""
    wanted = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
    return path.stat().st_mode & wanted != wanted


@contextmanager
def locked(path: Path, *, when_busy: Callable[[], object]) -> Iterator[bool]:
    """Holds the lock file `path` for the block; the system lets go of it when the process ends.

    Args:
        path: made where it is missing, and left there: removing it would let two processes
            lock two files of the same name.
        when_busy: called if a living process holds the lock. It may raise; if it returns, the
            lock is waited for.

    Yields:
        Whether it is held. It is not where the file system has no locks, which is said.
    """
    with open_lock(path) as file:
        is_free = lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_free is False:  # or `is_locked` looks at it just now
            time.sleep(_LOOK_SECONDS)
            is_free = lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_free is False:
            when_busy()
            lock(file, fcntl.LOCK_EX)
        yield is_free is not None


def is_locked(path: Path) -> bool | None:
    """Tells whether a living process holds a lock file; None where that cannot be told.

    To see that nobody does, it holds the lock itself for a moment, shared, so that others can look
    at the same time; `locked` does not take that for a process that is busy.
    """
    try:
        with open(path, opener=_at_once) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _at_once(path: str, flags: int) -> int:
    # A pipe that is called so would be waited for.
    return os.open(path, flags | os.O_NONBLOCK)


def open_lock(path: Path) -> IO[str]:
    """Opens a lock file, which is made where it is missing.

    For reading too, and for writing if possible: NFS wants the one for a shared lock and the other
    for an exclusive one. Of another user's file in a shared folder, reading has to do.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: is no file, as a lock is. Move it away.")
    with suppress(PermissionError):
        return path.open("a+")
    return path.open()


def lock(file: IO[str], operation: int) -> bool | None:
    """Does what `fcntl.flock` does with a lock file.

    Returns:
        True, or False if another process holds the lock, or None, after saying so, where the file
        system has no locks.
    """
    try:
        with naming(Path(file.name)):
            fcntl.flock(file, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
        folder = Path(file.name).parent
        _say_once(f"{folder}: has no locks; make sure that no other process writes there.")
        return None
    return True
