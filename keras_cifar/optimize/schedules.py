"""Learning rates over a run."""

from typing import Any

import keras
import tensorflow as tf

# Share of the run in which the learning rate rises; Goyal et al. (2017), section 2.2, on warm-up.
WARMUP_FRACTION = 0.1


def warmup_then_cosine(peak: float, *, steps: int) -> keras.optimizers.schedules.CosineDecay:
    """Rises linearly to `peak` in the first tenth of the run, then falls to 0 as a cosine.

    Source of the cosine: Loshchilov and Hutter, SGDR (2017), section 3, without restarts.

    Args:
        peak: the highest learning rate.
        steps: optimiser steps of the whole run.
    """
    warmup_steps = round(steps * WARMUP_FRACTION)
    return keras.optimizers.schedules.CosineDecay(
        # Keras takes step 0 at this rate: at 0, the first step would be lost.
        initial_learning_rate=peak / warmup_steps if warmup_steps else peak,
        decay_steps=steps - warmup_steps,
        warmup_target=peak if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


class WarmupThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `peak` in the first steps, then falls to 0 in a line.

    The first step has a rate above 0, and so has the last.
    """

    def __init__(self, peak: float, *, steps: int, warmup: float) -> None:
        """Takes the highest rate, the steps of the run, and the share of them that warm up."""
        self.peak, self.steps, self.warmup = peak, steps, warmup

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the rate of a step, counted from 0."""
        done = tf.cast(step, tf.float32)
        falling = (self.steps - done) / (self.steps - self.warmup_steps)
        if not self.warmup_steps:
            return self.peak * falling
        return self.peak * tf.minimum((done + 1) / self.warmup_steps, falling)

    @property
    def warmup_steps(self) -> int:
        """Steps in which the rate rises."""
        return round(self.steps * self.warmup)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {"peak": self.peak, "steps": self.steps, "warmup": self.warmup}
