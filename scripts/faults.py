"""Breaks train, export, data and evaluate at every call that changes the disk; nothing may be lost.

    python scripts/faults.py --minutes 60 --json faults.json
    python scripts/faults.py --only "train fast94/power" --only export/kill

The kernel stops the command at each system call that changes a file (Linux, x86-64), and there the
fault is put in: see FAULTS. Afterwards each file must be the old one or the new one, and the
command must go on to the same end, to the bit, as one that was left alone; or say by name what is
damaged. Then protections are taken out of the code, one at a time, and each must be missed.

Everything runs on 40 images of the packaged sample, in copies of one process that has imported
TensorFlow, which takes longer than most of the rest.
"""

import gc
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
from fault_suite import calls, commands, disk
from fault_suite.commands import Command, Workshop
from fault_suite.faults import FAULTS, notice
from fault_suite.mutations import MUTATIONS
from fault_suite.suite import LOST, OUTCOMES, Result, Suite

from keras_cifar.machine import cpu_model, package_versions, usable_cores
from keras_cifar.start import start_tensorflow

COMMANDS = ("train fast94", "train article", "evaluate", "export", "data")
MUTATION = "mutations"
# The parts of the short form, which has one fault of each.
SHORT = tuple(f"train fast94/{part}" for part in ("power", "kill", "ENOSPC", "damage", MUTATION))


class Noticed(NamedTuple):
    """By which fault it was noticed that a protection is missing; none if it was not."""

    mutation: str
    fault: Result | None


def prepare(workshop: Workshop, wanted: set[str]) -> Iterator[Command]:
    """Yields the commands that are wanted, each left alone once."""
    start_tensorflow(trains=True)
    workshop.make_data()
    import_commands()
    fast = commands.train(workshop, "fast94")
    commands.leave_alone(workshop, fast)
    run = disk.read(workshop.folder)
    yield fast
    # The smaller network is read and exported sooner.
    makers = {
        "train article": lambda: commands.train(workshop, "article"),
        "evaluate": lambda: commands.evaluate(workshop, run),
        "export": lambda: commands.export(workshop, run),
        "data": lambda: commands.data(workshop),
    }
    for name, make in makers.items():
        if name in wanted:
            command = make()
            commands.leave_alone(workshop, command)
            yield command


def import_commands() -> None:
    """Imports what the commands do, so that their processes need not; nothing is computed yet."""
    import keras_cifar.cli
    import keras_cifar.evaluate
    import keras_cifar.export
    import keras_cifar.plot
    import keras_cifar.train  # noqa: F401

    gc.freeze()  # else a copy that collects garbage copies all of the memory


def markdown(results: Sequence[Result]) -> str:
    """Returns a row for each command and fault."""
    counts = Counter((result.command, result.fault, result.outcome) for result in results)
    rows = list(dict.fromkeys((result.command, result.fault) for result in results))
    lines = [
        f"| command | fault | put in | {' | '.join(OUTCOMES)} |",
        f"| --- | --- | ---: |{' ---: |' * len(OUTCOMES)}",
    ]
    for row in rows:
        found = [counts[(*row, outcome)] for outcome in OUTCOMES]
        lines.append(f"| {' | '.join(row)} | {sum(found)} | {' | '.join(map(str, found))} |")
    found = [sum(result.outcome == outcome for result in results) for outcome in OUTCOMES]
    lines.append(f"| all | | {sum(found)} | {' | '.join(map(str, found))} |")
    return "\n".join(lines)


