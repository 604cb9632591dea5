"""Training on the hardest examples of each batch, which the device makes itself."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_cifar.data.examples import Examples

Plan = dict[str, tf.Tensor]


class HardestModel(keras.Model):
    """A Functional model that `fit` trains on plans of steps instead of batches.

    Each step takes those of a plan's examples whose loss was highest the last time they were
    trained on: what is known already teaches little and costs as much (selective backprop, Jiang
    et al., arXiv:1910.00762).

    Args:
        network: its layers become this model's.
        examples: all training examples. They become variables on the device: as constants they
            would be compiled into the step.
        make_batch: plan and examples to images and labels, as
            `keras_cifar.data.on_device.make_batch`.
        kept: examples of a plan that are trained on.
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        examples: Examples,
        make_batch: Callable[..., tuple[tf.Tensor, tf.Tensor]],
        kept: int,
    ) -> None:
        super().__init__(network.inputs, network.outputs, name=network.name)
        self.examples = Examples(*(tf.Variable(part, trainable=False) for part in examples))
        self.make_batch = make_batch
        self.kept = kept
        # float32 (examples,): the loss of each when it was last trained on; before that, nothing is
        # harder.
        unseen = np.full(len(examples.labels), np.inf, np.float32)
        self.last_losses = tf.Variable(unseen, trainable=False, name="last_losses")

    @property
    def variables(self) -> list[Any]:
        """All state, as Keras's, for checkpoints: the last losses decide what comes next."""
        return [*super().variables, self.last_losses]

    def train_step(self, plan: Plan) -> dict[str, Any]:
        """Trains on a batch; notes the loss of each of its examples."""
        positions = hardest(plan["positions"], self.last_losses, count=self.kept)
        images, labels = self.make_batch({**plan, "positions": positions}, self.examples)
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            loss = self.compute_loss(images, labels, logits)
            scaled_loss = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled_loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        self.last_losses.scatter_nd_update(positions[:, tf.newaxis], losses)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
        metrics: dict[str, Any] = self.compute_metrics(images, labels, logits)
        return metrics


def hardest(positions: tf.Tensor, last_losses: tf.Tensor, *, count: int) -> tf.Tensor:
    """Returns the examples of a step that were hardest when they were last trained on.

    Args:
        positions: int64 (n,), of the examples.
        last_losses: float32 (examples,); infinite for those that were never trained on.
        count: of the examples to choose, at most n.

    Returns:
        int64 (count,).
    """
    _, chosen = tf.math.top_k(tf.gather(last_losses, positions), count)
    return tf.gather(positions, chosen)
