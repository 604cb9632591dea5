"""Times the article's recipe: pipeline, training, a bare `model.fit`, and PyTorch, in alternation.

    pip install torch==2.13.0
    python scripts/benchmark.py
    python scripts/benchmark.py --row

Training is as `train` does it. The bare fit has the same compiled network and its batches in
memory, and no callback; so has PyTorch (`scripts/torch_article.py`), in float32 and in bfloat16.
Without PyTorch the others are timed. Rates are medians of the rounds; each round's first epoch,
which traces the graph, does not count. An epoch is the sample several times over, 40,000 images as
in reality, so that the files of its end weigh what they do there.

--row prints this machine's row of the table of CPUs in docs/results.md. Besides the article's
recipe it measures a few epochs of fast94, and of airbench94_muon in PyTorch
(`scripts/torch_airbench.py`), and tells how long all of them would take.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import click

from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir
from keras_cifar.start import start_tensorflow

start_tensorflow(trains=True)

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from shared.fast_runs import train_torch, write_data  # noqa: E402

from keras_cifar.cifar10 import CIFAR10, SAMPLE  # noqa: E402
from keras_cifar.data.examples import Examples  # noqa: E402
from keras_cifar.data.pipeline import eval_batches, train_batches  # noqa: E402
from keras_cifar.data.prepare import load  # noqa: E402
from keras_cifar.history import read_history  # noqa: E402
from keras_cifar.machine import cpu_model, onednn, pick_precision  # noqa: E402
from keras_cifar.recipes import RECIPES  # noqa: E402
from keras_cifar.train.compile import compile_model  # noqa: E402
from keras_cifar.train.fit import fit  # noqa: E402

TORCH_ARTICLE = Path(__file__).with_name("torch_article.py")
TORCH_PRECISIONS = ("float32", "bfloat16")
TORCH_EPOCHS, TORCH_BATCH_SIZE = 8, 2000


def pipeline_rate(examples: Examples, *, config: TrainConfig) -> float:
    """Returns how many images a second the training batches come at when nothing trains."""
    epochs = range(20)
    batches = train_batches(examples, batch_size=config.batch_size, seed=0, epochs=epochs)
    iterator = iter(batches)
    next(iterator)
    started = time.perf_counter()
    images = sum(len(labels) for _, labels in iterator)
    return images / (time.perf_counter() - started)


def train_rate(examples: Examples, *, config: TrainConfig) -> float:
    """Returns how many images a second `train` does, its files included."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = RunDir(Path(folder))
        run_dir.checkpoint.mkdir()
        fit(config, run_dir, examples=examples, start=None, tensorboard=None)
        seconds = read_history(run_dir.history).seconds[1:]
    return images_an_epoch(examples, config=config) * len(seconds) / sum(seconds)


def images_an_epoch(examples: Examples, *, config: TrainConfig) -> int:
    """Returns how many images are in the full batches of an epoch."""
    return len(examples.labels) // config.batch_size * config.batch_size


def bare_rate(model: keras.Model, batches: tf.data.Dataset, *, images: int, epochs: int) -> float:
    """Returns how many images a second `model.fit` does on batches in memory."""
    started = time.perf_counter()
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    return images * epochs / (time.perf_counter() - started)


def torch_rate(precision: str, *, batch_size: int) -> float:
    """Returns how many images a second PyTorch does on batches in memory."""
    options = ["--precision", precision, "--batch-size", str(batch_size)]
    command = [sys.executable, str(TORCH_ARTICLE), *options]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def fast94_seconds(examples: Examples, *, precision: str) -> float:
    """Returns how long fast94 trains on 50,000 images, by an epoch of each size of the images."""
    config = TrainConfig.of("fast94", dataset="sample", precision=precision, strategy="single")
    recipe = RECIPES["fast94"]
    steps = len(examples.labels) // config.batch_size
    model = compile_model(config, examples=examples, steps=steps * config.epochs)
    costs = recipe.epoch_costs(config)
    seconds = {}
    for epoch, cost in enumerate(costs):
        if cost in costs[epoch + 1 :]:
            continue
        for _ in range(2):  # the first traces the graph
            started = time.perf_counter()
            model.fit(
                recipe.batches(config, examples=examples, epochs=range(epoch, epoch + 1)),
                epochs=epoch + 1,
                initial_epoch=epoch,
                steps_per_epoch=steps,
                callbacks=recipe.callbacks(),
                shuffle=False,
                verbose=0,
            )
            seconds[cost] = time.perf_counter() - started
    return (
        sum(seconds[cost] for cost in costs) * CIFAR10.train.examples / (steps * config.batch_size)
    )


