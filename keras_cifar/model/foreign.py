"""What a model of another origin takes and gives, found out by asking it.

A file says of inputs and outputs no more than their shapes and types: not how images are to be
scaled, and not whether the numbers are logits.
"""

import math
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import IMAGE_SHAPE, MEAN, NUM_CLASSES, SAMPLE, STANDARD_DEVIATION
from keras_cifar.model.logits import log_softmax

_EXAMPLES = 100
# The loss of who always says that all classes are equally probable, and one that is no accident.
_GUESSING = math.log(NUM_CLASSES)
_KNOWING = 0.9 * _GUESSING
# Other scales than 0..255: what is subtracted, what that is divided by, and the layer that does so.
_SCALES: dict[str, tuple[npt.ArrayLike, npt.ArrayLike, str]] = {
    "0..1": (0, 255, "keras.layers.Rescaling(1 / 255)"),
    "-1..1": (127.5, 127.5, "keras.layers.Rescaling(1 / 127.5, offset=-1)"),
    "mean 0 and deviation 1": (
        MEAN,
        STANDARD_DEVIATION,
        "a keras.layers.Normalization of each channel",
    ),
}


def refuse_probabilities(model: keras.Model, *, path: Path) -> None:
    """Raises OSError if a model gives probabilities, of which there would be a softmax again."""
    activation = getattr(getattr(model.layers[-1], "activation", None), "__name__", "unknown")
    noise = np.random.default_rng(0).integers(0, 256, (8, *IMAGE_SHAPE)).astype(np.uint8)
    outputs = _outputs(model, noise)
    add_up_to_one = (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-2)
    if add_up_to_one or activation in ("softmax", "sigmoid"):
        raise OSError(
            f"{path}: the model gives probabilities (its last activation: {activation}), expected "
            "logits. Save it without that activation."
        )


def check_scale(model: keras.Model, *, path: Path) -> None:
    """Refuses a model for which images are to be scaled, and warns of one that knows nothing.

    Args:
        model: images (n, 32, 32, 3) to logits (n, 10). One that takes uint8 images is not asked:
            it cannot want others.
        path: of its file.

    Raises:
        OSError: it does worse than guessing on images in 0..255, and better on scaled ones.
    """
    if "int" in model.inputs[0].dtype:
        return
    # Here, as few models need it.
    from keras_cifar.data.prepare import load

    examples = load(SAMPLE, split="train", data_dir=None).take(np.arange(_EXAMPLES))

    def loss(shift: npt.ArrayLike, scale: npt.ArrayLike) -> float:
        logits = _outputs(model, (examples.images - np.asarray(shift)) / scale)
        if not np.isfinite(logits).all():
            return math.inf
        return float(-log_softmax(logits)[np.arange(_EXAMPLES), examples.labels].mean())

    if loss(0, 1) < _GUESSING:
        return
    losses = {name: loss(shift, scale) for name, (shift, scale, _) in _SCALES.items()}
    name = min(losses, key=losses.__getitem__)
    if losses[name] < _KNOWING:
        raise OSError(
            f"{path}: the model wants images of {name} (its loss there is {losses[name]:.2f}), "
            f"expected 0..255. Save it with {_SCALES[name][2]} before its first layer."
        )
    click.echo(
        f"{path}: on images of CIFAR-10 the model does worse than guessing, however they are "
        "scaled. Its classes may have another order, or it may be about something else.",
        err=True,
    )


def _outputs(model: keras.Model, images: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.asarray(model(images.astype(np.float32), training=False), np.float64)
