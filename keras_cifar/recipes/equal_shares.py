"""What several replicas can train on together."""

from keras_cifar.recipes.config import TrainConfig
from keras_cifar.recipes.table import RECIPES


def require_equal_shares(config: TrainConfig, *, replicas: int) -> None:
    """Refuses a batch that replicas cannot share equally.

    Keras takes the mean of each share, and the mean of those: an example of a small share would
    count for more.

    Raises:
        OSError: says what to take.
    """
    images = RECIPES[config.recipe].images_per_step(config)
    if images % replicas:
        raise OSError(
            f"--batch-size: of {config.batch_size}, {images} images are trained on in a step, "
            f"which {replicas} replicas cannot share equally. Take a multiple of {replicas}."
        )
