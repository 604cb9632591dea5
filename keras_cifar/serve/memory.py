"""What all requests together may hold in memory."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from grpc import StatusCode

from keras_cifar.serve.prometheus import Metrics
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import Limits

# As Python's objects, JSON takes up to 25 times its size ("[]," is 72 bytes): of all that may be at
# work at a time, so little that it does not matter.
_SMALL = 64 * 1024


class Memory:
    """Counts the bytes of requests. All methods may be called from any thread.

    Args:
        limits: of the server.
        metrics: where it is told.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limit = limits.held_bytes
        # What arrives leaves a quarter to what is at work, which would else fail for a slow upload.
        self._reserve = min(self._limit // 4, self._limit - limits.body_bytes)
        self._metrics = metrics
        self._held = 0
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def take(self, size: int) -> bool:
        """Counts bytes of a request at work, if there is room; returns whether there is."""
        return self._take(size, most=self._limit)

    def take_arriving(self, size: int) -> bool:
        """Counts bytes that arrive, if there is room; returns whether there is."""
        return self._take(size, most=self._limit - self._reserve)

    def _take(self, size: int, *, most: int) -> bool:
        with self._lock:
            if self._held + size > most:
                return False
            self._held += size
        self._metrics.holds(size)
        return True

    def give_back(self, size: int) -> None:
        """Counts bytes no longer."""
        with self._lock:
            self._held -= size
        self._metrics.holds(-size)

    def refusal(self) -> ServingError:
        """Returns the error of a request for which there is no room, and counts it."""
        self._metrics.had_no_room()
        text = f"the requests at work leave no room: they hold {self._limit} bytes at most"
        return ServingError(StatusCode.RESOURCE_EXHAUSTED, text, http_status=503)

    @contextmanager
    def turn(self, size: int, *, deadline: float) -> Iterator[None]:
        """Lets one large body at a time be parsed: only until it is arrays, and no longer JSON.

        Nothing is lost by that, for Python parses one at a time anyway.

        Raises:
            ServingError: its turn has not come by the deadline, seconds since the epoch.
        """
        if size <= _SMALL:
            yield
            return
        if not self._turn.acquire(timeout=max(0.0, deadline - time.time())):
            raise ServingError(StatusCode.DEADLINE_EXCEEDED, "large bodies are waiting already")
        try:
            yield
        finally:
            self._turn.release()


class Hold(AbstractContextManager["Hold"]):
    """What one request holds, until the end of the block."""

    def __init__(self, memory: Memory) -> None:
        self.size = 0
        self._memory = memory

    def add(self, size: int) -> None:
        """Counts some more bytes; raises ServingError if there is no room for them."""
        if not self._memory.take(size):
            raise self._memory.refusal()
        self.size += size

    def arrive(self, size: int) -> bool:
        """Counts some bytes that have arrived, if there is room; returns whether there is."""
        has_room = self._memory.take_arriving(size)
        if has_room:
            self.size += size
        return has_room

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Gives all of it back."""
        self._memory.give_back(self.size)
        self.size = 0
