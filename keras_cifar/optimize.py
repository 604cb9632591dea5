"""Learning-rate schedule and optimisers, made of Keras's own parts."""

import keras

SGD_MOMENTUM = 0.9
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


def build_optimizer(
    name: str, *, learning_rate: float, weight_decay: float, steps: int
) -> keras.optimizers.Optimizer:
    """Builds "sgd" (Nesterov momentum 0.9) or "adam", with a schedule over the run.

    Args:
        name: "sgd" or "adam".
        learning_rate: the peak of the schedule.
        weight_decay: decoupled (Loshchilov and Hutter, 2019): a step multiplies each kernel by
            1 - rate * weight_decay. Biases and batch normalisation are left out.
        steps: optimiser steps of the whole run.
    """
    schedule = warmup_then_cosine(learning_rate, steps=steps)
    if name == "sgd":
        optimizer = keras.optimizers.SGD(
            schedule, momentum=SGD_MOMENTUM, nesterov=True, weight_decay=weight_decay
        )
    else:
        optimizer = keras.optimizers.Adam(schedule, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
