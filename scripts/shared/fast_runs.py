"""Runs of keras-cifar and of PyTorch, for the benchmarks that compare them."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from keras_cifar.data.examples import Examples
from keras_cifar.machine import cpu_model, pick_precision
from keras_cifar.run_dir import RunDir

KERAS_CIFAR = (sys.executable, "-m", "keras_cifar")
TORCH_AIRBENCH = Path(__file__).parents[1] / "torch_airbench.py"


def describe() -> str:
    """Returns what the figures depend on."""
    names = [name for name in ("tensorflow", "keras", "torch") if find_spec(name)]
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    precision, reason = pick_precision()
    machine = f"{cpu_model()}, {os.cpu_count()} threads, {platform.platform()}"
    return f"{machine}\n{packages} {precision} ({reason})"


def train_keras(path: Path, *settings: str) -> RunDir:
    """Trains as `keras-cifar train` does it, or goes on with that; its progress goes to PATH.log.

    Args:
        path: of the run; one that has ended is left as it is.
        settings: options of `train`.
    """
    run = RunDir(path)
    if not run.config.is_file() or run.checkpoint.is_dir():
        # A run that ended before it had config.json has nothing to go on with.
        options = ("--resume",) if run.config.is_file() else settings
        with path.with_name(f"{path.name}.log").open("a") as log:
            command = [*KERAS_CIFAR, "train", *options, "--run-dir", str(path)]
            subprocess.run(command, stderr=log, check=True)
    return run


def evaluate_keras(run: RunDir, *options: str) -> float:
    """Returns the accuracy that `keras-cifar evaluate` finds, 0..1."""
    command = [*KERAS_CIFAR, "evaluate", str(run.path), "--json", *options]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return float(json.loads(result.stdout)["accuracy"])


def write_data(path: Path, *, train: Examples, evaluation: Examples) -> None:
    """Writes images and labels as PyTorch's program takes them."""
    arrays = {}
    for part, examples in (("train", train), ("eval", evaluation)):
        arrays |= {f"{part}_images": examples.images, f"{part}_labels": examples.labels}
    np.savez(path, **arrays)


def train_torch(data: Path, *options: str, log: Path, seed: int) -> list[dict[str, Any]]:
    """Trains airbench94_muon in PyTorch, in the precision that suits this machine best.

    Returns:
        What it printed: a value an epoch, and the figures of the run.
    """
    precision, _ = pick_precision()
    command = [sys.executable, str(TORCH_AIRBENCH), str(data), "--precision", precision]
    with log.open("w") as file:
        result = subprocess.run(
            [*command, "--seed", str(seed), *options],
            check=True,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    return [json.loads(line) for line in result.stdout.splitlines()]
