"""Whether models differ by more than the choice of the test images explains: paired tests."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keras_cifar.measure.intervals import Interval

_RESAMPLES = 10_000
_AT_A_TIME = 200  # resamples; bounds the memory
_ERROR = 0.05  # of all intervals together


class McNemar(NamedTuple):
    """The exact test of McNemar (1947) on the images that one of two models alone gets right.

    Attributes:
        only_first: images that the first model alone gets right.
        only_second: images that the second model alone gets right.
        p_value: how often chance alone would split them at least as unevenly, if both models were
            equally accurate.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> McNemar:
    """Compares which images two models get right, bool (n,) each, of the same images."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(only_first, only_second, _two_sided(only_first, only_second))


def _two_sided(heads: int, tails: int) -> float:
    """Returns how often a fair coin falls at least as unevenly, both ways counted."""
    tosses = heads + tails
    # In whole numbers, which are exact: each binomial coefficient comes from the one before.
    ways = coefficient = 1
    for count in range(min(heads, tails)):
        coefficient = coefficient * (tosses - count) // (count + 1)
        ways += coefficient
    return min(1.0, float(2 * ways / 2**tosses))


def bootstrap_differences(
    correct: npt.NDArray[np.float64], *, reference: int, seed: int = 0
) -> list[Interval]:
    """Returns intervals for how much more accurate than one model each is, images drawn anew.

    Efron (1979), percentiles of 10,000 resamples. Each resample draws the same images for all
    models. The error of 5 % is divided by the number of comparisons (Bonferroni), so that all
    intervals hold together in 95 % of cases.

    Args:
        correct: (models, n), at least 2 models: 1 where a model is right about an image, 0 where it
            is wrong, or the share of a model's seeds that are right.
        reference: the model that all others are compared with.
        seed: of the resamples.

    Returns:
        One for each model; that of the reference is 0 to 0.
    """
    # Images that all models answer alike are interchangeable, and there are few kinds of them.
    patterns, counts = np.unique(correct - correct[reference], axis=1, return_counts=True)
    random = np.random.RandomState(seed)
    shares = counts / counts.sum()
    draws = [
        random.multinomial(counts.sum(), shares, size=_AT_A_TIME) @ patterns.T / counts.sum()
        for _ in range(_RESAMPLES // _AT_A_TIME)
    ]
    error = _ERROR / (len(correct) - 1)
    ends = np.quantile(np.concatenate(draws), [error / 2, 1 - error / 2], axis=0)
    return [Interval(float(lower), float(upper)) for lower, upper in ends.T]
