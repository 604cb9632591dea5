"""Messages on their way in: few at a time, and none for long while others wait."""

import threading
import time
from collections.abc import Iterator

import grpc
from grpc import StatusCode

from keras_cifar.serve.serving_error import ServingError


class Arrivals:
    """Takes messages off the network.

    gRPC collects a message, up to the limit, before it tells of it. So each that arrives may take
    as much memory as the largest, and only so many may arrive at a time. The newest comes first:
    among many slow ones, it is the one that may be quick.

    Args:
        places: how many may arrive at a time.
        waiting: how many calls may wait for a place; of more, the oldest are refused.
        seconds: how long a call may wait.
        patience_seconds: how long a message may take to arrive while another one waits.
    """

    def __init__(
        self, places: int, *, waiting: int, seconds: float, patience_seconds: float
    ) -> None:
        self._places = places
        self._most_waiting = waiting
        self._seconds = seconds
        self._patience_seconds = patience_seconds
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
                    is_old = call not in self._waiting[-self._most_waiting :]
                    if is_old or time.monotonic() > end or not call.is_active():
                        raise ServingError(
                            StatusCode.RESOURCE_EXHAUSTED, "too many messages are arriving already"
                        )
                    self._changed.wait(self._patience_seconds / 4)
                self._arriving[call] = time.monotonic()
            finally:
                self._waiting.remove(call)
                self._changed.notify_all()

    def _has_a_place(self) -> bool:
        if len(self._arriving) >= self._places:
            too_long_ago = time.monotonic() - self._patience_seconds
            for call in [call for call, since in self._arriving.items() if since < too_long_ago]:
                del self._arriving[call]
                call.cancel()
        return len(self._arriving) < self._places
