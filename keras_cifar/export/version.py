"""Writes a run's model into a model directory: built aside, verified, then published."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_cifar.cifar10 import SAMPLE
from keras_cifar.data.prepare import load
from keras_cifar.errors import first_line
from keras_cifar.export import litert, onnx, saved_model
from keras_cifar.export.provenance import origin_of
from keras_cifar.export.warmup_requests import write_warmup
from keras_cifar.files import naming, require_writable
from keras_cifar.model.inference import inference_model
from keras_cifar.model.load import load_model
from keras_cifar.model.logits import log_softmax, predict_logits
from keras_cifar.model.tta import with_views
from keras_cifar.model_dir import (
    FORMATS,
    publish,
    refuse_existing,
    refuse_other_formats,
    unfinished_version,
)
from keras_cifar.run_dir import RunDir
from keras_cifar.serving import EXPORT_PRECISIONS, ORIGIN_FILE

# Largest difference of a probability from the Keras model's that is published.
_TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}
# One image, a few, and as many as a full batch of a server on a CPU.
_VERIFIED_BATCHES = (1, 7, 64)
_WRITERS = {"saved_model": saved_model, "onnx": onnx, "litert": litert}


class Exported(NamedTuple):
    """A published version.

    Attributes:
        version: its folder.
        difference: the largest of a probability from the Keras model's.
        size: in bytes, of all its files.
    """

    version: Path
    difference: float
    size: int

    def __str__(self) -> str:
        """Returns what a person reads."""
        return (
            f"{self.version}: verified, probabilities within {self.difference:.1e} of the Keras "
            f"model's, {self.size / 1e6:.1f} MB"
        )


def export(
    run_dir: RunDir,
    model_dir: Path,
    *,
    format: str = "saved_model",
    precision: str = "float32",
    number: int | None = None,
    views: int = 1,
) -> Exported:
    """Publishes a run's model as a version that gives the Keras model's answers.

    It is written under a name that no server takes for a version, loaded by the runtime that
    will serve it, and renamed only if its probabilities for real images, in batches of 1, 7 and
    64, are the Keras model's.

    Args:
        run_dir: of a run that has a model.
        model_dir: made where it is missing; MODEL_DIR/NUMBER is the version.
        format: "saved_model", "onnx" or "litert".
        precision: of weights and arithmetic; "bfloat16" for a SavedModel alone.
        number: of the version; None for one above the highest in `model_dir`.
        views: of each image, as `keras_cifar.model.tta.with_views` takes them.

    Raises:
        ValueError: a format, precision or number of views that does not exist, or not together.
        ImportError: the format needs an extra of its name.
        OSError: run or model are missing or damaged; the version exists; `model_dir` holds
            another format, or cannot be written.
        FloatingPointError: the model's training had diverged, or the answers differ too much;
            nothing is published.
    """
    _check_choices(format=format, precision=precision)
    _refuse_run(model_dir)
    require_writable(model_dir, name="MODEL_DIR")
    refuse_existing(model_dir, number=number)
    refuse_other_formats(model_dir, format=format)
    origin = origin_of(run_dir, views=views)
    model = load_model(run_dir.require_model())
    images = load(SAMPLE, split="train", data_dir=None).images[: sum(_VERIFIED_BATCHES)]
    with naming(model_dir), unfinished_version(model_dir) as folder:
        click.echo(f"writing the model as {format} in {precision}", err=True)
        with _as_os_error(model_dir):
            built = inference_model(model, precision=precision, views=views)
            _WRITERS[format].write(built, folder)
            if format == "saved_model":
                write_warmup(folder, images=images)
        click.echo(f"verifying it on {len(images)} images", err=True)
        agreement = _verify(
            folder,
            with_views(model, views),
            source=run_dir.model,
            images=images,
            format=format,
            precision=precision,
        )
        choices = {"format": format, "precision": precision, "views": views}
        document = {**origin, **choices, "agreement": agreement}
        (folder / ORIGIN_FILE).write_text(json.dumps(document, indent=2) + "\n")
        version = publish(folder, number=number)
    size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
    return Exported(version, agreement["largest_difference"], size)


def _check_choices(*, format: str, precision: str) -> None:
    if format not in FORMATS:
        raise ValueError(f"format: got {format!r}, expected one of {', '.join(FORMATS)}.")
    if precision not in EXPORT_PRECISIONS:
        expected = ", ".join(EXPORT_PRECISIONS)
        raise ValueError(f"precision: got {precision!r}, expected one of {expected}.")
    if precision != "float32" and format != "saved_model":
        raise ValueError(f"precision: got {precision!r}, expected float32 with format {format}.")


def _refuse_run(model_dir: Path) -> None:
    """Refuses to export into a run, which happens to those who name a run and nothing else."""
    if RunDir(model_dir).config.is_file():
        raise FileExistsError(
            f"{model_dir}: is the folder of a run. Name where to export it to as well: "
            f"keras-cifar export {model_dir} MODEL_DIR"
        )


@contextmanager
def _as_os_error(model_dir: Path) -> Iterator[None]:
    """Turns what TensorFlow raises where it cannot write into what Python would."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(model_dir)) from error
    except tf.errors.OpError as error:
        reason = first_line(error)
        raise OSError(f"{model_dir}: the model cannot be written ({reason}).") from error


def _verify(
    folder: Path,
    model: keras.Model,
    *,
    source: Path,
    images: npt.NDArray[np.uint8],
    format: str,
    precision: str,
) -> dict[str, Any]:
    """Compares what was written with the Keras model, in its own runtime.

    Returns:
        How closely they agree, as origin.json has it.

    Raises:
        FloatingPointError: less closely than `_TOLERANCES` says.
    """
    batches = np.split(images, np.cumsum(_VERIFIED_BATCHES)[:-1])
    with tf.device("CPU:0"):  # as the runtimes below: a GPU may round to TF32
        logits = [predict_logits(model, batch, source=source) for batch in batches]
    expected = [np.exp(log_softmax(of_batch)) for of_batch in logits]
    answers = _WRITERS[format].probabilities(folder, batches)
    differences = [
        np.abs(found - wanted).max()
        for by_batch in answers.values()
        for found, wanted in zip(by_batch, expected, strict=True)
    ]
    largest, tolerance = float(np.max(differences)), _TOLERANCES[precision]
    if not largest <= tolerance:  # NaN is not
        raise FloatingPointError(
            f"Nothing was published: probabilities in {precision} differ by {largest:.1e} from the "
            f"Keras model's, more than the {tolerance:.0e} that are allowed."
            + (" Export it in float32." if precision != "float32" else "")
        )
    return {"images": len(images), "largest_difference": largest, "tolerance": tolerance}
