"""Weights that train at first and are then left alone."""

from typing import Any

import keras


class FreezeBias(keras.callbacks.Callback):
    """Freezes the bias of a layer: its gradient is not computed any more.

    Args:
        layer: name of the layer.
        epochs: in which the bias still trains.
    """

    def __init__(self, layer: str, *, epochs: int) -> None:
        super().__init__()
        self.layer, self.epochs = layer, epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Freezes the bias in time, and has the step traced anew."""
        bias = self.model.get_layer(self.layer).bias
        if epoch >= self.epochs and bias.trainable:
            bias.trainable = False
            self.model.make_train_function(force=True)
