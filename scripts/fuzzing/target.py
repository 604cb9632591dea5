"""What is fuzzed: a check of any bytes, the seeds to begin with, and what a check may cost."""

import resource
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

# For one input. A model or a data set takes its time whatever its size; the rest must not grow
# faster than the input.
_SECONDS = 3.0
_SECONDS_PER_BYTE = 50e-6
_MEGABYTES = 512
_RSS_PER_MEGABYTE = 2**20 if sys.platform == "darwin" else 2**10


class Target(NamedTuple):
    """A parser under test.

    Attributes:
        check: gives it some bytes. It may refuse them by the exceptions that it documents; whatever
            else happens is a finding.
        seeds: real inputs, and some that are nearly right.
    """

    check: Callable[[bytes], None]
    seeds: list[bytes]


class ExcessError(Exception):
    """An input took more time or memory than its size explains."""


def bounded(check: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Returns a check that also raises `ExcessError`.

    Time is that of the CPU in all threads, which a busy machine does not stretch. Of memory, it is
    the rise of the process's peak, so that it is noticed once.
    """

    def run(content: bytes) -> None:
        started, before = time.process_time(), _peak_megabytes()
        check(content)
        seconds, megabytes = time.process_time() - started, _peak_megabytes() - before
        if seconds > _SECONDS + _SECONDS_PER_BYTE * len(content):
            raise ExcessError(f"{seconds:.1f} s of CPU for {len(content)} bytes")
        if megabytes > _MEGABYTES:
            raise ExcessError(f"{megabytes:.0f} MB of memory for {len(content)} bytes")

    return run


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RSS_PER_MEGABYTE
