"""Loads an exported SavedModel in older TensorFlow releases and compares their answers.

    python scripts/check_tensorflow_versions.py models/cifar10/1

TensorFlow does not promise that they can, and TensorFlow Serving X is built on TensorFlow X. Each
release is installed in a virtual environment of its own, and loads the model by the loader that
TensorFlow Serving of that release uses. The images are real ones.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import click

from keras_cifar.cifar10 import SAMPLE
from keras_cifar.start import start_tensorflow

start_tensorflow()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from keras_cifar.data.prepare import load  # noqa: E402

# Runs in this process and, without keras_cifar, in those of the other releases.
ANSWER = """
import sys

import numpy as np
import tensorflow as tf

version, given, answers = sys.argv[1:]
tf.get_logger().setLevel("ERROR")
session = tf.compat.v1.Session(graph=tf.Graph())
with session.graph.as_default():
    graph = tf.compat.v1.saved_model.load(session, ["serve"], version)
arrays = np.load(given, allow_pickle=True)
found = {}
for name, signature in graph.signature_def.items():
    if name in arrays:
        (image,) = signature.inputs.values()
        outputs = {key: info.name for key, info in signature.outputs.items()}
        for key, value in session.run(outputs, {image.name: arrays[name]}).items():
            found[f"{name}.{key}"] = value.astype(str) if value.dtype == object else value
np.savez(answers, **found)
print(tf.__version__)
"""


@click.command()
@click.argument("version", type=click.Path(path_type=Path, exists=True))
@click.option("--tensorflow", "releases", multiple=True, default=("2.20.0", "2.19.1"))
@click.option("--images", default=256, show_default=True)
@click.option("--tolerance", default=1e-5, show_default=True)
def main(version: Path, releases: tuple[str, ...], images: int, tolerance: float) -> None:
    """Prints, for each release, how closely its answers are this one's."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pixels = load(SAMPLE, split="train", data_dir=None).images[:images]
        encoded = [tf.io.encode_png(image).numpy() for image in pixels]
        given = folder / "images.npz"
        np.savez(given, serving_default=pixels, image_bytes=np.array(encoded, object))
        here = answers(Path(sys.executable), version, given, folder / "here.npz")
        for release in releases:
            python = install(release, folder / release)
            there = answers(python, version, given, folder / f"{release}.npz")
            compare(there, here, release=release, tolerance=tolerance)


def install(release: str, folder: Path) -> Path:
    """Makes a virtual environment with one release of TensorFlow; returns its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", f"tensorflow=={release}"]
    subprocess.run(command, check=True)
    return python


def answers(python: Path, version: Path, given: Path, path: Path) -> dict[str, np.ndarray]:
    """Returns what a Python's TensorFlow answers, by signature and output."""
    command = [python, "-c", ANSWER, version, given, path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise click.ClickException(result.stderr)
    with np.load(path) as arrays:
        return dict(arrays)


def compare(
    there: dict[str, np.ndarray],
    here: dict[str, np.ndarray],
    *,
    release: str,
    tolerance: float,
) -> None:
    """Prints how closely two sets of answers agree; raises if they do not."""
    if there.keys() != here.keys() or len(here) != 6:
        raise click.ClickException(f"TensorFlow {release} gives {sorted(there)}.")
    for name, expected in here.items():
        if expected.dtype.kind != "f":
            if not np.array_equal(there[name], expected):
                raise click.ClickException(f"TensorFlow {release} differs in {name}.")
            continue
        difference = float(np.abs(there[name] - expected).max())
        print(
            f"TensorFlow {release}, {name.split('.')[0]}: {len(expected)} labels the same, "
            f"probabilities within {difference:.1e}"
        )
        if not difference <= tolerance:
            raise click.ClickException("more than allowed")


if __name__ == "__main__":
    main()
