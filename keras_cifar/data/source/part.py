"""A file that is being downloaded, and its name until it is complete."""

from collections.abc import Iterable
from pathlib import Path


class Part:
    """What has come of a file, under a temporary name beside the final one.

    The server's ETag is kept too: a later process goes on only if the file is still the same.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._etag = path.with_name(f"{path.name}.etag")

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return self._part.stat().st_size if self._part.exists() else 0

    def range_headers(self) -> dict[str, str]:
        """Returns the request headers that ask for the rest; empty if nothing has come yet."""
        if not self.size:
            return {}
        etag = self._etag.read_text() if self._etag.exists() else ""
        # A weak ETag (W/"...") does not promise the same bytes, and If-Range may not name one.
        condition = {"If-Range": etag} if etag.startswith('"') else {}
        return {"Range": f"bytes={self.size}-", **condition}

    def start_over(self, *, etag: str) -> None:
        """Forgets what has come; `etag` is of the file that comes now."""
        self.clear()
        self._etag.write_text(etag)

    def append(self, chunks: Iterable[bytes]) -> None:
        """Writes chunks as they come; raises OSError, and leaves nothing, if the disk is full."""
        # Unbuffered, so that what has come is there however the process ends.
        with self._part.open("ab", buffering=0) as file:
            for chunk in chunks:
                rest = memoryview(chunk)
                try:
                    while rest:
                        rest = rest[file.write(rest) :]
                except OSError as error:
                    self.clear()
                    raise OSError(
                        f"{self._part}: cannot be written ({error.strerror}). "
                        "Make room or give another folder with --data-dir."
                    ) from error

    def finish(self) -> Path:
        """Gives the file its name and returns it."""
        self._part.replace(self._path)
        self._etag.unlink(missing_ok=True)
        return self._path

    def clear(self) -> None:
        """Removes what has come."""
        self._part.unlink(missing_ok=True)
        self._etag.unlink(missing_ok=True)
