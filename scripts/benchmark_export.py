"""Times the exported graph beside the graph without folding and beside ONNX Runtime.

    pip install '.[onnx]'
    python scripts/benchmark_export.py runs/RUN

Each contender has a process of its own and two threads. They take turns, and while one has its turn
the others are stopped: the threads of ONNX Runtime go on spinning for a while. SavedModels run in
a session as TensorFlow Serving's do, with the environment that `keras-cifar deploy` gives to it.
Rates are medians of the rounds, ratios medians of the rounds' ratios. The images are real ones.
"""

import os
import platform
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click

from keras_cifar.cifar10 import SAMPLE
from keras_cifar.run_dir import RunDir
from keras_cifar.start import start_tensorflow

# How long a round of one contender takes, about.
ROUND_SECONDS = 0.5


def saved_model_runner(path: Path) -> Callable[[Any], Any]:
    """Returns a function from images to probabilities, by the loader that servers use."""
    start_tensorflow()
    import tensorflow as tf

    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=2)
    tf.get_logger().setLevel("ERROR")  # it calls its own loader deprecated
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    with session.graph.as_default():
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
    signature = graph.signature_def["serving_default"]
    (given,) = signature.inputs.values()
    (wanted,) = [
        info for info in signature.outputs.values() if info.dtype == tf.float32.as_datatype_enum
    ]
    return session.make_callable(wanted.name, feed_list=[given.name])


def onnx_runner(path: Path) -> Callable[[Any], Any]:
    """Returns the same for ONNX Runtime with its default settings."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(
        str(path / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(["probabilities"], {"image": images})[0]


def images_per_second(run: Callable[[Any], Any], batch: Any, *, callers: int) -> float:
    """Has so many threads call `run` for a round's time."""
    run(batch)  # after a stop, caches are cold
    started = time.perf_counter()

    def call(_: int) -> int:
        calls = 0
        while time.perf_counter() < started + ROUND_SECONDS:
            run(batch)
            calls += 1
        return calls

    with ThreadPoolExecutor(callers) as threads:
        calls = sum(threads.map(call, range(callers)))
    return calls * len(batch) / (time.perf_counter() - started)


def work(connection: Connection, path: Path, images: Any) -> None:
    """Measures whenever asked: (batch size, callers) to images/s."""
    run = (onnx_runner if (path / "model.onnx").exists() else saved_model_runner)(path)
    connection.send(None)
    while True:
        batch_size, callers = connection.recv()
        connection.send(images_per_second(run, images[:batch_size], callers=callers))


class Contender:
    """A process that has one model loaded, and runs only while it is asked to."""

    def __init__(self, path: Path, images: Any) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, path, images), daemon=True)
        self.process.start()
        self.connection.recv()
        os.kill(self.process.pid, signal.SIGSTOP)

    def images_per_second(self, *, batch_size: int, callers: int) -> float:
        """Measures for a round's time."""
        os.kill(self.process.pid, signal.SIGCONT)
        self.connection.send((batch_size, callers))
        found = float(self.connection.recv())
        os.kill(self.process.pid, signal.SIGSTOP)
        return found


def write_contenders(run: RunDir, folder: Path) -> dict[str, Path]:
    """Writes the models; returns their folders by what they are."""
    start_tensorflow()
    import keras

    from keras_cifar.export import onnx, saved_model
    from keras_cifar.model.inference import inference_model
    from keras_cifar.model.load import load_model

    model = load_model(run.require_model())
    folded = inference_model(model, precision="float32")
    softmax = keras.layers.Softmax(dtype="float32")
    unfolded = keras.Sequential([keras.Input((32, 32, 3), dtype="uint8"), model, softmax])
    names = {
        "exported": "as keras-cifar exports it",
        "unfolded": "the same without folding",
        "keras": "as Keras exports it",
        "onnx": "ONNX Runtime",
    }
    for name in names:
        (folder / name).mkdir()
    saved_model.write(folded, folder / "exported")
    saved_model.write(unfolded, folder / "unfolded")
    unfolded.export(str(folder / "keras"), verbose=False)
    onnx.write(folded, folder / "onnx")
    return {title: folder / name for name, title in names.items()}


def load_images() -> Any:
    """Returns real images."""
    start_tensorflow()
    from keras_cifar.data.prepare import load

    return load(SAMPLE, split="train", data_dir=None).images


def describe() -> str:
    """Returns what the figures depend on."""
    from keras_cifar.machine import cpu_model

    packages = ", ".join(
        f"{name} {version(name)}" for name in ("tensorflow", "keras", "onnxruntime")
    )
    return f"{cpu_model()}, {os.cpu_count()} threads, {platform.platform()}\n{packages}, float32"


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option("--rounds", default=11, show_default=True)
def main(run: Path, rounds: int) -> None:
    """Prints images/s and ratios for single images and full batches, one and two at a time."""
    os.environ["TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        # In a process that ends, so that no threads of TensorFlow's stay with this one.
        with get_context("spawn").Pool(1) as writer:
            paths = writer.apply(write_contenders, (RunDir(run), Path(temporary)))
            images = writer.apply(load_images)
            print(writer.apply(describe))
        contenders = {title: Contender(path, images) for title, path in paths.items()}
        for batch_size, callers in ((1, 1), (64, 1), (1, 2), (64, 2)):
            measure(contenders, batch_size=batch_size, callers=callers, rounds=rounds)
        for contender in contenders.values():
            contender.process.kill()


def measure(
    contenders: dict[str, Contender], *, batch_size: int, callers: int, rounds: int
) -> None:
    """Has the contenders take turns and prints their medians."""
    rates: dict[str, list[float]] = {title: [] for title in contenders}
    for number in range(rounds + 1):
        for title, contender in contenders.items():
            rate = contender.images_per_second(batch_size=batch_size, callers=callers)
            if number:  # the first round chooses and prepares kernels
                rates[title].append(rate)
    base = rates[next(iter(rates))]
    print(f"\nbatch {batch_size}, {callers} at a time{'images/s':>20}{'exported / it':>16}")
    for title, values in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(base, values, strict=True)]
        print(
            f"{title:<30}{statistics.median(values):>10,.0f}{statistics.median(ratios):>10.2f} "
            f"({min(ratios):.2f}-{max(ratios):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
