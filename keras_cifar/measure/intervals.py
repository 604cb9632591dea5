"""How sure a figure is: an interval for a share, mean and deviation over seeds."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

# Of the standard normal distribution: 95 % lie within.
_Z = 1.959963984540054


class Interval(NamedTuple):
    """Both ends of a 95 % confidence interval."""

    lower: float
    upper: float


def wilson(successes: int, *, trials: int) -> Interval:
    """Returns the 95 % confidence interval of a share (Wilson, 1927).

    Unlike share ± 1.96 standard errors, it stays within 0..1 and is right for shares near them.

    Args:
        successes: 0..trials.
        trials: at least 1.
    """
    share = successes / trials
    factor = 1 / (1 + _Z**2 / trials)
    centre = factor * (share + _Z**2 / (2 * trials))
    spread = _Z * math.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    # Rounding can give 1 + 1e-16; the share itself is always within.
    return Interval(
        max(0.0, min(centre - factor * spread, share)),
        min(1.0, max(centre + factor * spread, share)),
    )


class Spread(NamedTuple):
    """Mean and sample deviation (n - 1) of a figure over seeds; the deviation of one is None."""

    mean: float
    deviation: float | None


def mean_and_deviation(values: Sequence[float]) -> Spread:
    """Returns mean and sample deviation of at least one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation)
