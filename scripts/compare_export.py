"""Compares an exported SavedModel with the run's Keras model on a whole split.

    python scripts/compare_export.py runs/RUN models/cifar10/1

Loaded both by the loader that TensorFlow Serving uses and by tf.saved_model.load. Fails if a label
or, by more than the tolerance, a probability differs. Accuracy is not looked at.
"""

from pathlib import Path

import click

from keras_cifar.cifar10 import DATASETS
from keras_cifar.run_dir import RunDir
from keras_cifar.start import start_tensorflow

start_tensorflow()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from keras_cifar.data.prepare import load  # noqa: E402
from keras_cifar.export import saved_model  # noqa: E402
from keras_cifar.model.load import load_model  # noqa: E402
from keras_cifar.model.logits import log_softmax, predict_logits  # noqa: E402

PATH = click.Path(path_type=Path, exists=True)
BATCH_SIZE = 500


@click.command()
@click.argument("run", type=PATH)
@click.argument("version", type=PATH)
@click.option("--dataset", type=click.Choice(tuple(DATASETS)), default="cifar10")
@click.option("--data-dir", type=click.Path(path_type=Path))
@click.option("--tolerance", default=1e-5, show_default=True)
def main(run: Path, version: Path, dataset: str, data_dir: Path | None, tolerance: float) -> None:
    """Prints, for each loader, how many labels agree and how far probabilities differ."""
    images = load(DATASETS[dataset], split="test", data_dir=data_dir).images
    model_file = RunDir(run).require_model()
    logits = predict_logits(load_model(model_file), images, source=model_file)
    expected = np.exp(log_softmax(logits))
    batches = np.array_split(images, range(BATCH_SIZE, len(images), BATCH_SIZE))
    by_signature = saved_model.probabilities(version, batches)
    classify = tf.saved_model.load(str(version)).signatures["serving_default"]
    found = {
        "TF Serving's loader, serving_default": np.concatenate(by_signature["serving_default"]),
        "TF Serving's loader, image_bytes": np.concatenate(by_signature["image_bytes"]),
        "tf.saved_model.load, serving_default": np.concatenate(
            [classify(image=tf.constant(batch))["probabilities"] for batch in batches]
        ),
    }
    same = True
    for name, probabilities in found.items():
        labels = int((probabilities.argmax(axis=1) == expected.argmax(axis=1)).sum())
        difference = float(np.abs(probabilities - expected).max())
        same &= labels == len(images) and difference <= tolerance
        print(
            f"{name}: labels {labels:,} of {len(images):,} the same, "
            f"probabilities within {difference:.1e}"
        )
    if not same:
        raise click.ClickException(f"{version} does not answer as {run} does.")


if __name__ == "__main__":
    main()
