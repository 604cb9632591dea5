"""SGD with a rate for each group of variables, and with slow weights that follow (lookahead)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

# airbench94.py.
LOOKAHEAD_EVERY = 5


class Group(NamedTuple):
    """How some of the variables are trained.

    Attributes:
        rate: learning rate, by the optimiser's own.
        weight_decay: share of the variable that is added to its gradient.
        steps: in which the rate falls to 0, linearly, on top of the optimiser's schedule; None for
            that schedule alone.
    """

    rate: float = 1.0
    weight_decay: float = 0.0
    steps: int | None = None


class Lookahead(NamedTuple):
    """Slow weights, towards which the weights are set back (Zhang et al., 2019).

    Every few steps the slow weights take up some of the weights, which then are as the slow ones:
    all that training changes, moving moments of batch normalisation included.

    Attributes:
        variables: of the model, those included that do not train.
        decay: share of themselves that the slow weights keep at the end of the run; before, less,
            by the third power of the share of the run that is over.
        steps: of the whole run, after the last of which the weights are the slow ones.
    """

    variables: Sequence[keras.Variable]
    decay: float
    steps: int


class GroupSGD(keras.optimizers.SGD):
    """Nesterov's SGD by groups; weight decay is part of the gradient, as in PyTorch."""

    def __init__(
        self,
        learning_rate: Any,
        *,
        group_of: Callable[[keras.Variable], Group],
        momentum: float,
        lookahead: Lookahead | None = None,
    ) -> None:
        super().__init__(learning_rate, momentum=momentum, nesterov=True)
        self._group_of = group_of
        self._lookahead = lookahead

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the velocities, and slow weights that are as the weights are now."""
        if self.built:
            return
        super().build(variables)
        self._groups = [self._group_of(variable) for variable in variables]
        if self._lookahead:
            self._slow = self.add_optimizer_variables(self._lookahead.variables, "slow")
        self.restart_slow_weights()

    def restart_slow_weights(self) -> None:
        """Has the slow weights, if there are any, be as the weights are now."""
        if self._lookahead:
            for slow, variable in zip(self._slow, self._lookahead.variables, strict=True):
                slow.assign(variable)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        """Changes one variable as its group says."""
        group = self._groups[self._get_variable_index(variable)]
        if group.weight_decay:
            gradient = gradient + group.weight_decay * variable
        rate = group.rate * tf.cast(learning_rate, tf.float32)
        if group.steps is not None:
            rate *= tf.maximum(1 - tf.cast(self.iterations, tf.float32) / group.steps, 0.0)
        super().update_step(gradient, variable, rate)

    def apply(
        self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[Any] | None = None
    ) -> None:
        """Changes all variables, and now and then sets them back to the slow weights."""
        super().apply(grads, trainable_variables)
        if self._lookahead:
            step = tf.convert_to_tensor(self.iterations)
            look = partial(self._look_ahead, self._lookahead, step)
            is_last = step == self._lookahead.steps
            tf.cond((step % LOOKAHEAD_EVERY == 0) | is_last, look, lambda: None)

    def _look_ahead(self, lookahead: Lookahead, step: tf.Tensor) -> None:
        """Moves the slow weights towards the weights, and sets these to them."""
        progress = tf.cast(step, tf.float32) / lookahead.steps
        # At the end the weights become the slow ones as these are.
        decay = tf.where(step == lookahead.steps, 1.0, lookahead.decay * progress**3)
        for average, variable in zip(self._slow, lookahead.variables, strict=True):
            average.assign(decay * average + (1 - decay) * variable)
            variable.assign(average)
