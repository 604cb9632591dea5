"""Model and images -> logits and probabilities."""

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

_BATCH_SIZE = 500  # bounds the memory, not the outcome


def predict_logits(
    model: keras.Model, images: npt.NDArray[np.uint8], *, source: Path
) -> npt.NDArray[np.float64]:
    """Applies the model in inference mode.

    Args:
        model: as `keras_cifar.model.load.load_model` gives it.
        images: uint8 (n, 32, 32, 3), n at least 1.
        source: the model's file, for the error.

    Returns:
        float64 (n, 10).

    Raises:
        FloatingPointError: the model gives NaN or infinity, as one does whose training diverged.
    """
    batches = np.split(images, range(_BATCH_SIZE, len(images), _BATCH_SIZE))
    # Not `model.predict`, whose pipeline can pause at its end (see `data.options`).
    logits = np.concatenate([model.predict_on_batch(batch) for batch in batches]).astype(np.float64)
    if not np.isfinite(logits).all():
        raise FloatingPointError(
            f"{source}: the model gives numbers that are not finite. Its training diverged; "
            "train again with a lower --learning-rate."
        )
    return np.asarray(logits)


def log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the logarithm of each class's probability, (n, 10), from logits (n, 10)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
