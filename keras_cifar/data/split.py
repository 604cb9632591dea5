"""Training examples -> training and validation examples."""

import numpy as np

from keras_cifar.cifar10 import NUM_CLASSES
from keras_cifar.data.examples import Examples


def split_stratified(
    examples: Examples, *, validation_fraction: float, seed: int
) -> tuple[Examples, Examples]:
    """Cuts off the same share of each class for validation.

    Args:
        examples: in canonical order, so that the outcome is the same on every machine.
        validation_fraction: share of each class, in [0, 1), rounded to whole examples.
        seed: decides which examples; of one seed, a larger fraction contains a smaller one.

    Returns:
        Training and validation examples: disjoint, together all of `examples`.
    """
    # RandomState's stream is frozen for good (NEP 19); Generator's may change with NumPy.
    order = np.random.RandomState(seed).permutation(len(examples.labels))
    is_validation = np.zeros(len(order), dtype=bool)
    for label in range(NUM_CLASSES):
        of_class = order[examples.labels[order] == label]
        is_validation[of_class[: round(len(of_class) * validation_fraction)]] = True
    return (
        examples.take(np.flatnonzero(~is_validation)),
        examples.take(np.flatnonzero(is_validation)),
    )
