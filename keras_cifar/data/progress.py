"""A bar for a download."""

import sys
import time
from collections.abc import Iterable, Iterator

import click


def with_progress(
    chunks: Iterable[bytes], *, name: str, offset: int, total: int | None
) -> Iterator[bytes]:
    """Passes chunks on and draws size, speed and remaining time on stderr.

    Args:
        chunks: of a file, from `offset` on.
        name: of the file.
        offset: bytes that an earlier request brought.
        total: bytes of the whole file, if the server told it.

    Yields:
        The chunks.
    """
    size = "of unknown size" if total is None else f"{total / 1e6:.1f} MB"
    resumed = f", from {offset / 1e6:.1f} MB on" if offset else ""
    # For an iterator without a length, click draws a bar without an end. Nothing is taken from it.
    endless = iter(str, "") if total is None else None
    began, received = time.monotonic(), 0
    with click.progressbar(
        endless,
        length=None if total is None else total - offset,
        label=f"Downloading {name}, {size}{resumed}",
        item_show_func=lambda speed: str(speed or ""),
        file=sys.stderr,
    ) as bar:
        for chunk in chunks:
            received += len(chunk)
            seconds = max(time.monotonic() - began, 1e-3)
            bar.update(len(chunk), f"{received / seconds / 1e6:.1f} MB/s")
            yield chunk
