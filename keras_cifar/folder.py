"""Whether a folder can be made and written to, found out before hours of work."""

import os
from pathlib import Path


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
