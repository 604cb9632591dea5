"""Where a network looks: Grad-CAM."""

from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf


def grad_cam(
    model: keras.Model, images: npt.NDArray[np.uint8], *, classes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Returns how much each place of the last convolution speaks for a class.

    Selvaraju et al., Grad-CAM (2017), equations 1 and 2: the feature maps, each weighted by the
    mean of its gradient of the class's logit, summed, and what is negative set to 0.

    Args:
        model: images to logits (n, 10).
        images: uint8 (n, 32, 32, 3).
        classes: int64 (n,), of which one each.

    Returns:
        (n, height, width), not negative, of the size of the feature maps.

    Raises:
        ValueError: the model has no convolution that its logits come from.
    """
    features, head = _halves(model)
    maps = tf.cast(features(images, training=False), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logits = tf.gather(head(maps, training=False), classes, axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(logits, maps), axis=(1, 2), keepdims=True)
    return np.asarray(tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1)))


def _halves(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Cuts a model behind its last feature maps; returns both halves."""
    position = _last_maps(model.layers)
    if isinstance(model, keras.Sequential):  # whose layers each have an output of every `add`
        before, behind = model.layers[: position + 1], model.layers[position + 1 :]
        return keras.Sequential(before), keras.Sequential(behind)
    maps = model.layers[position].output
    try:
        return keras.Model(model.inputs[0], maps), keras.Model(maps, model.outputs[0])
    except ValueError as error:
        raise ValueError("model: a way leads round its last convolution.") from error


def _last_maps(layers: Sequence[keras.Layer]) -> int:
    """Returns where the last convolution is, its normalisation and activation included."""
    convolutions = [isinstance(layer, keras.layers.Conv2D) for layer in layers]
    if not any(convolutions):
        raise ValueError("model: has no convolution among its layers.")
    position = len(layers) - 1 - convolutions[::-1].index(True)
    shape = layers[position].output.shape
    # A layer of another shape is a pooling, or the end of the maps.
    while layers[position + 1 :] and layers[position + 1].output.shape == shape:
        position += 1
    return position


def first_filters(model: keras.Model) -> npt.NDArray[np.float32]:
    """Returns the kernel of the first convolution, (height, width, 3, filters).

    Raises:
        ValueError: there is none that sees the colours of an image.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel.shape[2] == 3:
            return np.asarray(layer.kernel, dtype=np.float32)
    raise ValueError("model: has no convolution that sees the image.")
