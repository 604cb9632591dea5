"""Trains by the fast94 recipe and by airbench94_muon in PyTorch, in turn: seconds and accuracy.

    pip install torch==2.13.0
    python scripts/benchmark_fast.py benchmark --seeds 5 --torch-seeds 1

Every run is on all 50,000 training images and is measured once on the 10,000 test images, at its
end; all are reported. Training time is from the first step's preparation to the last step. PyTorch
gets the precision that `train` picks for this machine. It takes hours: what is done is kept in the
folder and not done again, and a run of fast94 that was interrupted goes on.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import click

from keras_cifar.cifar10 import CIFAR10
from keras_cifar.start import start_tensorflow

start_tensorflow()

from shared.fast_runs import describe, evaluate_keras, train_keras, train_torch, write_data  # noqa: E402

from keras_cifar.data.prepare import load  # noqa: E402
from keras_cifar.history import read_history  # noqa: E402


def run_keras(folder: Path, *, seed: int) -> dict[str, Any]:
    """Trains and evaluates fast94, or goes on with it; returns its figures."""
    run = train_keras(folder / f"fast94-{seed}", "--recipe", "fast94", "--seed", str(seed))
    accuracy = evaluate_keras(run)
    started = time.perf_counter()
    tta_accuracy = evaluate_keras(run, "--tta")
    return {
        "train_seconds": sum(read_history(run.history).seconds),
        "evaluate_seconds": time.perf_counter() - started,
        "accuracy": accuracy,
        "tta_accuracy": tta_accuracy,
        **json.loads(run.config.read_text()),
    }


def run_torch(folder: Path, *, seed: int) -> dict[str, Any]:
    """Trains and evaluates airbench94_muon; returns its figures."""
    data = folder / "cifar10.npz"
    if not data.is_file():
        train, test = (load(CIFAR10, split=split, data_dir=None) for split in ("train", "test"))
        write_data(data, train=train, evaluation=test)
    return train_torch(data, log=folder / f"torch-{seed}.log", seed=seed)[-1]


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
def main(folder: Path, seeds: int, torch_seeds: int) -> None:
    """Runs what FOLDER has no figures of yet, and prints all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    print(describe())
    kept = folder / "figures.json"
    figures = json.loads(kept.read_text()) if kept.is_file() else {}
    for seed in range(max(seeds, torch_seeds)):
        for name, run, count in (("fast94", run_keras, seeds), ("torch", run_torch, torch_seeds)):
            key = f"{name}-{seed}"
            if seed < count and key not in figures:
                figures[key] = run(folder, seed=seed)
                kept.write_text(json.dumps(figures, indent=2))
    ours = [figures[f"fast94-{seed}"] for seed in range(seeds)]
    theirs = [figures[f"torch-{seed}"] for seed in range(torch_seeds)]
    print(f"fast94: {described(ours)}")
    if theirs:
        print(f"airbench94_muon in PyTorch: {described(theirs)}")
        medians = [
            statistics.median(figure["train_seconds"] for figure in of) for of in (ours, theirs)
        ]
        print(f"training time, fast94 / PyTorch: {medians[0] / medians[1]:.2f}")


if __name__ == "__main__":
    main()
