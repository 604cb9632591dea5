"""All that is to be known of a GPU, in 8 minutes: one JSON and one Markdown table.

    python scripts/benchmark_gpu.py gpu-results

Each part runs in a process of its own, so that one that fails, or for which a package is missing,
leaves the others alone; it is then named with its reason. The parts, in this order:

    device    what TensorFlow says of it, and what `train` chooses
    article   images/s of the article's network, bfloat16 and float32, with and without XLA
    torch     the same in PyTorch, eager and compiled, where PyTorch is installed
    fast94    trained several times in one process, the first of them cold: seconds, accuracy
    resume    a training killed and resumed, compared bit by bit with an unbroken one
    export    images/s of the exported network at batch 1, 64 and 1,024
    fast96    trained once

Accuracies are of the 10,000 test images, at the end of a run; nothing is chosen by them. With
--short, the parts are as small as can be, on the sample: for a CPU, to see that the script works.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click

from keras_cifar.start import start_tensorflow

Figures = dict[str, Any]
BATCHES = (1, 64, 1024)


class Size(NamedTuple):
    """How much is done.

    Attributes:
        dataset: that is trained on.
        precisions: of the article's network.
        batch_size: of it.
        seconds: of a measurement of images/s.
        settings: of the recipe that is trained for its accuracy, where they are not its own.
        seeds: so many times.
        resume: options of scripts/kill_and_resume.py; None to leave that to the tests.
        slow_recipe: that is trained once; None for none.
    """

    dataset: str
    precisions: tuple[str, ...]
    batch_size: int
    seconds: float
    settings: dict[str, int]
    seeds: int
    resume: tuple[str, ...] | None
    slow_recipe: str | None


FULL = Size(
    dataset="cifar10",
    precisions=("bfloat16", "float32"),
    batch_size=128,
    seconds=5.0,
    settings={},
    seeds=5,
    resume=("--kills", "1", "--epochs", "3"),
    slow_recipe="fast96",
)
SHORT = Size(
    dataset="sample",
    precisions=("float32",),
    batch_size=16,
    seconds=0.1,
    settings={"epochs": 1, "batch_size": 1001},  # one step, on half of the sample
    seeds=1,
    resume=None,
    slow_recipe=None,
)


def device(_: Size) -> Figures:
    """Returns what is measured on."""
    start_tensorflow(trains=True)
    from keras_cifar.accelerate import xla
    from keras_cifar.machine import cpu_model, device_kind, gpus, pick_precision

    return {
        "GPU": ", ".join(gpu.name for gpu in gpus()) or "none",
        "CPU": cpu_model(),
        "system": platform.platform(),
        "TensorFlow": version("tensorflow"),
        "Keras": version("keras"),
        "precision": "{}: {}".format(*pick_precision()),
        "XLA": "{}: {}".format(*xla.state("single", device=device_kind())),
    }


def article(size: Size) -> Figures:
    """Returns images/s of training by precision, with and without XLA."""
    start_tensorflow(trains=True)
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_cifar.data.examples import Examples
    from keras_cifar.machine import device_kind
    from keras_cifar.recipes import RECIPES, TrainConfig

    random = np.random.default_rng(0)
    shape = (size.batch_size, 32, 32, 3)
    images = tf.constant(random.integers(256, size=shape, dtype=np.uint8))
    labels = tf.constant(np.arange(size.batch_size) % 10)
    figures = {}
    for precision in size.precisions:
        config = TrainConfig(precision=precision, strategy="single", batch_size=size.batch_size)
        for compiles in (True, False):
            keras.config.set_dtype_policy(config.dtype_policy)
            model = RECIPES["article"].compile_model(
                config,
                examples=Examples(images.numpy(), labels.numpy()),
                steps=1_000_000,
                device=device_kind(),
                jit_compile=compiles,
            )
            name = f"{precision}, {'with' if compiles else 'without'} XLA"
            batches = tf.data.Dataset.from_tensors((images, labels)).cache().repeat()
            figures[name] = fit_rate(model, batches, size=size)
    return figures


def fit_rate(model: Any, batches: Any, *, size: Size) -> float:
    """Returns the images/s of `model.fit`, after what it takes to begin."""
    model.fit(batches, steps_per_epoch=3, verbose=0)
    steps, seconds = 1, 0.0
    while seconds < size.seconds:
        steps *= 2
        started = time.perf_counter()
        model.fit(batches, steps_per_epoch=steps, verbose=0)
        seconds = time.perf_counter() - started
    return steps * size.batch_size / seconds


def torch(size: Size) -> Figures:
    """Returns images/s of training in PyTorch, eager and compiled."""
    if not find_spec("torch"):
        raise ModuleNotFoundError("PyTorch is not installed")
    import torch as pytorch

    place = "cuda" if pytorch.cuda.is_available() else "cpu"
    script = Path(__file__).with_name("torch_article.py")
    figures: Figures = {"PyTorch": version("torch"), "device": place}
    for precision in size.precisions:
        for mode in ("--no-compile", "--compile"):
            options = ["--precision", precision, "--device", place, mode]
            command = [sys.executable, str(script), *options, "--batch-size", str(size.batch_size)]
            found = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            figures[f"{precision}, {'eager' if 'no' in mode else 'compiled'}"] = float(found)
    return figures


def fast94(size: Size) -> Figures:
    """Returns seconds and accuracies of several trainings in this process."""
    return trained(size, recipe="fast94-gpu", seeds=range(size.seeds))


def fast96(size: Size) -> Figures:
    """Returns the same of one training."""
    if not size.slow_recipe:
        raise ValueError("not in the short form")
    return trained(size, recipe=size.slow_recipe, seeds=range(1))


def trained(size: Size, *, recipe: str, seeds: range) -> Figures:
    """Trains a recipe, and measures each model with one view of an image and with six."""
    start_tensorflow(trains=True)
    from keras_cifar.evaluate import evaluate
    from keras_cifar.history import read_history
    from keras_cifar.recipes import TrainConfig
    from keras_cifar.run_dir import RunDir
    from keras_cifar.train import train

    figures: Figures = {"recipe": recipe, "seconds": [], "accuracy": [], "six views": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            run = RunDir(Path(folder) / str(seed))
            settings = {"dataset": size.dataset, "seed": seed, **size.settings}
            train(TrainConfig.of(recipe, **settings), run)
            figures["seconds"].append(sum(read_history(run.history).seconds))
            for name, views in (("accuracy", 1), ("six views", 6)):
                metrics = evaluate(run, split="test", data_dir=None, views=views)
                figures[name].append(metrics.accuracy)
    return figures


def resume(size: Size) -> Figures:
    """Returns what scripts/kill_and_resume.py says in the end."""
    if not size.resume:
        raise ValueError("not in the short form")
    script = Path(__file__).with_name("kill_and_resume.py")
    command = [sys.executable, str(script), *size.resume]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError((ended.stderr or ended.stdout).strip().splitlines()[-1])
    return {"killed and resumed": ended.stdout.splitlines()[-1]}


def export(size: Size) -> Figures:
    """Returns images/s of the network as it is exported."""
    start_tensorflow()
    import numpy as np
    import tensorflow as tf

    from keras_cifar.model import article as network
    from keras_cifar.model.inference import inference_model

    model = tf.function(inference_model(network.build_model(seed=0), precision="float32"))
    figures = {}
    for count in BATCHES:
        images = tf.constant(np.zeros((count, 32, 32, 3), np.uint8))
        model(images)
        started, calls = time.perf_counter(), 0
        while (seconds := time.perf_counter() - started) < size.seconds or not calls:
            model(images).numpy()
            calls += 1
        figures[f"batch {count:,}"] = calls * count / seconds
    return figures


PARTS: dict[str, Callable[[Size], Figures]] = {
    part.__name__: part for part in (device, article, torch, fast94, resume, export, fast96)
}


def run_part(name: str, *, short: bool, seconds: float) -> Figures:
    """Runs a part in a process of its own; returns its figures, or {"skipped": reason}."""
    command = [sys.executable, __file__, "--part", name, *(["--short"] if short else [])]
    if seconds <= 0:
        return {"skipped": "no time left"}
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"not done within the {seconds:.0f} s that were left"}
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        return {"skipped": lines[-1] if lines else f"exit code {ended.returncode}"}
    figures: Figures = json.loads(ended.stdout.splitlines()[-1])
    return figures


def markdown(results: dict[str, Figures]) -> str:
    """Returns a table of all figures."""
    rows = [
        f"| {part} | {name} | {described(value)} |"
        for part, figures in results.items()
        for name, value in figures.items()
    ]
    return "\n".join(["| part | what | result |", "| --- | --- | --- |", *rows, ""])


def described(value: Any) -> str:
    """Returns a figure for a person: each of several, and their mean and deviation."""
    if isinstance(value, float):
        return f"{value:,.0f} images/s"
    if not isinstance(value, list):
        return str(value)
    each = ", ".join(f"{one:.4g}" for one in value)
    if len(value) == 1:
        return each
    return f"{statistics.mean(value):.4g} ± {statistics.stdev(value):.2g} ({each})"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--short", is_flag=True, help="As small as can be, on the sample.")
@click.option("--minutes", default=8.0, show_default=True, help="What is not done by then is left.")
@click.option("--part", type=click.Choice(list(PARTS)), help="Run it here; print its JSON.")
def main(folder: Path | None, part: str | None, *, short: bool, minutes: float) -> None:
    """Writes gpu.json and gpu.md to FOLDER."""
    if part:
        print(json.dumps(PARTS[part](SHORT if short else FULL)))
        return
    if not folder:
        raise click.UsageError("FOLDER: name one for gpu.json and gpu.md.")
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    results: dict[str, Figures] = {}
    for name in PARTS:
        results[name] = run_part(name, short=short, seconds=end - time.monotonic())
        print(f"{name}: {results[name]}", flush=True)
        # After each part, so that a machine that is taken away has told what it knew.
        (folder / "gpu.json").write_text(json.dumps(results, indent=2) + "\n")
        (folder / "gpu.md").write_text(markdown(results))


if __name__ == "__main__":
    main()
