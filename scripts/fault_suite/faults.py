"""The kinds of faults: each puts it into a command in all places, and yields what came of it."""

import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fault_suite import calls, commands, disk
from fault_suite.calls import Call, Ended
from fault_suite.commands import END, Command
from fault_suite.damage import damaged
from fault_suite.suite import EXACT, LOST, SURVIVED, Result, Suite

# What needs room on a disk: on a full one, the rest goes on.
_TAKES_ROOM = ("open", "creat", "write", "pwrite", "mkdir", "rename", "truncate", "ftruncate")
# So many times for each signal, and for the clock.
_MOMENTS = 12
_DAY = 86_400.0
_LONGEST_DELAY_SECONDS = 0.5
# A second process that has not ended by then waits for the first.
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.02


def power(suite: Suite, command: Command) -> Iterator[Result]:
    """Cuts the power before each call: what was not synced is there, or not, or half."""
    cuts = command.cuts
    if suite.mutation:
        cuts, _ = commands.follow(suite.workshop, command, mutation=suite.mutation)
        # Those first that tell without going on, and then those that most has been done for.
        cuts = sorted(reversed(cuts), key=lambda cut: not commands.half(command, cut[1].state))
    else:
        cuts = suite.some(cuts)
    for call, cut in cuts:
        where = f"{call}: {cut.lost}"
        yield Result(command.name, "power", where, *_after_power_cut(suite, command, call, cut))


def _after_power_cut(
    suite: Suite, command: Command, call: Call, cut: disk.PowerCut
) -> tuple[str, str]:
    if call.number != END:
        return suite.judge(command, cut.state)
    wrong = commands.differences(command, cut.state)
    return (LOST, f"done and gone: {', '.join(wrong)}") if wrong else (EXACT, "")


def kill(suite: Suite, command: Command) -> Iterator[Result]:
    """Kills the process at each call."""
    for number in suite.numbers(command):
        at = _At(number, lambda _: calls.KILL)
        ended = _run(suite, command, at)
        yield Result(command.name, "kill", str(at), *suite.judge_process(command, ended))


def full_disk(suite: Suite, command: Command) -> Iterator[Result]:
    """From each call on, there is no room."""
    yield from _errors(suite, command, errno.ENOSPC, from_then_on=_TAKES_ROOM)


def read_only(suite: Suite, command: Command) -> Iterator[Result]:
    """From each call on, nothing can be changed."""
    yield from _errors(suite, command, errno.EROFS, from_then_on=("",))


def bad_disk(suite: Suite, command: Command) -> Iterator[Result]:
    """Each call fails once."""
    yield from _errors(suite, command, errno.EIO)


def interrupted_call(suite: Suite, command: Command) -> Iterator[Result]:
    """Each call is interrupted once."""
    yield from _errors(suite, command, errno.EINTR)


def _errors(
    suite: Suite, command: Command, number: int, *, from_then_on: tuple[str, ...] = ()
) -> Iterator[Result]:
    """Has each call end with an error.

    Args:
        suite: of the faults.
        command: under test.
        number: of the error.
        from_then_on: how the names of later calls begin that end with it as well.
    """
    name = errno.errorcode[number]
    for first in suite.numbers(command):
        at = _At(first, lambda _: number, again=from_then_on)
        ended = _run(suite, command, at)
        yield Result(command.name, name, str(at), *suite.judge_process(command, ended))


class _At:
    """Does something at a call, and remembers which it was."""

    def __init__(
        self, number: int, act: Callable[[Call], int], *, again: tuple[str, ...] = ()
    ) -> None:
        self.number = number
        self.act = act
        self.again = again
        self.call: Call | None = None

    def __call__(self, call: Call) -> int:
        if call.number < self.number or (call.number > self.number and not self.again):
            return calls.GO_ON
        if self.again and not call.name.startswith(self.again):
            return calls.GO_ON
        self.call = self.call or call
        return self.act(call)

    def __str__(self) -> str:
        return str(self.call) if self.call else f"call {self.number}, which did not come"


def _run(suite: Suite, command: Command, at: Callable[[Call], int]) -> Ended:
    return suite.workshop.run(
        *command.arguments, state=command.initial, at_call=at, mutation=suite.mutation
    )


def signals(suite: Suite, command: Command) -> Iterator[Result]:
    """Sends SIGTERM, SIGINT or SIGHUP at random moments."""
    for number in suite.numbers(command)[:_MOMENTS]:
        for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # Half of them at once: the last calls of a command follow each other closely.
            longest = _LONGEST_DELAY_SECONDS
            delay = max(0.0, suite.random.uniform(-longest, longest))
            timers: list[threading.Timer] = []

            def send(
                call: Call,
                sent: signal.Signals = sent,
                delay: float = delay,
                timers: list[threading.Timer] = timers,
            ) -> int:
                timers.append(threading.Timer(delay, os.kill, (call.pid, sent)))
                timers[0].start()
                return calls.GO_ON

            at = _At(number, send)
            ended = _run(suite, command, at)
            for timer in timers:
                timer.cancel()
                timer.join()
            where = f"{sent.name} {delay:.2f} s after {at}"
            yield Result(command.name, "signal", where, *suite.judge_process(command, ended))


def removed(suite: Suite, command: Command) -> Iterator[Result]:
    """Moves the folder away under the process."""
    yield from _moved(suite, command, suite.numbers(command), fault="removed")


