"""Images that are large when they are decoded, whatever their files' size: a few at a time."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from grpc import StatusCode

from keras_cifar.image.header import check_header
from keras_cifar.machine import usable_cores
from keras_cifar.serve.serving_error import ServingError, invalid
from keras_cifar.serve.settings import Limits
from keras_cifar.serving import BYTES_INPUT

# The marker of a scan: a few bytes, for which the decoder goes over all pixels. A progressive JPEG
# has about 10 of them, and its previews as many.
_JPEG_SCAN, _MAX_JPEG_SCANS = b"\xff\xda", 100
# What is as much work as a pixel of an opaque PNG, 3 bytes and 5 ns: 4 scans of a JPEG's pixel. One
# with alpha, which is laid on white, is four times as much, 18 bytes and 27 ns (AMD EPYC,
# TensorFlow 2.21, November 2026).
_SCANS = 4
_TRANSPARENT = 4
# Up to here, images are decoded in a batch with those of others.
_SMALL = 1_000_000
_MAX_WAITING = 32
_WAITING = "large images are waiting already"


class Decoding:
    """Has requests with large images wait for each other, and those with small ones for none.

    Two lanes, for very large ones and for photos, so that these do not wait for those.
    """

    def __init__(self, limits: Limits) -> None:
        self._pixels = limits.pixels
        self._large = _Lane(1)
        self._medium = _Lane(usable_cores())

    def work(self, images: Iterable[bytes]) -> int:
        """Returns how much work the images are, as a number of pixels.

        Raises:
            ServingError: one that no decoder should see, as it would fail, or exhaust, a batch with
                others' images; or all together are too much for a request. A server of TensorFlow
                alone would let the decoder find out.
        """
        work = sum(self._work(image, position) for position, image in enumerate(images))
        if work > (most := 2 * self._pixels):
            raise invalid(
                f"{BYTES_INPUT}: to decode them is as much work as {work:,} pixels; at most "
                f"{most:,} are read at a time. Send fewer, or smaller ones"
            )
        return work

    def _work(self, encoded: bytes, position: int) -> int:
        try:
            header = check_header(encoded, max_pixels=self._pixels)
            pixels = header.width * header.height * header.frames
            if header.format == "JPEG":
                scans = encoded.count(_JPEG_SCAN)
                if scans > _MAX_JPEG_SCANS:
                    raise ValueError(
                        f"a JPEG of {scans} scans; at most {_MAX_JPEG_SCANS} are read, since each "
                        "goes over the whole image. Save it anew"
                    )
                return pixels * max(scans, _SCANS) // _SCANS
            if _is_opaque_png(encoded):
                return pixels
            if 2 * pixels > self._pixels:
                raise ValueError(
                    f"the image claims {pixels:,} pixels that may be transparent; at most "
                    f"{self._pixels // 2:,} are read. Make it smaller, or save it as JPEG"
                )
            return pixels * _TRANSPARENT
        except ValueError as error:
            raise invalid(f"{BYTES_INPUT}[{position}]: {error}") from error

    def is_small(self, work: int) -> bool:
        """Returns whether images of so much work may keep others in their batch waiting."""
        return work <= _SMALL

    @contextmanager
    def turn(self, work: int, *, deadline: float) -> Iterator[None]:
        """Waits until images of so much work may be decoded, which they may within the block.

        Raises:
            ServingError: too many wait already, or it is not their turn by the deadline, seconds
                since the epoch.
        """
        if self.is_small(work):
            yield
            return
        lane = self._large if work > self._pixels // 4 else self._medium
        with lane.turn(deadline):
            yield


class _Lane:
    def __init__(self, width: int) -> None:
        self._free = threading.Semaphore(width)
        # Each holds a thread of the server's, of which small requests have need as well.
        self._places = threading.Semaphore(width + _MAX_WAITING)

    @contextmanager
    def turn(self, deadline: float) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise ServingError(StatusCode.RESOURCE_EXHAUSTED, _WAITING, http_status=503)
        try:
            if not self._free.acquire(timeout=max(0.0, deadline - time.time())):
                raise ServingError(StatusCode.DEADLINE_EXCEEDED, _WAITING)
            try:
                yield
            finally:
                self._free.release()
        finally:
            self._places.release()


def _is_opaque_png(encoded: bytes) -> bool:
    """Tells whether there is a PNG of greys, colours or a palette, and nothing of transparency.

    With EXIF data it is decoded as if it had alpha, like one with a chunk of transparency.
    """
    kinds = (b"\0", b"\2", b"\3")
    marks = (b"tRNS", b"eXIf", b"Exif\0\0")
    # The file may end right behind its size.
    is_png = encoded.startswith(b"\x89PNG") and encoded[25:26] in kinds
    return is_png and not any(mark in encoded for mark in marks)
