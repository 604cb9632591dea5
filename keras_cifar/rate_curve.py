"""What a learning-rate range test found: the loss of each step, by its rate; and its table."""

import csv
from pathlib import Path
from typing import NamedTuple

from keras_cifar.files import replacing

_COLUMNS = ("learning_rate", "loss", "smoothed_loss")
# Share of the mean of the steps before that stays. With 0.8 to 0.98, the suggestions for SGD, Adam
# and Muon were the same to 15 %.
_KEPT = 0.9
_DIVERGED = 4  # times the lowest, as in fastai
_FEW = 5  # steps in which nothing shows yet


class RateCurve(NamedTuple):
    """A range test, step by step.

    Attributes:
        rates: learning rates, rising by the same factor.
        losses: training loss of each step's batch before it, in nats.
    """

    rates: list[float]
    losses: list[float]

    @property
    def smoothed(self) -> list[float]:
        """The losses' moving means, each over the steps up to it."""
        means, total, weight = [], 0.0, 0.0
        for loss in self.losses:
            total, weight = _KEPT * total + loss, _KEPT * weight + 1
            means.append(total / weight)
        return means

    @property
    def has_diverged(self) -> bool:
        """Whether the last smoothed loss is far above the lowest."""
        return self.smoothed[-1] > _DIVERGED * min(self.smoothed)

    @property
    def suggested(self) -> int | None:
        """The step at which the smoothed loss fell most steeply, before it was lowest.

        So do fastai 1 and PyTorch Lightning choose. None where the loss did not fall.
        """
        smoothed = self.smoothed
        falls = {
            step: smoothed[step - 1] - smoothed[step + 1]
            for step in range(_FEW, smoothed.index(min(smoothed)))
        }
        return max(falls, key=falls.__getitem__) if falls else None


def write_rate_curve(path: Path, curve: RateCurve) -> None:
    """Writes a table of a row a step, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in zip(curve.rates, curve.losses, curve.smoothed, strict=True):
            writer.writerow([f"{value:.6g}" for value in row])
