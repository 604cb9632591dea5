"""Kills or stops one of two workers at each moment that matters, and resumes the run.

    python scripts/kill_workers.py
    python scripts/kill_workers.py --case chief:KILL:checkpoint --case worker:STOP:epoch

Each time, the other one must end by itself within a minute, with exit code 1 and in words; and the
run, resumed by both, must end as one that was left alone, to the bit.
"""

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from keras_cifar.files import TEMPORARY
from keras_cifar.history import read_history
from keras_cifar.launch import held_ports, share_out
from keras_cifar.run_dir import RunDir
from keras_cifar.start import start_tensorflow

WHO = {"chief": 0, "worker": 1}
SIGNALS = {"KILL": signal.SIGKILL, "STOP": signal.SIGSTOP}
MOMENTS = ("start", "epoch", "checkpoint")
CASES = [":".join(case) for case in itertools.product(WHO, SIGNALS, MOMENTS)]
SETTINGS = ["--dataset", "sample", "--epochs", "3", "--batch-size", "400"]
SECONDS_TO_END = 60
SECONDS_TO_COME = 300  # to the moment, and to the end of a run
POLL_SECONDS = 0.001


@click.command()
@click.option("--case", "cases", type=click.Choice(CASES), multiple=True, default=CASES)
def main(cases: tuple[str, ...]) -> None:
    """Prints a Markdown table: a line for each case."""
    with tempfile.TemporaryDirectory() as folder:
        alone = RunDir(Path(folder) / "alone")
        finish(start(alone, [*SETTINGS, "--run-dir", str(alone.path)]))
        print("| whom | signal | when | the other ended after | resumed |\n|---|---|---|---|---|")
        for case in cases:
            run = RunDir(Path(folder) / case.replace(":", "-"))
            seconds = strike(run, *case.split(":"))
            finish(start(run, ["--resume", "--run-dir", str(run.path)]))
            require_same(alone, run)
            cells = " | ".join(case.split(":"))
            print(f"| {cells} | {seconds:.0f} s | to the same bits |", flush=True)


def start(run: RunDir, arguments: list[str]) -> list["subprocess.Popen[str]"]:
    """Starts both workers; each has a file for what it says."""
    with held_ports(len(WHO)) as ports:
        shares = share_out(ports)
    processes = []
    for rank, share in enumerate(shares):
        with log_of(run, rank).open("w") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "keras_cifar", "train", *arguments],
                    env=os.environ | share.environment,
                    stdout=log,
                    stderr=log,
                    text=True,
                )
            )
    return processes


def log_of(run: RunDir, rank: int) -> Path:
    """Returns the file of what one of them says."""
    return run.path.parent / f"{run.path.name}-{rank}.log"


def finish(processes: list["subprocess.Popen[str]"]) -> None:
    """Waits for both to end well."""
    codes = [process.wait(SECONDS_TO_COME) for process in processes]
    if any(codes):
        raise click.ClickException(f"Workers ended with exit codes {codes}.")


def strike(run: RunDir, whom: str, name: str, moment: str) -> float:
    """Sends one of the two a signal at the moment; returns how long the other one lived on."""
    processes = start(run, [*SETTINGS, "--run-dir", str(run.path)])
    struck, other = processes[WHO[whom]], processes[1 - WHO[whom]]
    try:
        wait_for(run, moment)
        struck.send_signal(SIGNALS[name])
        then = time.monotonic()
        code = other.wait(SECONDS_TO_END)
        seconds = time.monotonic() - then
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said = log_of(run, 1 - WHO[whom]).read_text()
    if code != 1 or "Traceback" in said or "does not answer any more" not in said:
        raise click.ClickException(f"{run.path.name}: exit code {code}\n{said}")
    return seconds


def wait_for(run: RunDir, moment: str) -> None:
    """Returns when the chief has begun, in the second epoch, or while a checkpoint is written."""
    end = time.monotonic() + SECONDS_TO_COME
    while time.monotonic() < end:
        if moment == "start" and run.config.is_file():
            return
        if moment == "epoch" and list(run.checkpoint.glob("epoch-00001.ckpt")):
            time.sleep(1)
            return
        if moment == "checkpoint" and list(run.checkpoint.glob(f"{TEMPORARY}*")):
            return
        time.sleep(POLL_SECONDS)
    raise click.ClickException(f"{run.path.name}: it never came to the {moment}.")


def require_same(one: RunDir, other: RunDir) -> None:
    """Ends with an error if the runs differ in a bit of the model or of the history's figures."""
    ours, theirs = (read_history(run.history)._replace(seconds=[]) for run in (one, other))
    start_tensorflow()
    from keras_cifar.model.load import load_model

    weights = [load_model(run.require_model()).get_weights() for run in (one, other)]
    if ours != theirs or not all(map(np.array_equal, *weights)):
        raise click.ClickException(f"{other.path.name}: ended differently after it was resumed.")


if __name__ == "__main__":
    main()
