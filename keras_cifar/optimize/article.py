"""The optimisers of the article's recipe, made of Keras's own parts."""

import keras

from keras_cifar.optimize.schedules import warmup_then_cosine

SGD_MOMENTUM = 0.9


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