class Report:
    """What has been found, told as it is found.

    Attributes:
        results: of all faults.
        noticed: of all mutations.
        unfinished: the parts for which there was no time.
    """

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.noticed: list[Noticed] = []
        self.unfinished: list[str] = []

    def add(self, result: Result) -> None:
        """Notes a result; says at once what is lost."""
        self.results.append(result)
        if result.outcome == LOST:
            click.echo(f"{result.command}, {result.fault}, {result.where}: {result.detail}")

    def markdown(self) -> str:
        """Returns the tables."""
        lines = [markdown(self.results)] if self.results else []
        if self.noticed:
            lines += ["", "| taken out of the code | noticed by |", "| --- | --- |"]
        for name, fault in self.noticed:
            by = f"{fault.command}, {fault.fault}: {fault.detail}" if fault else "**nothing**"
            lines.append(f"| {name} | {by} |")
        if self.unfinished:
            lines += ["", f"Not finished: {', '.join(self.unfinished)}."]
        return "\n".join(lines)

    def as_json(self) -> str:
        """Returns all of it, and where it was found."""
        machine = f"{cpu_model()}, {usable_cores()} cores"
        document = {
            "machine": machine,
            "versions": package_versions(),
            "results": [result._asdict() for result in self.results],
            "mutations": {name: fault and fault._asdict() for name, fault in self.noticed},
            "unfinished": self.unfinished,
        }
        return json.dumps(document, indent=2) + "\n"

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, and each mutation noticed."""
        return all(result.outcome != LOST for result in self.results) and all(
            noticed.fault for noticed in self.noticed
        )


def try_part(suite: Suite, command: Command, fault: str, *, report: Report, end: float) -> bool:
    """Puts one kind of fault into one command; returns whether there was time for all."""
    if fault == MUTATION:
        for mutation in suite.some(of for of in MUTATIONS if of.command == command.name):
            if time.monotonic() > end:
                return False
            changed = Suite(suite.workshop, suite.random, suite.most, mutation)
            report.noticed.append(Noticed(mutation.name, notice(changed, command)))
        return True
    for result in FAULTS[fault](suite, command):
        report.add(result)
        if time.monotonic() > end:
            return False
    return True


@click.command()
@click.option("--only", multiple=True, metavar="COMMAND/FAULT", help="Of this alone; repeatable.")
@click.option("--short", is_flag=True, help="A few of each kind, in half a minute.")
@click.option("--most", type=int, help="So many faults of a kind in a command.  [default: all]")
@click.option("--minutes", type=float, default=float("inf"), help="Stop after so long.")
@click.option("--seed", default=0, show_default=True, help="Of the order and the moments.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write it all here.")
@click.option("--work-dir", type=click.Path(path_type=Path), help="[default: a temporary folder]")
def main(  # noqa: PLR0913 (an argument for each option)
    *,
    only: tuple[str, ...],
    short: bool,
    most: int | None,
    minutes: float,
    seed: int,
    json_path: Path | None,
    work_dir: Path | None,
) -> None:
    """Puts faults in; ends with 1 if one lost something, or a mutation went unnoticed."""
    if not calls.is_possible():
        raise click.ClickException("the faults are put in by Linux on x86-64 alone")
    end = time.monotonic() + 60 * minutes
    if short:
        only, most = only or SHORT, most or 1
    parts = only or tuple(f"{name}/{fault}" for fault in (*FAULTS, MUTATION) for name in COMMANDS)
    for part in parts:
        name, _, fault = part.partition("/")
        if name not in COMMANDS or fault not in (*FAULTS, MUTATION):
            raise click.UsageError(
                f"--only: got {part}, expected one of {', '.join(COMMANDS)}, a slash, and one of "
                f"{', '.join((*FAULTS, MUTATION))}."
            )
    report = Report()
    if work_dir:
        work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work_dir) as folder:
        suite = Suite(Workshop(Path(folder)), random.Random(seed), most)
        wanted = {part.partition("/")[0] for part in parts}
        prepared = {command.name: command for command in prepare(suite.workshop, wanted)}
        for part in parts:
            started = time.monotonic()
            name, _, fault = part.partition("/")
            if time.monotonic() > end or not try_part(
                suite, prepared[name], fault, report=report, end=end
            ):
                report.unfinished.append(part)
            click.echo(f"{part}: {time.monotonic() - started:.0f} s", err=True)
            if json_path:
                json_path.write_text(report.as_json())
    click.echo(report.markdown())
    if not report.is_good:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
