"""Where a server's messages and its access log go: a thread of its own writes each of them."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from logging.handlers import QueueHandler, QueueListener
from queue import Full, Queue

from keras_cifar.serve.access_log import access_log

# So many lines wait for whoever reads them, the later ones are lost. A line may have 64 KiB.
_MAX_LINES = 4096
# At its end, the server waits so long for its last lines to be written.
_LAST_SECONDS = 2.0
_STDERR = 2
_log = logging.getLogger(__name__)


@contextmanager
def logging_to(access_path: str | None) -> Iterator[Callable[[], None]]:
    """Sends what the server has to say to stderr, and a line of JSON a request to a file.

    Nothing waits for a line to be written. Lines that cannot be written are lost, and counted.

    Args:
        access_path: of that file, to which is appended; "-" for stderr, None for nowhere.

    Yields:
        A function that waits until all lines are written, for a few seconds at most.

    Raises:
        OSError: the file cannot be opened.
    """
    server, http = logging.getLogger("keras_cifar.serve"), logging.getLogger("uvicorn")
    server.setLevel(logging.INFO)
    http.setLevel(logging.ERROR)  # its warnings are of what clients sent, and they are told
    libraries = [http, logging.getLogger("grpc"), logging.getLogger("asyncio")]
    access_log.setLevel(logging.INFO)
    access_log.disabled = access_path is None
    with ExitStack() as stack:
        lines = _Lines("%(asctime)s %(levelname)s %(message)s")
        messages = _Writer(lines, _stderr(), path="stderr", title="log")
        stack.enter_context(_writing(messages, [server, *libraries]))
        writers = [messages]
        if access_path is not None:
            is_stderr = access_path == "-"
            file = _stderr() if is_stderr else FileIO(access_path, "a")
            path = "stderr" if is_stderr else access_path
            access = _Writer(_Lines("%(message)s"), file, path=path, title="access log")
            stack.enter_context(_writing(access, [access_log]))
            writers.insert(0, access)  # it may have something to say in the other one

        def wait_until_written() -> None:
            for writer in writers:
                writer.wait()

        yield wait_until_written


def _stderr() -> FileIO:
    # Not sys.stderr: Python closes it at its end, and would wait for a thread that writes to it.
    return FileIO(_STDERR, "w", closefd=False)


class _Lines(QueueHandler):
    """Lines that wait to be written.

    Attributes:
        waiting: these lines; None is the last one.
        dropped: how many were lost, since there was no room for them.
    """

    def __init__(self, form: str) -> None:
        self.waiting: Queue[logging.LogRecord | None] = Queue(_MAX_LINES)
        super().__init__(self.waiting)
        self.setFormatter(logging.Formatter(form))
        self.dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.waiting.put_nowait(record)
        except Full:
            self.dropped += 1


class _Writer(QueueListener):
    """The thread that writes lines to a file.

    Args:
        lines: that wait.
        file: without a buffer, so that each line is there at once.
        path: of the file, and
        title: what it is, for what is said of it.
    """

    def __init__(self, lines: _Lines, file: FileIO, *, path: str, title: str) -> None:
        super().__init__(lines.waiting)
        self.lines = lines
        self._file = file
        self._path = path
        self._title = title
        self._is_paused = False
        self._is_within_line = False
        self._failed = 0
        self._told = 0

    def handle(self, record: logging.LogRecord) -> None:
        try:
            self._write(f"{record.getMessage()}\n".encode(errors="backslashreplace"))
        except OSError as error:
            self._failed += 1
            if not self._is_paused:
                self._is_paused = True
                _log.error("%s: %s; the %s pauses", self._path, error.strerror, self._title)
            return
        self._is_paused = False
        lost = self.lines.dropped + self._failed - self._told
        if lost and self.lines.waiting.empty():
            self._told += lost
            _log.warning("%s: lines of the %s that are lost: %d", self._path, self._title, lost)

    def _write(self, line: bytes) -> None:
        if self._is_within_line:  # that the disk had no room for the rest of
            line = b"\n" + line
        while line:
            line = line[os.write(self._file.fileno(), line) :]
            self._is_within_line = bool(line)

    def wait(self) -> bool:
        """Waits until all lines are written, but not for long; returns whether they are."""
        lines = self.lines.waiting
        with lines.all_tasks_done:
            return lines.all_tasks_done.wait_for(lambda: not lines.unfinished_tasks, _LAST_SECONDS)

    def stop(self) -> None:
        """Ends the thread, unless it has to be left where nobody reads what it writes."""
        if self.wait():
            self.enqueue_sentinel()
            self._file.close()


@contextmanager
def _writing(writer: _Writer, loggers: Sequence[logging.Logger]) -> Iterator[None]:
    """Has a writer write what loggers are given within the block."""
    writer.start()
    for logger in loggers:
        logger.addHandler(writer.lines)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(writer.lines)
        writer.stop()
