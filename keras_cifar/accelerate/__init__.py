"""A plain network -> the same function and weights, in layers that train faster here."""

import keras

from keras_cifar.accelerate import (
    batch_norm,
    biases,
    discarded,
    dropout,
    kernel_gradients,
    pooling,
    rows,
    silu,
)
from keras_cifar.model.rewrite import Line, rewrite

# Each `replace` takes what has become of a layer so far, the plain layer, and the network's `Line`.
# It returns the layers that take its place: the same one where one of its conditions fails.
_ANYWHERE = (batch_norm.replace, dropout.replace)
_REPLACEMENTS = {
    "CPU": (
        rows.replace,
        biases.replace,
        discarded.replace,
        kernel_gradients.replace,
        silu.replace,
        *_ANYWHERE,
    ),
    "GPU": (pooling.replace, *_ANYWHERE),
}


def accelerate(model: keras.Model, *, device: str) -> keras.Model:
    """Replaces layers of a network by layers of the same function that are faster to train.

    Args:
        model: Sequential or Functional, built, of Keras's own layers. It stays as it is.
        device: "CPU" or "GPU", on which it will be trained.

    Returns:
        A network with the values of the other's variables, in the same order: `get_weights` and
        `set_weights` carry weights over both ways.
    """

    def faster(layer: keras.layers.Layer, line: Line) -> list[keras.layers.Layer]:
        config = layer.get_config()
        pieces = [layer.__class__.from_config(config)]
        # No replacement has these.
        if any(config[name] for name in config if name.endswith(("regularizer", "constraint"))):
            return pieces
        for replace in _REPLACEMENTS[device]:
            pieces = [new for piece in pieces for new in replace(piece, layer, line)]
        return pieces

    accelerated = rewrite(model, faster)
    # All variables, so that dropout draws the same numbers too.
    for variable, value in zip(accelerated.variables, model.variables, strict=True):
        variable.assign(value)
    return accelerated
