"""Runs the workers of one training on this machine, and sees to it that they end together."""

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NamedTuple

import click

from keras_cifar.interpreter import python
from keras_cifar.launch.shares import WorkerShare

# Until the command itself handles it, Ctrl-C ends a worker without a traceback of its imports.
_KERAS_CIFAR = """
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
from keras_cifar.cli import main
main(prog_name="keras-cifar")
"""
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# After one has failed, or a signal was passed on. The others notice by themselves within a minute.
_GRACE_SECONDS = 90.0
_SECONDS_BEFORE_A_WORD = 2.0
# TensorFlow takes SIGTERM for a notice while a worker waits for the others, and goes on waiting.
# `train` treats both alike.
_SENT = {signal.SIGTERM: signal.SIGINT}
# After the last word, before SIGKILL.
_TERMINATE_SECONDS = 15.0
# For the last lines of workers that have ended; what they started may hold the pipe.
_OUTPUT_SECONDS = 5.0
_POLL_SECONDS = 0.05
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_ERASED_LINE = "\r\x1b[K"


class Ending(NamedTuple):
    """How a launch ended.

    Attributes:
        exit_code: 0 if all workers ended with 0, or else of the first that did not; 128 + the
            number of the signal that ended it, or that was passed on to all.
        what: what went wrong, in words.
    """

    exit_code: int
    what: str


def run_workers(arguments: Sequence[str], shares: Sequence[WorkerShare]) -> Ending:
    """Runs `keras-cifar ARGUMENTS` in a process for each share, until all have ended.

    Worker 0 has this process's stdout and stderr. What the others say goes to stderr, marked.
    """
    workers = _Workers()
    with workers.signals_passed_on():
        try:
            workers.start(arguments, shares)
            return workers.wait()
        finally:
            workers.kill()


class _Workers:
    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self.threads: list[threading.Thread] = []
        self.told: signal.Signals | None = None
        self._told_at = 0.0

    @contextmanager
    def signals_passed_on(self) -> Iterator[None]:
        """Passes signals on for the block, but those that this process is to ignore (nohup)."""
        before = {number: signal.getsignal(number) for number in _PASSED_ON}
        heeded = [number for number in _PASSED_ON if before[number] != signal.SIG_IGN]
        for number in heeded:
            signal.signal(number, self._pass_on)
        try:
            yield
        finally:
            for number in heeded:
                signal.signal(number, before[number])

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        if not self.told:
            self.told, self._told_at = signal.Signals(number), time.monotonic()
            self._send(self.told)
        # `timeout` sends two at once; nor has the word been said yet that a second one kills.
        elif time.monotonic() > self._told_at + _SECONDS_BEFORE_A_WORD:
            self.kill()

    def start(self, arguments: Sequence[str], shares: Sequence[WorkerShare]) -> None:
        for share in shares:
            if self.told:
                break
            self.processes.append(_start(arguments, share, is_chief=not self.processes))
            if self.told:  # while this one was started
                self.processes[-1].kill()
        # After all processes: Python may not fork well beside threads.
        for index, process in enumerate(self.processes[1:], start=1):
            thread = threading.Thread(target=_pass_lines_on, args=(process, index), daemon=True)
            thread.start()
            self.threads.append(thread)

    def wait(self) -> Ending:
        while self._running() and not self.told and not self._failed():
            time.sleep(_POLL_SECONDS)
        failed = self._failed()
        self._end_the_rest(failed)
        for thread in self.threads:
            thread.join(_OUTPUT_SECONDS)
        failed = failed or self._failed()
        if self.told and (failed or not self.processes):
            return Ending(128 + self.told, "Interrupted")
        if not failed:
            return Ending(0, "")
        code = self.processes[failed[0]].returncode
        return Ending(code if code > 0 else 128 - code, self._in_words(failed[0]))

    def _end_the_rest(self, failed: list[int]) -> None:
        """Leaves all the time to end by themselves, then insists."""
        if self._have_ended(within=_SECONDS_BEFORE_A_WORD):
            return
        if self.told:
            what, then = f"{self.told.name} passed on", "; a second one kills them"
        else:
            what, then = self._in_words(failed[0]), ""
        waiting = f"Waiting for {len(self._running())} of {len(self.processes)} workers to end"
        click.echo(f"{what}. {waiting}, for up to {_GRACE_SECONDS:.0f} s{then}.", err=True)
        if self._have_ended(within=_GRACE_SECONDS):
            return
        self._send(signal.SIGTERM)
        if not self._have_ended(within=_TERMINATE_SECONDS):
            self.kill()
            self._have_ended(within=math.inf)

    def _have_ended(self, *, within: float) -> bool:
        end = time.monotonic() + within
        while self._running():
            if time.monotonic() > end:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _running(self) -> list[int]:
        return [index for index, each in enumerate(self.processes) if each.poll() is None]

    def _failed(self) -> list[int]:
        return [index for index, each in enumerate(self.processes) if each.poll()]

    def _in_words(self, index: int) -> str:
        code = self.processes[index].returncode
        if code > 0:
            return f"Worker {index} ended with exit code {code}"
        return f"Worker {index} was ended by {signal.Signals(-code).name}"

    def _send(self, number: signal.Signals) -> None:
        for process in self.processes:
            process.send_signal(_SENT.get(number, number))  # not to one that has ended

    def kill(self) -> None:
        """Kills the workers that are left, with what they have started."""
        for index in self._running():
            with suppress(ProcessLookupError):
                os.killpg(self.processes[index].pid, signal.SIGKILL)


def _start(
    arguments: Sequence[str], share: WorkerShare, *, is_chief: bool
) -> subprocess.Popen[str]:
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's script ignores it behind "&"
        if sys.platform == "linux":
            # Nobody is left behind, also if this process is killed.
            libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
            if share.cores:
                os.sched_setaffinity(0, share.cores)

    return subprocess.Popen(
        python(_KERAS_CIFAR, arguments),
        env=os.environ | share.environment,
        stdin=subprocess.DEVNULL,
        stdout=None if is_chief else subprocess.PIPE,
        stderr=None if is_chief else subprocess.STDOUT,
        text=True,
        errors="replace",
        # A terminal sends Ctrl-C to all of a session: it would come twice.
        start_new_session=True,
        preexec_fn=prepare,
    )


def _pass_lines_on(process: "subprocess.Popen[str]", index: int) -> None:
    # Worker 0 draws its bar anew below.
    erased = _ERASED_LINE if sys.stderr.isatty() else ""
    for line in process.stdout or ():
        with suppress(OSError):  # where nobody reads any more, the worker is still to go on
            click.echo(f"{erased}[worker {index}] {line.rstrip()}", err=True)
