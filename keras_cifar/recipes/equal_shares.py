"""What several replicas can train on together."""

import dataclasses
from itertools import chain

from keras_cifar.recipes.config import TrainConfig
from keras_cifar.recipes.table import RECIPES


def require_equal_shares(config: TrainConfig, *, replicas: int) -> None:
    """Refuses a batch that replicas cannot share equally.

    Keras takes the mean of each share, and the mean of those: an example of a small share would
    count for more.

    Raises:
        OSError: says what to take.
    """
    if _images(config) % replicas:
        size = _next_batch_size(config, replicas=replicas)
        way_out = f" Take {size}, say." if size else ""
        raise OSError(f"{_refusal(config, replicas=replicas)}{way_out}")


def require_equal_shares_of_run(config: TrainConfig, *, replicas: int) -> None:
    """Refuses replicas for a run that has begun, whose batch they cannot share equally.

    Raises:
        OSError: says with how many to resume it.
    """
    if (images := _images(config)) % replicas:
        raise OSError(
            f"{_refusal(config, replicas=replicas)} Resume the run with a number of workers or "
            f"devices that divides {images}."
        )


def _images(config: TrainConfig) -> int:
    return RECIPES[config.recipe].images_per_step(config)


def _refusal(config: TrainConfig, *, replicas: int) -> str:
    return (
        f"--batch-size: of {config.batch_size}, {_images(config)} images are trained on in a step, "
        f"which {replicas} replicas cannot share equally."
    )


def _next_batch_size(config: TrainConfig, *, replicas: int) -> int | None:
    """Returns the next larger one that replicas can share, or else the next smaller, if any."""
    size = config.batch_size
    sizes = chain(range(size + 1, config.training_examples + 1), range(size - 1, 0, -1))
    configs = (dataclasses.replace(config, batch_size=size) for size in sizes)
    return next((each.batch_size for each in configs if not _images(each) % replicas), None)
