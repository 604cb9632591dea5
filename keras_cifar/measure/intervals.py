"""How sure to be of a figure."""

import statistics
from collections.abc import Sequence


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean of at least one value, and the sample standard deviation (n - 1).

    Of one value, the deviation is None.
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
