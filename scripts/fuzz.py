"""Gives the parsers inputs that a fuzzer makes up, and keeps those that they do not take well.

    python scripts/fuzz.py --target rest --seconds 3600 --corpus fuzz

A parser may refuse an input by the exceptions that it documents, within a time and memory that the
input's size explains. What else happens is a finding: the shortest input for each place in the code
goes to CORPUS/TARGET/findings, with its traceback. What was learnt stays in CORPUS/TARGET/inputs,
and a later run goes on with it. Needs Linux, Python 3.11 or newer, and atheris (libFuzzer for
Python): `pip install '.[test]'`.
"""

import importlib.util
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click

SCRIPTS = Path(__file__).parent
# As `fuzzing.table` has them, which takes seconds to import.
NAMES = ("rest", "grpc", "config", "image", "archive", "parquet", "tfds", "keras", "run")
# Time is that of the wall here, which `fuzzing.target.bounded` counts better.
OPTIONS = (
    *("-timeout=120", "-report_slow_units=120", "-rss_limit_mb=6000", "-max_len=131072"),
    "-print_final_stats=1",
)


class Outcome(NamedTuple):
    """What became of a target.

    Attributes:
        inputs: that were tried.
        cpu_seconds: that it took, start included.
        findings: the files that hold an input.
    """

    inputs: int
    cpu_seconds: float
    findings: list[Path]


@click.command()
@click.option("--target", "names", multiple=True, type=click.Choice(NAMES), help="Default: each.")
@click.option("--seconds", default=60, show_default=True, help="For each target.")
@click.option(
    "--corpus",
    type=click.Path(path_type=Path, file_okay=False),
    default="fuzz",
    show_default=True,
    help="Folder for inputs and findings.",
)
def main(names: tuple[str, ...], seconds: int, corpus: Path) -> None:
    """Prints for each target how much was tried and what was found; fails if anything was."""
    if importlib.util.find_spec("atheris") is None:
        raise click.ClickException("needs atheris: pip install '.[test]', on Python 3.11 or newer")
    found = 0
    for name in names or NAMES:
        outcome = fuzz(name, seconds=seconds, folder=(corpus / name).absolute())
        click.echo(
            f"{name}: {outcome.inputs:,} inputs in {outcome.cpu_seconds:.0f} s of CPU, "
            f"{len(outcome.findings)} findings"
        )
        for path in outcome.findings:
            click.echo(f"  {path}")
        found += len(outcome.findings)
    if found:
        raise click.exceptions.Exit(1)


def fuzz(name: str, *, seconds: float, folder: Path) -> Outcome:
    """Fuzzes a target, anew after each crash of its process, until the time is over."""
    inputs, findings, log = folder / "inputs", folder / "findings", folder / "log.txt"
    for path in (inputs, findings):
        path.mkdir(parents=True, exist_ok=True)
    before, end = _cpu_seconds(), time.monotonic() + seconds
    log.touch()
    logged = log.stat().st_size
    while (left := int(end - time.monotonic())) > 0:
        known = set(findings.iterdir())
        options = (*OPTIONS, f"-max_total_time={left}", f"-artifact_prefix={findings}/")
        code = _run(name, inputs, findings, *options, log=log)
        if code and known == set(findings.iterdir()):
            raise click.ClickException(f"{name}: did not run; {log} has what it said")
    with log.open("rb") as file:
        file.seek(logged)
        counts = re.findall(rb"stat::number_of_executed_units: (\d+)", file.read())
    kept = sorted(path for path in findings.iterdir() if path.suffix != ".txt")
    return Outcome(sum(map(int, counts)), _cpu_seconds() - before, kept)


def _run(name: str, *arguments: object, log: Path) -> int:
    with tempfile.TemporaryDirectory() as scratch, log.open("ab") as output:
        command = [sys.executable, "-m", "fuzzing.process", name, scratch, *map(str, arguments)]
        return subprocess.run(command, cwd=SCRIPTS, stdout=output, stderr=output).returncode


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
