"""Trains the same by one process and by several workers, and compares what comes of it.

    python scripts/compare_workers.py
    python scripts/compare_workers.py --defaults --epochs 6 --seed 0 --seed 1 --seed 2

The first compares weights and history after an epoch on the sample, in float32, without dropout and
with synchronised batch normalisation: what is left are sums in another order. It fails if a
difference is more than the tolerance. Training makes any difference grow, the faster the higher the
rate: so the rate is low, and one process with other layers (--no-accelerate) is compared too. The
second leaves the defaults as they are, where each replica drops other features and normalises by
its own share, and compares accuracies.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from keras_cifar.distribute.cluster import TF_CONFIG
from keras_cifar.history import read_history
from keras_cifar.launch import held_ports, share_out
from keras_cifar.recipes import RECIPES, TrainConfig
from keras_cifar.recipes.article import ArticleRecipe
from keras_cifar.run_dir import RunDir
from keras_cifar.start import start_tensorflow

# 1, 2, 3 and 4 divide it, and of 100 images fast94 keeps 64.
BATCH_SIZES = {"article": 120, "fast94": 100}
LEARNING_RATE = 1e-3  # of the comparison of weights


class WithoutDropout(ArticleRecipe):
    """The article's recipe, but that nothing is dropped."""

    def build_model(self, *, seed: int) -> Any:
        """Returns the article's network without dropout."""
        from keras_cifar.model import article

        return article.build_model(seed=seed, dropout=0.0, channel_dropout=0.0)


@click.group(invoke_without_command=True)
@click.option("--recipe", type=click.Choice(tuple(BATCH_SIZES)), default="article")
@click.option("--workers", type=int, multiple=True, default=(1, 2, 3, 4), show_default=True)
@click.option("--defaults", is_flag=True, help="Compare accuracies with the default settings.")
@click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True)
@click.option("--epochs", default=1, show_default=True)
@click.option("--tolerance", default=1e-5, show_default=True, help="Of the relative differences.")
@click.pass_context
def main(context: click.Context, tolerance: float, **options: Any) -> None:
    """Prints a Markdown table: a line for each number of workers."""
    if context.invoked_subcommand:
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.pop("defaults"):
            compare_accuracies(Path(folder), **options)
        else:
            compare_weights(Path(folder), tolerance=tolerance, **options)


def compare_weights(
    folder: Path, *, tolerance: float, workers: tuple[int, ...], seeds: tuple[int, ...], **what: Any
) -> None:
    """Compares weights and history with those of one process, of the first seed."""
    what |= {"exact": True, "seed": seeds[0], "learning_rate": LEARNING_RATE}
    alone = train(folder / "alone", count=None, **what)
    print("| workers | weights differ by | history differs by |\n|---|---|---|")
    largest = 0.0
    for name, count, more in (
        ("none, other layers", None, {"accelerate": False}),
        *((str(count), count, {}) for count in workers),
    ):
        run = train(folder / name, count=count, **what, **more)
        weights, history = difference(weights_of(alone), weights_of(run)), histories(alone, run)
        largest = max(largest, weights, history)
        print(f"| {name} | {weights:.1e} | {history:.1e} |", flush=True)
    if largest > tolerance:
        raise click.ClickException(f"{largest:.1e} is more than {tolerance:.1e}.")


def compare_accuracies(
    folder: Path, *, workers: tuple[int, ...], seeds: tuple[int, ...], **what: Any
) -> None:
    """Prints the validation accuracy of the last epoch, for each number of workers."""
    print("| workers | validation accuracy, %: mean ± deviation | of each seed |\n|---|---|---|")
    for count in (None, *workers):
        runs = [
            train(folder / f"{count}-{seed}", count=count, exact=False, seed=seed, **what)
            for seed in seeds
        ]
        last = [100 * read_history(run.history).val_accuracy[-1] for run in runs]
        spread = statistics.stdev(last) if len(last) > 1 else 0.0
        each = ", ".join(f"{value:.2f}" for value in last)
        print(
            f"| {count or 'none'} | {statistics.mean(last):.2f} ± {spread:.2f} | {each} |",
            flush=True,
        )


def train(path: Path, *, count: int | None, **what: Any) -> RunDir:
    """Trains a run by one process as it is, or by some workers on this machine."""
    command = [sys.executable, __file__, "worker", str(path), json.dumps(what)]
    with held_ports(count or 0) as ports:
        environments = [share.environment for share in share_out(ports)] if count else [{}]
        processes = [subprocess.Popen(command, env=os.environ | more) for more in environments]
        failed = [process.args for process in processes if process.wait()]
    if failed:
        raise click.ClickException(f"{path.name}: {len(failed)} workers failed.")
    return RunDir(path)


@main.command()
@click.argument("path", type=Path)
@click.argument("what", type=json.loads)
def worker(path: Path, what: dict[str, Any]) -> None:
    """Is one of the processes."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    start_tensorflow(trains=True)
    from keras_cifar.train import train as train_run

    is_shared = TF_CONFIG in os.environ
    exact, recipe = what.pop("exact"), what.pop("recipe")
    if exact and recipe == "article":
        RECIPES[recipe] = WithoutDropout()
    config = TrainConfig.of(
        recipe=recipe,
        dataset="sample",
        batch_size=BATCH_SIZES[recipe],
        validation_fraction=0.2,
        precision="float32",
        strategy="multi-worker" if is_shared else "single",
        sync_batch_norm=exact and is_shared,
        **what,
    )
    train_run(config, RunDir(path))


def weights_of(run: RunDir) -> list[np.ndarray]:
    """Returns the values of the chosen model."""
    start_tensorflow()
    from keras_cifar.model.load import load_model

    return list(load_model(run.require_model()).get_weights())


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Returns the norm of the difference of all weights, by the norm of the weights."""
    one, other = (np.concatenate([array.ravel() for array in arrays]) for arrays in (ours, theirs))
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


def histories(one: RunDir, other: RunDir) -> float:
    """Returns the largest relative difference of what is in both histories, seconds aside."""
    ours, theirs = read_history(one.history)._asdict(), read_history(other.history)._asdict()
    pairs = [
        (mine, their)
        for name in ours
        if name not in ("epoch", "seconds")
        for mine, their in zip(ours[name], theirs[name], strict=True)
    ]
    return max(abs(mine - their) / abs(mine) for mine, their in pairs if mine)


if __name__ == "__main__":
    main()