def replaced(suite: Suite, command: Command) -> Iterator[Result]:
    """Puts another folder in the place of a run's, between two epochs; it must stay as it is."""
    if command.is_alone:
        numbers = [call.number for call in command.calls if _ends_epoch(call)][: suite.most]
        other = {Path("other.txt"): b"of another"}
        yield from _moved(suite, command, numbers, fault="replaced", other=other)


def _ends_epoch(call: Call) -> bool:
    """Tells whether a checkpoint has just got its name."""
    return call.name == "fsync" and call.paths[0].name == "checkpoint"


def _output_folder(command: Command) -> str:
    return {"export": "models", "data": "data"}.get(command.name, "run")


def _moved(
    suite: Suite,
    command: Command,
    numbers: list[int],
    *,
    fault: str,
    other: disk.State | None = None,
) -> Iterator[Result]:
    folder, name, expected = suite.workshop.folder, _output_folder(command), other or {}
    gone = suite.workshop.path / "gone"
    for number in numbers:
        shutil.rmtree(gone, ignore_errors=True)

        def move(_: Call) -> int:
            if (folder / name).is_dir():
                (folder / name).rename(gone)
                if other:
                    disk.write(folder / name, other)
            return calls.GO_ON

        at = _At(number, move)
        ended = _run(suite, command, at)
        if not gone.exists():
            continue
        found = disk.read(folder / name) if (folder / name).exists() else {}
        shutil.rmtree(folder / name, ignore_errors=True)
        gone.rename(folder / name)
        strange = [str(path) for path in found if path not in expected and path.name != ".lock"]
        outcome = suite.judge_process(command, ended)
        if other is None and found and not ended.code:
            outcome = SURVIVED, "made anew"
        elif strange or any(found.get(path) != content for path, content in expected.items()):
            outcome = LOST, f"it wrote into what took the folder's place: {', '.join(strange)}"
        yield Result(command.name, fault, str(at), *outcome)


def clock(suite: Suite, command: Command) -> Iterator[Result]:
    """Sets the clock back: to the day before, when it goes on after a kill; and to 1970."""
    for number in suite.numbers(command)[:_MOMENTS]:
        at = _At(number, lambda _: calls.KILL)
        _run(suite, command, at)
        state = disk.read(suite.workshop.folder)
        outcome = suite.go_on(command, state, before=partial(_set_clock, time.time() - _DAY))
        yield Result(command.name, "clock", f"a day back after {at}", *outcome)
    ended = suite.workshop.run(
        *command.arguments,
        state=command.initial,
        mutation=suite.mutation,
        before=partial(_set_clock, _DAY),
    )
    outcome = suite.judge_process(command, ended)
    yield Result(command.name, "clock", "1970, as without a battery", *outcome)


def _set_clock(now: float) -> None:
    """Has Python's clock show another time."""
    real_time, real_localtime, back = time.time, time.localtime, time.time() - now
    time.time = lambda: real_time() - back
    time.localtime = lambda seconds=None: real_localtime(
        time.time() if seconds is None else seconds
    )


def two(suite: Suite, command: Command) -> Iterator[Result]:
    """Has a second process of the same command come at each call."""
    for number in suite.numbers(command):
        second = _Second(suite, command)
        at = _At(number, second.start)
        processes = _run(suite, command, at), second.wait()
        outcomes = [suite.judge_process(command, ended) for ended in processes]
        if command.is_alone:
            outcomes.append(_one_was_refused(*processes))
        lost = [outcome for outcome in outcomes if outcome[0] == LOST]
        yield Result(command.name, "two", str(at), *(lost or outcomes)[0])


def _one_was_refused(first: Ended, second: Ended) -> tuple[str, str]:
    """Tells whether one of two was let in: the second only before the first had begun."""
    if second.code and "another process is training" in second.output:
        return EXACT, ""
    if first.code and "holds a run already" in first.output and not second.code:
        return EXACT, ""
    return LOST, f"both were let in; exit codes {first.code}, {second.code}"


class _Second:
    """The second of two processes."""

    def __init__(self, suite: Suite, command: Command) -> None:
        self.suite = suite
        self.command = command
        self.output = suite.workshop.path / "output of the second"
        self.pid = 0

    def start(self, _: Call) -> int:
        """Starts it, and lets the first go on when the second has ended or waits for the first."""
        self.pid = self.suite.workshop.fork(
            *self.command.rival, output=self.output, mutation=self.suite.mutation
        )
        end = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < end and not self._has_ended() and not self._waits():
            time.sleep(_POLL_SECONDS)
        return calls.GO_ON

    def _has_ended(self) -> bool:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, options) is not None

    def _waits(self) -> bool:
        return "waiting for it" in self.output.read_text(errors="replace")

    def wait(self) -> Ended:
        """Waits for its end."""
        if not self.pid:
            return Ended(0, "")
        return calls.wait(self.pid, output=self.output)


FAULTS: dict[str, Callable[[Suite, Command], Iterator[Result]]] = {
    "power": power,
    "kill": kill,
    "ENOSPC": full_disk,
    "EROFS": read_only,
    "EIO": bad_disk,
    "EINTR": interrupted_call,
    "signal": signals,
    "removed": removed,
    "replaced": replaced,
    "clock": clock,
    "two": two,
    "damage": damaged,
}


def notice(suite: Suite, command: Command) -> Result | None:
    """Returns the first fault by which a mutation is noticed; None if it is not."""
    if suite.mutation is None:
        raise ValueError("suite: has no mutation")
    results = FAULTS[suite.mutation.fault](suite, command)
    return next((result for result in results if result.outcome == LOST), None)
