"""The folder of a run: what it must not hold, who may write to it, and how it is emptied."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from keras_cifar.files import locked, remove_path, remove_unfinished
from keras_cifar.run_dir import RunDir, is_group

_LOCK = ".lock"


def refuse_group(run_dir: RunDir) -> None:
    """Raises FileExistsError if the folder is that of a group of runs."""
    if is_group(run_dir.path):
        raise FileExistsError(f"{run_dir.path}: holds a group of runs. Name another --run-dir.")


def what_is_in(run_dir: RunDir) -> list[str]:
    """Returns the names of what is there of a run, without empty folders."""
    return [
        path.name
        for path in run_dir.files()
        if path.is_file() or (path.is_dir() and any(path.iterdir()))
    ]


def refuse_existing(run_dir: RunDir) -> None:
    """Raises FileExistsError if the folder holds something that a run writes."""
    if present := what_is_in(run_dir):
        raise FileExistsError(
            f"{run_dir.path}: holds a run already ({', '.join(present)}). Go on with it by "
            "--resume, replace it by --overwrite, or name another --run-dir."
        )


def refuse_strangers(
    path: Path, present: Sequence[str], *, of: str, read_record: Callable[[], object]
) -> None:
    """Raises FileExistsError if files only have the names of those `of` a run, or of a group.

    Args:
        path: of the folder that they are in.
        present: their names.
        of: "run" or "group".
        read_record: raises OSError where there is none. One that is damaged may be replaced all
            the same: the lock file tells whose it is.
    """
    if not present or (path / _LOCK).is_file():
        return
    try:
        read_record()
    except OSError as error:
        raise FileExistsError(
            f"{path}: holds no {of}, so --overwrite leaves alone what is there "
            f"({', '.join(present)}). Name another --run-dir, or move that away."
        ) from error


def refuse_finished(run_dir: RunDir) -> None:
    """Raises FileExistsError if the folder's run has ended."""
    if not run_dir.checkpoint.is_dir():
        raise FileExistsError(
            f"{run_dir.path}: this run has ended; there is nothing to resume. "
            "To train its model further, start another run with --from this folder. "
            "To train anew, name another --run-dir."
        )


def owned(path: Path) -> AbstractContextManager[bool]:
    """Keeps other processes out of the folder of a run or a group."""

    def refuse() -> None:
        raise BlockingIOError(
            f"{path}: another process is training here. Wait for it or name another --run-dir."
        )

    return locked(path / _LOCK, when_busy=refuse)


def clear(run_dir: RunDir) -> None:
    """Removes what the commands wrote to the folder of a run."""
    remove_unfinished(run_dir.path)
    for path in run_dir.files():
        remove_path(path)
