"""Test-time augmentation: the mean answer to several views of an image."""

import keras
from keras import ops

from keras_cifar.cifar10 import IMAGE_SHAPE
from keras_cifar.model import TTA_VIEWS


def with_views(model: keras.Model, views: int) -> keras.Model:
    """Has a classifier look at each image as many times.

    With six, half of the answer is for the image and its mirror image, half for the image moved by
    a pixel down and to the right, and up and to the left, each with its mirror image
    (airbench94.py).

    Args:
        model: images uint8 (n, 32, 32, 3) to logits (n, 10).
        views: 1, for the model as it is, or 6.

    Returns:
        The same, with the weighted mean of the logits.

    Raises:
        ValueError: another number of views.
    """
    if views == 1:
        return model
    if views != TTA_VIEWS:
        raise ValueError(f"views: got {views}, expected 1 or {TTA_VIEWS}.")
    image = keras.Input(IMAGE_SHAPE, dtype="uint8", name="image")
    height, width, _ = IMAGE_SHAPE
    padded = ops.pad(image, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
    upper_left, lower_right = padded[:, :height, :width], padded[:, 2:, 2:]

    def both_ways(view: keras.KerasTensor) -> keras.KerasTensor:
        return (model(view) + model(ops.flip(view, axis=2))) / 2

    moved = (both_ways(upper_left) + both_ways(lower_right)) / 2
    return keras.Model(image, (both_ways(image) + moved) / 2, name=f"{model.name}_tta")
