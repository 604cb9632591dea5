"""The HTTP protocol of uvicorn, with patience that ends."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# For a request's first line and its headers, from the first byte of the connection or request;
# and for the rest of a body that was refused.
_SECONDS = 10.0
# Of what is neither body nor its framing: first line, headers, and what may follow a body.
_BYTES = 64 * 1024


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection whose request has no end in sight; of a body, the application decides."""

    _timer: asyncio.TimerHandle | None = None
    _bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Begins to wait for a request."""
        patient: Any = _Transport(transport)
        super().connection_made(patient)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begins to wait for the end of the headers."""
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Waits no longer."""
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Passes on a part of the body; how much of it is too much, is not decided here."""
        self._bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begins to count anew."""
        self._bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begins to wait for the end of a request that was answered before it had come."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """Passes on what came, unless it leads nowhere."""
        self._bytes += len(data)
        super().data_received(data)
        if self._bytes > _BYTES:
            self._give_up()

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        self._bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._stop_waiting()
        self.transport.close()


class _Transport:
    """A transport that takes no offence when an answer comes too late for its client."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        """Sends to a client that is still there; for another one, uvloop raises RuntimeError."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
