"""The loss that Keras lacks: label smoothing for labels that are numbers."""

from collections.abc import Callable

import tensorflow as tf


def smoothed_cross_entropy(smoothing: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns cross entropy with targets of which all classes get a share (Szegedy et al., 2016).

    Args:
        smoothing: that share of the target, divided among the classes; in [0, 1).

    Returns:
        A Keras loss: labels int64 (batch, 1) or (batch,) and logits float32 (batch, classes) to
        nats, float32 (batch,).
    """

    def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        log_probabilities = tf.nn.log_softmax(logits)
        labels = tf.cast(tf.reshape(labels, [-1]), tf.int64)  # Keras has made floats of them
        of_label = tf.gather(log_probabilities, labels, batch_dims=1)
        of_all = tf.reduce_mean(log_probabilities, axis=-1)
        return -(1 - smoothing) * of_label - smoothing * of_all

    return loss
