"""Judges what a fault has left: the old, the new, or lost."""

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from fault_suite import commands, disk
from fault_suite.calls import Ended
from fault_suite.commands import Command, Workshop
from fault_suite.digests import state_key
from fault_suite.disk import State
from fault_suite.mutations import Mutation

Place = TypeVar("Place")
# How a fault ended: the command ended well in spite of it; it went on to the same end, to the bit;
# it said by name what is damaged; or something is lost.
SURVIVED, EXACT, REFUSED, LOST = OUTCOMES = ("survived", "exact", "refused", "lost")


class Result(NamedTuple):
    """What came of a fault.

    Attributes:
        command: its name.
        fault: a key of FAULTS.
        where: it was put in.
        outcome: one of OUTCOMES.
        detail: of the outcome.
    """

    command: str
    fault: str
    where: str
    outcome: str
    detail: str = ""


@dataclass
class Suite:
    """Puts faults in, and judges what they leave.

    Attributes:
        workshop: where.
        random: decides the order and the moments.
        most: faults of a kind in a command; None for all that there are.
        mutation: of the code under test; None for the code as it is.
    """

    workshop: Workshop
    random: random.Random
    most: int | None = None
    mutation: Mutation | None = None
    _known: dict[tuple[str, frozenset[tuple[Path, str]]], tuple[str, str]] = field(
        default_factory=dict
    )

    def some(self, places: Iterable[Place]) -> list[Place]:
        """Returns so many as are wanted, in a random order: what is cut short tries all parts."""
        places = list(places)
        self.random.shuffle(places)
        return places[: self.most]

    def numbers(self, command: Command) -> list[int]:
        """Returns the numbers of the calls at which a fault is wanted."""
        return self.some(call.number for call in command.calls)

    def judge_process(self, command: Command, ended: Ended) -> tuple[str, str]:
        """Judges a process that ended after a fault, and what it left in the folder."""
        state = disk.read(self.workshop.folder)
        # Python prints one, and goes on, for an interrupt that comes while an object is destroyed.
        if ended.code and "Traceback" in ended.output:
            return LOST, f"a traceback: {last_line(ended)}"
        if ended.code:
            outcome, detail = self.judge(command, state)
            return outcome, detail or last_line(ended)
        wrong = commands.differences(command, state)
        return (LOST, f"it said that all is well; {', '.join(wrong)}") if wrong else (SURVIVED, "")

    def judge(self, command: Command, state: State) -> tuple[str, str]:
        """Judges what a fault has left by going on with it: outcome and detail."""
        half = commands.half(command, state)
        if half and not (self.mutation and self.mutation.is_whole):
            return LOST, f"neither old nor new: {', '.join(half)}"
        key = command.name, state_key(state)
        if key not in self._known:
            self._known[key] = self.go_on(command, state)
        return self._known[key]

    def go_on(
        self, command: Command, state: State, *, before: Callable[[], object] = lambda: None
    ) -> tuple[str, str]:
        """Goes on with what a fault has left, or begins anew if that is nothing.

        Args:
            command: that met the fault.
            state: that it left.
            before: what the process does first.
        """
        if not commands.differences(command, state):
            return EXACT, ""
        ended = self.workshop.run(
            *command.again, state=state, mutation=self.mutation, before=before
        )
        missing: set[str] = set()
        if "no run here" in ended.output:
            ended = self.workshop.go_on(*command.arguments, mutation=self.mutation, before=before)
        elif "this run has ended" in ended.output:
            # All but the picture, which `keras-cifar plot` draws.
            ended, missing = Ended(0, ""), {"run/history.png"}
        if ended.code:
            return LOST, f"it does not go on: {last_line(ended)}"
        if "torn or altered" in ended.output:
            return LOST, f"a checkpoint is: {last_line(ended)}"
        if command.is_alone and not missing:
            done, went_on = _epochs(state), _epoch_of(ended)
            if went_on < done - 1:
                return LOST, f"the work of {done - went_on} epochs"
        wrong = set(commands.differences(command, disk.read(self.workshop.folder))) - missing
        return (LOST, f"another end: {', '.join(sorted(wrong))}") if wrong else (EXACT, "")


def last_line(ended: Ended) -> str:
    """Returns the last line that a process printed."""
    lines = ended.output.strip().splitlines()
    return lines[-1] if lines else f"exit code {ended.code}"


def _epochs(state: State) -> int:
    """Returns how many epochs a run's history has."""
    history = state.get(Path("run/history.csv"))
    return len(history.splitlines()) - 1 if history else 0


def _epoch_of(ended: Ended) -> int:
    """Returns after which epoch a run went on; those of no run or a finished one do not count."""
    found = re.search("going on after epoch ([0-9]+)", ended.output)
    return int(found[1]) if found else 0
