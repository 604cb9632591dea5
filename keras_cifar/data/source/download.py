"""A URL -> a file, through throttled lines, broken connections and calls that were cut short."""

import hashlib
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import click
import requests
import urllib3

from keras_cifar.data.source.part import Part
from keras_cifar.errors import root_cause

_CHUNK_BYTES = 1 << 16
# The longest wait for a connection, and for the next byte.
TIMEOUT_SECONDS = 30.0
# Attempts that may fail in a row without bringing a new byte.
ATTEMPTS = 4
# Before the second attempt; each further wait is twice as long.
FIRST_WAIT_SECONDS = 1.0
# The longest wait between attempts, also where the server asks for a longer one.
LONGEST_WAIT_SECONDS = 60.0


class DownloadError(OSError):
    """This URL does not give the file; another one may."""


class _TryAgainError(Exception):
    def __init__(self, reason: str, *, wait_seconds: int = 0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


def download(url: str, *, folder: Path, max_bytes: int) -> Path:
    """Downloads `url` into `folder`, going on where an earlier call broke off.

    Args:
        url: http or https.
        folder: exists. Until it is complete the file's name ends in .part.
        max_bytes: a larger file is refused.

    Returns:
        The complete file; what is in it has not been looked at.

    Raises:
        DownloadError: the URL does not give the file. What came is kept for the next call.
        OSError: the disk does not take the file.
    """
    # The digest keeps what came from one mirror apart from what came from another.
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    path = folder / f"{digest}-{Path(urlsplit(url).path).name}"
    if path.is_file():
        return path
    part = Part(path)
    failures = 0
    while True:
        size_before = part.size
        try:
            _fetch(url, part=part, max_bytes=max_bytes)
            return part.finish()
        except _TryAgainError as error:
            failures = 1 if part.size > size_before else failures + 1
            if failures == ATTEMPTS:
                raise DownloadError(f"{url}: {error}") from error
            wait = max(FIRST_WAIT_SECONDS * 2 ** (failures - 1), error.wait_seconds)
            wait = min(wait, LONGEST_WAIT_SECONDS)
            click.echo(f"{url}: {error}; trying again in {wait:g} s", err=True)
            time.sleep(wait)


def _fetch(url: str, *, part: Part, max_bytes: int) -> None:
    """Makes one request and appends what it brings to `part`."""
    # Without identity a server may pack the file once more, and ranges would count packed bytes.
    headers = {"Accept-Encoding": "identity", **part.range_headers()}
    with (
        _network_errors(url),
        requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response,
    ):
        if _is_complete(response, part=part):
            return
        _check_status(url, response=response)
        total = _total_bytes(response, part=part)
        chunks = _chunks(url, response=response, left=max_bytes - part.size)
        name = Path(urlsplit(url).path).name
        part.append(_with_bar(chunks, name=name, offset=part.size, total=total))
    if total is not None and part.size < total:
        raise _TryAgainError(f"broke off after {part.size} of {total} bytes")


@contextmanager
def _network_errors(url: str) -> Iterator[None]:
    """Says in a few words what went wrong on the way."""
    try:
        yield
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise _TryAgainError(f"no answer within {TIMEOUT_SECONDS:g} s") from error
    except (requests.exceptions.InvalidURL, requests.TooManyRedirects) as error:
        raise DownloadError(f"{url}: {error}") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _TryAgainError(f"the connection failed ({root_cause(error)})") from error


def _is_complete(response: requests.Response, *, part: Part) -> bool:
    """Tells whether the server says that nothing is missing from `part`."""
    if response.status_code != requests.codes.requested_range_not_satisfiable:
        return False
    total = _number(response.headers.get("Content-Range", "").removeprefix("bytes */"))
    if total == part.size:
        return True
    part.clear()
    raise _TryAgainError("the file there is another one by now")


def _check_status(url: str, *, response: requests.Response) -> None:
    status = response.status_code
    if status in (408, 429) or status >= 500:
        wait = _number(response.headers.get("Retry-After", "")) or 0
        raise _TryAgainError(f"the server answers {status}", wait_seconds=wait)
    if status not in (200, 206):
        raise DownloadError(f"{url}: the server answers {status}")


def _total_bytes(response: requests.Response, *, part: Part) -> int | None:
    """Returns the size of the whole file where the server tells it, and readies `part` for it."""
    if response.status_code == requests.codes.partial_content:
        start, _, total = response.headers.get("Content-Range", "").partition("/")
        if start.startswith(f"bytes {part.size}-") and _number(total):
            return _number(total)
        part.clear()
        raise _TryAgainError("the server answers with another part than was asked for")
    part.start_over(etag=response.headers.get("ETag", ""))
    return _number(response.headers.get("Content-Length", ""))


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 16 else None


def _chunks(url: str, *, response: requests.Response, left: int) -> Iterator[bytes]:
    # The sizes are compared afterwards, in words that say how much is missing.
    response.raw.enforce_content_length = False
    for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
        left -= len(chunk)
        if left < 0:
            raise DownloadError(f"{url}: the file is too large to be CIFAR-10")
        yield chunk


def _with_bar(
    chunks: Iterable[bytes], *, name: str, offset: int, total: int | None
) -> Iterator[bytes]:
    """Passes chunks on and draws size, speed and remaining time on stderr.

    The chunks are of a file from byte `offset` on. `total` counts the bytes of the whole file, if
    the server told it.
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