def torch_airbench_seconds(examples: Examples) -> float:
    """Returns how long airbench94_muon trains in PyTorch on as many, by its second epoch."""
    images = 2 * TORCH_BATCH_SIZE
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "cifar10.npz"
        few = examples.take(np.arange(100))
        write_data(data, train=examples.take(np.arange(images)), evaluation=few)
        log = data.with_suffix(".log")
        _, epoch, _ = train_torch(data, "--epochs", "2", log=log, seed=0)
    return float(epoch["seconds"]) * TORCH_EPOCHS * CIFAR10.train.examples / images


def row(examples: Examples, *, precision: str, rounds: int) -> str:
    """Returns this machine's row: rates and seconds in alternation with PyTorch's, medians."""
    config = TrainConfig.of(
        dataset="sample", validation_fraction=0.0, precision=precision, strategy="single", epochs=2
    )
    article: list[list[float]] = []
    fast94: list[list[float]] = []
    few = examples.take(np.arange(2 * TORCH_BATCH_SIZE))
    many = examples.take(np.arange(len(examples.labels) // 2))
    for _ in range(rounds):
        theirs = max(torch_rate(name, batch_size=config.batch_size) for name in TORCH_PRECISIONS)
        article.append([train_rate(many, config=config), theirs])
        fast94.append([fast94_seconds(few, precision=precision), torch_airbench_seconds(few)])
    cells = [cpu_model(), str(os.cpu_count()), precision, onednn()[0]]
    for pairs in (article, fast94):
        cells += [f"{statistics.median(of):,.0f}" for of in zip(*pairs, strict=True)]
        cells.append(f"{statistics.median(ours / theirs for ours, theirs in pairs):.2f}")
    return f"| {' | '.join(cells)} |"


def described(rates: dict[str, float]) -> str:
    """Returns the rates in a line."""
    return ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()) + " images/s"


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--epochs", default=1, show_default=True, help="Timed in each round.")
@click.option("--repeat", default=20, show_default=True, help="Of the sample in an epoch.")
@click.option("--row", "is_row", is_flag=True, help="Print the row of the table of CPUs alone.")
def main(rounds: int, epochs: int, repeat: int, *, is_row: bool) -> None:
    """Prints rates and their ratios."""
    precision, reason = pick_precision()
    config = TrainConfig(
        dataset="sample",
        validation_fraction=0.0,
        precision=precision,
        strategy="single",
        epochs=epochs + 1,
    )
    print(
        f"{cpu_model()}, {os.cpu_count()} threads, {platform.platform()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"TensorFlow {version('tensorflow')}, Keras {version('keras')}, {precision} ({reason})")
    sample = load(SAMPLE, split="train", data_dir=None)
    examples = sample.take(np.tile(np.arange(len(sample.labels)), repeat))
    if is_row and find_spec("torch") is None:
        raise click.ClickException("--row compares with PyTorch: pip install torch==2.13.0")
    if is_row:
        print(row(examples, precision=precision, rounds=rounds))
        return
    images = images_an_epoch(examples, config=config)
    whole = examples.take(np.arange(images))
    batches = eval_batches(whole, batch_size=config.batch_size).cache()
    model = compile_model(config, examples=whole, steps=1_000_000)
    model.fit(batches, shuffle=False, verbose=0)
    has_torch = find_spec("torch") is not None
    torch = {f"PyTorch {name}": name for name in TORCH_PRECISIONS if has_torch}
    print(f"PyTorch {version('torch')}" if torch else "PyTorch is not installed")
    rates: dict[str, list[float]] = {name: [] for name in ("pipeline", "train", "bare fit", *torch)}
    for number in range(rounds):
        rates["pipeline"].append(pipeline_rate(examples, config=config))
        rates["train"].append(train_rate(examples, config=config))
        rates["bare fit"].append(bare_rate(model, batches, images=images, epochs=epochs))
        for name, torch_precision in torch.items():
            rates[name].append(torch_rate(torch_precision, batch_size=config.batch_size))
        print(f"round {number + 1}: {described({name: rates[name][-1] for name in rates})}")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"median: {described(medians)}")
    pairs = [("train", "bare fit"), ("pipeline", "train")]
    if torch:
        pairs.append(("train", max(torch, key=medians.__getitem__)))
    for name, other in pairs:
        ratios = [a / b for a, b in zip(rates[name], rates[other], strict=True)]
        print(f"{name} / {other}: {statistics.median(ratios):,.3f}")


if __name__ == "__main__":
    main()
