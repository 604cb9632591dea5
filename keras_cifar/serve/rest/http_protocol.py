"""The HTTP protocol of uvicorn, a request at a time, with patience that ends."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

from httptools import HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# For a request's first line and its headers, from the first byte of the connection or request;
# and for the rest of a body that was refused.
_SECONDS = 10.0
# From an answer to the beginning of the next request; the answer must have been taken by then.
KEEP_ALIVE_SECONDS = 75
# Of what is neither body nor its framing: first line, headers, and what may follow a body.
_BYTES = 64 * 1024
_NEWLINES = re.compile(rb"[\r\n]*")


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection whose request has no end in sight; of a body, the application decides.

    A request is read when the one before it has its answer and the client takes it. Else clients
    that read no answers could have the server keep their next requests, which nobody counts.
    """

    _timer: asyncio.TimerHandle | None = None
    _bytes = 0
    _body_left = 0  # of a body of known length, or of a chunk
    _is_chunked = False

    def connection_made(self, transport: Any) -> None:
        """Begins to wait for a request."""
        self._came = bytearray()  # and was not parsed yet
        patient: Any = _Transport(transport, self._is_reading)
        super().connection_made(patient)
        self._wait(_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begins to wait for the end of the headers."""
        self._wait(_SECONDS)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Waits no longer."""
        if self._bytes > _BYTES:
            raise ValueError("more headers than are read")  # which uvicorn answers, with 400
        self._bytes = 0
        self._stop_waiting()
        if self._asks_for_upgrade():
            return
        headers = dict(self.headers)
        # The parser has seen to it that it is a number; of thousands of zeros, Python makes none.
        length = headers.get(b"content-length", b"").strip().lstrip(b"0")
        self._body_left = int(length or b"0")
        self._is_chunked = b"chunked" in headers.get(b"transfer-encoding", b"").lower()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Passes on a part of the body; how much of it is too much, is not decided here."""
        self._bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begins to count anew."""
        self._bytes = 0
        if self._asks_for_upgrade():
            self._came[:0] = self._head_without_upgrade()
            self.parser = HttpRequestParser(self)  # this one may have seen Connection: close
            return
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begins to wait for the next request, or the end of one that was answered before."""
        super().on_response_complete()
        self._wait(_SECONDS if self.cycle.more_body else KEEP_ALIVE_SECONDS)
        self._parse()

    def pause_writing(self) -> None:
        """Begins to wait for the client to take its answer."""
        super().pause_writing()
        self._wait(KEEP_ALIVE_SECONDS)

    def resume_writing(self) -> None:
        """Goes on with what came in the meantime."""
        super().resume_writing()
        self._stop_waiting()
        if self.cycle and self.cycle.response_complete:
            self._wait(KEEP_ALIVE_SECONDS)
        self._parse()

    def data_received(self, data: bytes) -> None:
        """Passes on what came of a request, unless it leads nowhere."""
        self._came += data
        self._parse()

    def _parse(self) -> None:
        while self._came and self._is_reading() and (end := self._end_of_piece()):
            piece = bytes(self._came[:end])
            del self._came[: len(piece)]
            self._body_left = max(self._body_left - len(piece), 0)
            self._bytes += len(piece)
            super().data_received(piece)
            if self._bytes > _BYTES:
                self._give_up()
        if not self._is_reading():
            self.transport.pause_reading()
        elif not self.flow.read_paused:
            self.transport.resume_reading()

    def _asks_for_upgrade(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _head_without_upgrade(self) -> bytes:
        """Returns the head of a request for the parser to read anew.

        For HTTP/2, Java and curl ask like this, with any request. It may be ignored, but the parser
        would take the request's body for what comes after the upgrade.
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _unsupported_upgrade_warning(self) -> None:
        """Says nothing in the log of what any client may ask for."""

    def _is_reading(self) -> bool:
        cycle: Any = self.cycle
        has_come = cycle and not cycle.more_body and not cycle.response_complete
        return not (has_come or self.flow.write_paused or self.transport.is_closing())

    def _end_of_piece(self) -> int:
        """Returns how much of what came surely holds no part of a second request.

        It may be more than came, and is 0 where more has to come first.
        """
        if self._body_left:
            return self._body_left
        if self._is_chunked:
            return self._end_of_chunks()
        # A request, or its headers, end with an empty line, of which a part may have come before.
        newlines = _NEWLINES.match(self._came)
        if newlines and newlines.end():
            return newlines.end()
        empty_line = self._came.find(b"\r\n\r\n")
        return len(self._came) if empty_line < 0 else empty_line + 4

    def _end_of_chunks(self) -> int:
        end = 0
        while (line := self._came.find(b"\r\n", end)) >= 0:
            try:
                size = int(self._came[end:line].partition(b";")[0], 16)
            except ValueError:  # which the parser says
                return len(self._came)
            if not size:
                self._is_chunked = False  # what is left ends as headers do
                return line
            end = line + 2 + size + 2
            if end >= len(self._came):
                self._body_left = end
                return end
        return end if len(self._came) - end <= _BYTES else len(self._came)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._stop_waiting()
        # This sends what is left of an answer first, for ever if nobody takes it.
        self.transport.close()
        self._timer = self.loop.call_later(_SECONDS, self.transport.abort)


class _Transport:
    """A transport that takes no offence when an answer comes too late for its client.

    Args:
        transport: does the work.
        is_reading: whether the protocol reads; uvicorn goes on for each part of a body.
    """

    def __init__(self, transport: Any, is_reading: Callable[[], bool]) -> None:
        self._transport = transport
        self._is_reading = is_reading

    def write(self, data: bytes) -> None:
        """Sends to a client that is still there; for another one, uvloop raises RuntimeError."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def resume_reading(self) -> None:
        """Reads on, if it is time."""
        if self._is_reading():
            self._transport.resume_reading()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
