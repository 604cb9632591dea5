"""Training on the hardest examples of each batch, which the device makes itself."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_cifar.data.augment import Part
from keras_cifar.data.examples import Examples
from keras_cifar.distribute.multi_worker import MultiWorkerFit

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
        self.replicas = tf.distribute.get_strategy().num_replicas_in_sync
        # Variables of several workers would be sent to them by the chief; these all have.
        hold = tf.constant if self.replicas > 1 else partial(tf.Variable, trainable=False)
        self.examples = Examples(*map(hold, examples))
        self.make_batch = make_batch
        self.kept = kept
        # float32 (examples,): the loss of each when it was last trained on; before that, nothing is
        # harder.
        unseen = np.full(len(examples.labels), np.inf, np.float32)
        self.last_losses = tf.Variable(
            unseen,
            trainable=False,
            name="last_losses",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    @property
    def variables(self) -> list[Any]:
        """All state, as Keras's, for checkpoints: the last losses decide what comes next."""
        return [*super().variables, self.last_losses]

    def train_step(self, plan: Plan) -> dict[str, Any]:
        """Trains on a batch, or a replica's part of it; notes the loss of each of its examples."""
        chosen = hardest(plan["positions"], self.last_losses, count=self.kept)
        replica = tf.distribute.get_replica_context()
        size = self.kept // self.replicas
        part = Part(replica.replica_id_in_sync_group * size, of=self.kept)
        positions = part.cut(chosen, count=size)
        images, labels = self.make_batch({**plan, "positions": positions}, self.examples, part=part)
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            loss = self.compute_loss(images, labels, logits)
            scaled_loss = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled_loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        self._note(chosen, replica.all_gather(losses, axis=0) if self.replicas > 1 else losses)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss * self.replicas)  # Keras has divided it
        metrics: dict[str, Any] = self.compute_metrics(images, labels, logits)
        return metrics

    def _note(self, positions: tf.Tensor, losses: tf.Tensor) -> None:
        noted = tf.tensor_scatter_nd_update(self.last_losses, positions[:, tf.newaxis], losses)
        self.last_losses.assign(noted)


class MultiWorkerHardestModel(MultiWorkerFit, HardestModel):
    """The same for several workers, each of which trains on its part of a step."""


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
