"""Kills a training run at random moments, resumes it, and compares it with an unbroken one.

Everything that training changes must end the same, to the bit: after each epoch the weights,
the moving statistics, the optimiser's state and the dropout generators (in the checkpoints),
and at the end the chosen model and history.csv, its seconds aside.

    python scripts/kill_and_resume.py --kills 20 --optimizer adam

What the script does not know are options of `keras-cifar train`.
"""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import click
import numpy as np

from keras_cifar.history import COLUMNS, read_history
from keras_cifar.run_dir import RunDir
from keras_cifar.start import start_tensorflow

start_tensorflow()

from keras_cifar.train.checkpoint import Checkpoint, read  # noqa: E402

POLL_SECONDS = 0.005


def start(run_dir: RunDir, settings: list[str]) -> "subprocess.Popen[bytes]":
    """Starts training, or resumes it where the run has begun."""
    resume = ["--resume"] if run_dir.config.exists() else settings
    command = [sys.executable, "-m", "keras_cifar", "train", "--run-dir", str(run_dir.path)]
    log = (run_dir.path.parent / f"{run_dir.path.name}.log").open("ab")
    return subprocess.Popen([*command, *resume], stdout=log, stderr=log)


def watch(process: "subprocess.Popen[bytes]", run_dir: RunDir, *, seconds: float) -> bool:
    """Keeps each checkpoint that appears; kills the process after `seconds`.

    Returns:
        Whether it was killed.
    """
    kept = run_dir.path.parent / f"{run_dir.path.name}-checkpoints"
    kept.mkdir(exist_ok=True)
    end = time.monotonic() + seconds
    while process.poll() is None:
        for path in run_dir.checkpoint.glob("epoch-*.ckpt"):
            if not (kept / path.name).exists():
                # The run may just have ended, or have removed an old one.
                with contextlib.suppress(FileNotFoundError):
                    os.link(path, kept / path.name)
        if time.monotonic() > end:
            process.kill()
            process.wait()
            return True
        time.sleep(POLL_SECONDS)
    if process.returncode:
        log = run_dir.path.parent / f"{run_dir.path.name}.log"
        raise click.ClickException(f"training failed:\n{log.read_text()[-2000:]}")
    return False


def has_ended(run_dir: RunDir) -> bool:
    """Tells whether training is over; a late kill may have hit what comes after it."""
    return run_dir.config.exists() and not run_dir.checkpoint.exists()


def checkpoints(run_dir: RunDir) -> dict[str, Checkpoint]:
    """Returns the checkpoints that `watch` kept, by name."""
    kept = run_dir.path.parent / f"{run_dir.path.name}-checkpoints"
    return {path.name: read(path) for path in sorted(kept.glob("*.ckpt"))}


def weights(run_dir: RunDir) -> bytes:
    """Returns the weights of the chosen model as they are stored."""
    with zipfile.ZipFile(run_dir.model) as archive:
        return archive.read("model.weights.h5")


def history(run_dir: RunDir) -> list[list[str]]:
    """Returns history.csv without the seconds."""
    rows = [line.split(",") for line in run_dir.history.read_text().splitlines()]
    seconds = COLUMNS.index("seconds")
    return [row[:seconds] + row[seconds + 1 :] for row in rows]


def differences(unbroken: RunDir, broken: RunDir) -> list[str]:
    """Returns what is not the same at the end of both runs."""
    found = []
    if history(unbroken) != history(broken):
        found.append("history.csv")
    if weights(unbroken) != weights(broken):
        found.append("model.keras")
    ours, theirs = checkpoints(unbroken), checkpoints(broken)
    for name in sorted(ours.keys() & theirs.keys()):
        pairs = zip(ours[name].variables, theirs[name].variables, strict=True)
        if not all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs):
            found.append(name)
    if not ours.keys() & theirs.keys():
        found.append("no checkpoint of both was seen")
    return found


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--kills", default=20, show_default=True, help="At least so many kill -9.")
@click.option(
    "--epochs",
    type=click.IntRange(min=2),
    default=8,
    show_default=True,
    help="Of the run on the sample.",
)
@click.option("--seed", default=0, show_default=True, help="Of the moments of the kills.")
@click.option("--work-dir", type=click.Path(path_type=Path), help="[default: a temporary folder]")
@click.argument("train_options", nargs=-1, type=click.UNPROCESSED)
def main(
    kills: int, epochs: int, seed: int, work_dir: Path | None, train_options: tuple[str, ...]
) -> None:
    """Compares runs that were killed with one that was not."""
    settings = ["--dataset", "sample", "--epochs", str(epochs), *train_options]
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=work_dir) as folder:
        unbroken = RunDir(Path(folder) / "unbroken")
        started = time.monotonic()
        watch(start(unbroken, settings), unbroken, seconds=float("inf"))
        whole = time.monotonic() - started
        click.echo(f"unbroken: {epochs} epochs in {whole:.0f} s")
        # Every second life or so gets over the start and its first epoch, and a few epochs on.
        later = read_history(unbroken.history).seconds[1:]
        longest_life = 2 * (whole - sum(later)) + max(later)
        killed = rounds = 0
        while killed < kills:
            rounds += 1
            broken = RunDir(Path(folder) / f"broken-{rounds}")
            kills_of_run = 0
            while not has_ended(broken):
                life = moments.uniform(0, longest_life)
                kills_of_run += watch(start(broken, settings), broken, seconds=life)
            killed += kills_of_run
            found = differences(unbroken, broken)
            click.echo(f"run {rounds}: {kills_of_run} kills, {', '.join(found) or 'identical'}")
            if found:
                raise click.ClickException("a resumed run differs from the unbroken one")
        click.echo(f"{killed} kills in {rounds} runs: every end identical to the unbroken run's")


if __name__ == "__main__":
    main()
