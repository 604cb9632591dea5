"""One process at a time in a folder."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


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
