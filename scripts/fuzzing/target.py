"""What is fuzzed: a check of any bytes, the seeds to begin with, and what a check may cost."""

import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# For one input, besides what a target takes for any.
_SECONDS_PER_BYTE = 50e-6
_MEGABYTES = 512
_RSS_PER_MEGABYTE = 2**20 if sys.platform == "darwin" else 2**10


class Target(NamedTuple):
    """A parser under test.

    Attributes:
        check: gives it some bytes. It may refuse them by the exceptions that it documents; whatever
            else happens is a finding.
        seeds: real inputs, and some that are nearly right.
        seconds: of CPU that an input may take whatever its size.
    """

    check: Callable[[bytes], None]
    seeds: list[bytes]
    seconds: float = 3.0


class ExcessError(Exception):
    """An input took more time or memory than its size explains."""


def bounded(target: Target) -> Callable[[bytes], None]:
    """Returns a target's check, which also raises `ExcessError`.

    Time is that of the CPU in all threads, which a busy machine does not stretch. Memory is the
    rise of the process's peak; on Linux, of the peak since the check began.
    """

    def run(content: bytes) -> None:
        _forget_peak()
        started, before = time.process_time(), _peak_megabytes()
        target.check(content)
        seconds, megabytes = time.process_time() - started, _peak_megabytes() - before
        if seconds > target.seconds + _SECONDS_PER_BYTE * len(content):
            raise ExcessError(f"{seconds:.1f} s of CPU for {len(content)} bytes")
        if megabytes > _MEGABYTES:
            raise ExcessError(f"{megabytes:.0f} MB of memory for {len(content)} bytes")

    return run


def _forget_peak() -> None:
    # Else what takes more than the input before it, by little each time, would go unnoticed.
    with suppress(FileNotFoundError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RSS_PER_MEGABYTE
