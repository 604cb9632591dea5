"""Opens a run's model.keras where this package is not installed, on each of Keras's backends.

    python scripts/check_backends.py runs/RUN

For each backend it makes a virtual environment with Keras, NumPy and that backend alone, loads the
model there with `keras.models.load_model`, and compares the logits of 100 real images with those
that the package computes here. Newer releases of PyTorch bring several GB of CUDA libraries:
`--pin torch==2.13.0` takes another one.
"""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np

from keras_cifar.cifar10 import SAMPLE
from keras_cifar.run_dir import RunDir
from keras_cifar.start import start_tensorflow

BACKENDS = ("tensorflow", "jax", "torch")
IMAGES = 100
TOLERANCE = 1e-4
# What a person does in a notebook; no part of this package.
ELSEWHERE = """
import sys
import keras, numpy as np
model_file, images, logits = sys.argv[1:]
model = keras.models.load_model(model_file)
np.save(logits, model.predict(np.load(images), verbose=0))
print(keras.backend.backend())
"""


def logits_here(run: RunDir, images: Path) -> np.ndarray:
    """Writes the images to a file; returns the logits that the package computes of them."""
    from keras_cifar.data.prepare import load
    from keras_cifar.model.load import load_model
    from keras_cifar.model.logits import predict_logits

    pixels = load(SAMPLE, split="train", data_dir=None).images[:IMAGES]
    np.save(images, pixels)
    return predict_logits(load_model(run.require_model()), pixels, source=run.model)


def logits_elsewhere(model: Path, images: Path, *, python: Path, backend: str) -> np.ndarray:
    """Returns the logits that Keras computes in another environment."""
    logits = images.with_name(f"{backend}.npy")
    environment = {**os.environ, "KERAS_BACKEND": backend}
    result = subprocess.run(
        [python, "-c", ELSEWHERE, model, images, logits],
        check=True,
        env=environment,
        cwd=images.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    if result.stdout.split() != [backend]:
        raise click.ClickException(f"Keras runs on {result.stdout.strip()}, not on {backend}.")
    return np.load(logits)


def new_environment(folder: Path, requirements: list[str]) -> Path:
    """Makes a virtual environment with these packages and returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
    return python


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--backend", "backends", multiple=True, default=BACKENDS, show_default=True)
@click.option("--pin", "pins", multiple=True, help="A version of a backend: torch==2.13.0.")
def main(run: Path, backends: tuple[str, ...], pins: tuple[str, ...]) -> None:
    """Compares the logits of RUN's model on each backend with the package's."""
    start_tensorflow()
    pinned = {pin.partition("==")[0]: pin for pin in pins}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = logits_here(RunDir(run), folder / "images.npy")
        far = []
        for backend in backends:
            requirements = [f"keras=={version('keras')}", "numpy", pinned.get(backend, backend)]
            python = new_environment(folder / f"with-{backend}", requirements)
            found = logits_elsewhere(
                RunDir(run).model.absolute(), folder / "images.npy", python=python, backend=backend
            )
            difference = np.abs(found - expected).max()
            print(f"{backend}: logits of {IMAGES} images within {difference:.1e}")
            if not difference <= TOLERANCE:
                far.append(backend)
    if far:
        raise click.ClickException(f"More than {TOLERANCE:.0e} apart: {', '.join(far)}.")


if __name__ == "__main__":
    main()
