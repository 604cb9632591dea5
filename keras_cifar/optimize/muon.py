"""Muon: convolutions move by steps that are the same in all directions (K. Jordan, 2024)."""

import math
from typing import Any

import tensorflow as tf

from keras_cifar.optimize.group_sgd import GroupSGD

# kellerjordan.github.io/posts/muon: these bring singular values of any size near 1 soonest.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# airbench94_muon.py; near 1 is near enough.
NEWTON_SCHULZ_STEPS = 3
_EPSILON = 1e-7


class Muon(GroupSGD):
    """Orthogonalised momentum for the kernels of convolutions, and SGD for all else.

    Keras has a Muon for matrices, which sends the kernels of convolutions to AdamW. Here, as in
    airbench94_muon.py, a kernel is the matrix of its filters, and has at each step the Frobenius
    norm of an orthogonal one, so that the rate is the angle by which it turns.

    Args:
        learning_rate: of the convolutions, a number or a schedule.
        kernel_momentum: of the convolutions, Nesterov's.
        options: as `GroupSGD`'s, for all else.
    """

    def __init__(self, learning_rate: Any, *, kernel_momentum: float, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self.kernel_momentum = kernel_momentum

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        """Changes one variable."""
        if len(variable.shape) != 4:  # no convolution's kernel
            super().update_step(gradient, variable, learning_rate)
            return
        velocity = self.momentums[self._get_variable_index(variable)]
        gradient = tf.cast(gradient, tf.float32)
        velocity.assign(self.kernel_momentum * velocity + gradient)
        step = gradient + self.kernel_momentum * velocity
        filters = variable.shape[-1]
        matrix = orthogonalize(tf.reshape(step, [-1, filters]))
        kernel = variable * (math.sqrt(filters) / tf.norm(variable))
        variable.assign(
            kernel - tf.cast(learning_rate, tf.float32) * tf.reshape(matrix, variable.shape)
        )


def orthogonalize(matrix: tf.Tensor) -> tf.Tensor:
    """Brings the singular values near 1 and keeps the directions, by Newton-Schulz steps.

    A step multiplies the matrix x by a polynomial of its moments x'x. All these are polynomials of
    the first moments: so the steps are taken on them, n x n, and the matrix is multiplied once.

    Args:
        matrix: float32 (m, n); quicker where n is the smaller.

    Returns:
        float32 (m, n); singular values between about 0.4 and 1.3 for those that are not tiny
        beside the largest.
    """
    a, b, c = _COEFFICIENTS
    x = matrix / (tf.norm(matrix) + _EPSILON)
    moments = tf.matmul(x, x, transpose_a=True)
    product = identity = tf.eye(matrix.shape[-1])
    for step in range(NEWTON_SCHULZ_STEPS):
        factor = a * identity + b * moments + c * tf.matmul(moments, moments)
        product = tf.matmul(product, factor) if step else factor
        moments = tf.matmul(factor, tf.matmul(moments, factor))
    return tf.matmul(x, product)
