"""Trains by the fast94 recipe and by airbench94_muon in PyTorch, in turn: seconds and accuracy.

    pip install torch==2.13.0
    python scripts/benchmark_fast.py benchmark --seeds 5 --torch-seeds 1

Every run is on all 50,000 training images and is measured once on the 10,000 test images, at its
end. It takes hours: what is done is kept in the folder, and is not done again. All is reported.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from keras_cifar.cifar10 import CIFAR10
from keras_cifar.config import RunDir
from keras_cifar.history import read_history
from keras_cifar.startup import start_tensorflow

start_tensorflow()

from keras_cifar.data.prepare import load  # noqa: E402
from keras_cifar.precision import cpu_model  # noqa: E402

TORCH_AIRBENCH = Path(__file__).with_name("torch_airbench.py")


def run_keras(folder: Path, *, recipe: str, seed: int) -> dict[str, Any]:
    """Trains and evaluates a run, or goes on with it; returns its figures."""
    run = RunDir(folder / f"{recipe}-{seed}")
    command = [sys.executable, "-m", "keras_cifar"]
    if not run.model.is_file() or run.checkpoint.exists():
        settings = ["--recipe", recipe, "--seed", str(seed)]
        options = ["--resume"] if run.config.is_file() else settings
        with (folder / f"{run.path.name}.log").open("a") as log:
            train = [*command, "train", *options, "--run-dir", str(run.path)]
            subprocess.run(train, stderr=log, check=True)
    accuracies, seconds = {}, 0.0
    for name, options in (("accuracy", []), ("tta_accuracy", ["--tta"])):
        started = time.perf_counter()
        result = subprocess.run(
            [*command, "evaluate", str(run.path), "--json", *options],
            check=True,
            stdout=subprocess.PIPE,
        )
        accuracies[name] = json.loads(result.stdout)["accuracy"]
        seconds = time.perf_counter() - started
    return {
        "train_seconds": sum(read_history(run.history).seconds),
        "evaluate_seconds": seconds,
        **accuracies,
        **run.read_config(),
    }


def run_torch(folder: Path, *, precision: str, seed: int) -> dict[str, Any]:
    """Trains and evaluates airbench94_muon; returns its figures."""
    command = [sys.executable, str(TORCH_AIRBENCH), str(data_file(folder))]
    with (folder / f"torch-{precision}-{seed}.log").open("w") as log:
        result = subprocess.run(
            [*command, "--seed", str(seed), "--precision", precision],
            check=True,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    return dict(json.loads(result.stdout.splitlines()[-1]))


def data_file(folder: Path) -> Path:
    """Returns CIFAR-10 as PyTorch's program takes it."""
    path = folder / "cifar10.npz"
    if not path.is_file():
        arrays = {}
        for split in ("train", "test"):
            examples = load(CIFAR10, split=split, data_dir=None)
            arrays |= {f"{split}_images": examples.images, f"{split}_labels": examples.labels}
        np.savez(path, **arrays)
    return path


def described(figures: list[dict[str, Any]]) -> str:
    """Returns a line: the median time, and the mean and the deviation of the accuracies."""
    seconds = statistics.median(figure["train_seconds"] for figure in figures)
    evaluation = statistics.median(figure["evaluate_seconds"] for figure in figures)
    parts = [f"{len(figures)} seeds", f"{seconds:,.0f} s of training, {evaluation:.0f} s after it"]
    for name, title in (("accuracy", "plain"), ("tta_accuracy", "with TTA")):
        values = [100 * figure[name] for figure in figures]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        each = ", ".join(f"{value:.2f}" for value in values)
        parts.append(f"{title} {statistics.mean(values):.2f} %{spread} ({each})")
    return "; ".join(parts)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seeds", default=5, show_default=True, help="Of fast94.")
@click.option("--torch-seeds", default=1, show_default=True, help="Of PyTorch's airbench94_muon.")
@click.option("--torch-precision", type=click.Choice(["float32", "bfloat16"]), default="bfloat16")
def main(folder: Path, seeds: int, torch_seeds: int, torch_precision: str) -> None:
    """Runs what FOLDER has no figures of yet, and prints all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{cpu_model()}, {os.cpu_count()} threads, {platform.platform()}")
    print(f"TensorFlow {version('tensorflow')}, Keras {version('keras')}")
    kept = folder / "figures.json"
    figures = json.loads(kept.read_text()) if kept.is_file() else {}
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for seed in range(max(seeds, torch_seeds)):
        if seed < seeds:
            key = f"fast94-{seed}"
            figures[key] = figures.get(key) or run_keras(folder, recipe="fast94", seed=seed)
            ours.append(figures[key])
        if seed < torch_seeds:
            key = f"torch-{torch_precision}-{seed}"
            figures[key] = figures.get(key) or run_torch(
                folder, precision=torch_precision, seed=seed
            )
            theirs.append(figures[key])
        kept.write_text(json.dumps(figures, indent=2))
    print(f"fast94: {described(ours)}")
    if theirs:
        print(f"airbench94_muon in PyTorch, {torch_precision}: {described(theirs)}")
        medians = [
            statistics.median(figure["train_seconds"] for figure in of) for of in (ours, theirs)
        ]
        print(f"training time, fast94 / PyTorch: {medians[0] / medians[1]:.2f}")


if __name__ == "__main__":
    main()
