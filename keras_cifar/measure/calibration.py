"""Logits and labels -> the temperature that makes probabilities honest."""

import numpy as np
import numpy.typing as npt

from keras_cifar.model.logits import log_softmax

# Beyond, a model that is never wrong would be sent to infinity.
_LOWEST, _HIGHEST = 0.05, 20.0
_HALVINGS = 50  # of the range of the logarithm, which is 6: to 5e-15


def negative_log_likelihood(
    logits: npt.NDArray[np.float64], *, labels: npt.NDArray[np.int64]
) -> float:
    """Returns the mean cross entropy, in nats."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: npt.NDArray[np.float64], *, labels: npt.NDArray[np.int64]) -> float:
    """Returns the temperature by which to divide logits so that the loss on these is least.

    Guo et al., On Calibration of Modern Neural Networks (2017), section 4.2. The loss is convex in
    1 / temperature, so halving the range finds where its slope is 0. What is as good as 1 or worse,
    by rounding say, is given up for 1: the loss never rises.

    Args:
        logits: (n, 10), n at least 1, of images that were not trained on.
        labels: (n,), 0..9.

    Returns:
        Within 0.05..20; the predicted classes stay the same.
    """
    low, high = np.log(_LOWEST), np.log(_HIGHEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _slope(logits, labels=labels, inverse=np.exp(-middle)) > 0:
            low = middle  # the probabilities are too sharp
        else:
            high = middle
    temperature = float(np.exp((low + high) / 2))
    before = negative_log_likelihood(logits, labels=labels)
    after = negative_log_likelihood(logits / temperature, labels=labels)
    return temperature if after < before else 1.0


def _slope(
    logits: npt.NDArray[np.float64], *, labels: npt.NDArray[np.int64], inverse: float
) -> float:
    """Returns the derivative of the loss by 1 / temperature."""
    probabilities = np.exp(log_softmax(logits * inverse))
    expected = (probabilities * logits).sum(axis=1)
    return float((expected - logits[np.arange(len(labels)), labels]).mean())
