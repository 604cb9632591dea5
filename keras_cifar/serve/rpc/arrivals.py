"""Messages on their way in: few at a time, and none for long while others wait."""

import threading
import time
from collections.abc import Iterator

import grpc
from grpc import StatusCode

from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import Limits

# How long a message may take to arrive while another one waits for its place.
_PATIENCE_SECONDS = 1.0


class Arrivals:
    """Takes messages off the network.

    gRPC collects a message, up to the limit, before it tells of it. So each that arrives may take
    as much memory as the largest, and only so many may arrive at a time. The newest comes first:
    among many slow ones, it is the one that may be quick.
    """

    def __init__(self, limits: Limits) -> None:
        self._places = limits.arrivals
        self._seconds = limits.seconds
        self._arriving: dict[grpc.ServicerContext, float] = {}  # since when; the oldest first
        self._waiting: list[grpc.ServicerContext] = []
        self._changed = threading.Condition()

    def receive(self, messages: Iterator[bytes], call: grpc.ServicerContext) -> bytes | None:
        """Returns the message of a call, None if the client sends none.

        Raises:
            ServingError: it had no place in time.
            grpc.RpcError: the client has gone, or was too slow.
        """
        self._take_a_place(call)
        try:
            return next(messages, None)
        finally:
            with self._changed:
                self._arriving.pop(call, None)
                self._changed.notify_all()

    def _take_a_place(self, call: grpc.ServicerContext) -> None:
        end = time.monotonic() + self._seconds
        with self._changed:
            self._waiting.append(call)
            try:
                while not (self._waiting[-1] is call and self._has_a_place()):
                    if time.monotonic() > end or not call.is_active():
                        raise ServingError(
                            StatusCode.RESOURCE_EXHAUSTED, "too many messages are arriving already"
                        )
                    self._changed.wait(_PATIENCE_SECONDS / 4)
                self._arriving[call] = time.monotonic()
            finally:
                self._waiting.remove(call)
                self._changed.notify_all()

    def _has_a_place(self) -> bool:
        if len(self._arriving) >= self._places:
            oldest, since = next(iter(self._arriving.items()))
            if time.monotonic() - since > _PATIENCE_SECONDS:
                del self._arriving[oldest]
                oldest.cancel()
        return len(self._arriving) < self._places
