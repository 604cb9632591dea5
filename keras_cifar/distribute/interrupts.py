"""Ctrl-C while TensorFlow waits."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Has Ctrl-C, and SIGTERM where it can, end the process while TensorFlow waits for others.

    Python's handlers would have their turn when it has waited, which may be minutes. There is
    nothing to be tidied up but the empty folder of a chief without --run-dir.

    While the workers join, TensorFlow (2.21) has a handler of its own for SIGTERM, which takes it
    for a notice that the machine will go, and holds the GIL. As process 1 of a container, a process
    is ended by neither: Linux drops there what has no handler.
    """
    if threading.current_thread() is not threading.main_thread():  # which takes no signals
        yield
        return
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(n))]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
