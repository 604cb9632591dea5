"""Layers with a way round them."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="keras_cifar")
class Residual(keras.layers.Layer):
    """Adds what it is given to what its layers make of it (He et al., 2016, section 3.2)."""

    def __init__(self, inner: Sequence[keras.layers.Layer], **options: Any) -> None:
        super().__init__(**options)
        self.inner = list(inner)

    def build(self, shape: Sequence[int | None]) -> None:
        """Builds the layers, which keep the shape."""
        for layer in self.inner:
            if not layer.built:  # as those that a model file describes are
                layer.build(shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns inputs + inner(inputs), both (batch, height, width, channels)."""
        outputs = inputs
        for layer in self.inner:
            outputs = layer(outputs)  # Keras passes `training` on
        return inputs + outputs

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        inner = [keras.saving.serialize_keras_object(layer) for layer in self.inner]
        return {**super().get_config(), "inner": inner}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Residual":
        """Builds the layer that `get_config` described."""
        inner = [keras.saving.deserialize_keras_object(layer) for layer in config["inner"]]
        return cls(**{**config, "inner": inner})
