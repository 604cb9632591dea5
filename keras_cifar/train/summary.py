"""What the runs of a group have come to, by their histories."""

from datetime import timedelta
from typing import NamedTuple

from keras_cifar.history import read_history
from keras_cifar.measure.intervals import mean_and_deviation
from keras_cifar.run_dir import RunGroup


class SeedOutcome(NamedTuple):
    """What a run has come to.

    Attributes:
        epoch: whose model was chosen, counted from 1.
        accuracy: of that model, 0..1, on what the summary names.
        seconds: of training.
    """

    epoch: int
    accuracy: float
    seconds: float


class Summary(NamedTuple):
    """What the runs of a group have come to.

    Attributes:
        measure: "val_accuracy", or "accuracy", on the training images as they were trained on,
            where there is no validation split.
        outcomes: by seed.
        mean: of the accuracies.
        deviation: their sample standard deviation; None of one seed.
    """

    measure: str
    outcomes: dict[int, SeedOutcome]
    mean: float
    deviation: float | None

    def __str__(self) -> str:
        width = max(len("mean"), *(len(str(seed)) for seed in self.outcomes))
        deviation = "" if self.deviation is None else f" ± {self.deviation:.4f}"
        return "\n".join(
            [
                f"{'seed':>{width}}  {self.measure:>12}  epoch      time",
                *(
                    f"{seed:>{width}}  {of.accuracy:>12.4f}  {of.epoch:>5}  "
                    f"{timedelta(seconds=round(of.seconds))!s:>8}"
                    for seed, of in self.outcomes.items()
                ),
                f"{'mean':>{width}}  {self.mean:>12.4f}{deviation}",
            ]
        )


def summarise(group: RunGroup) -> Summary:
    """Reads the histories of a group whose runs have ended.

    Raises:
        OSError: one is missing or damaged.
    """
    measure, outcomes = "val_accuracy", {}
    for seed in group.read_record().seeds:
        history = read_history(group.run(seed).history)
        position = history.best_position
        if position is None:
            measure, position, accuracies = "accuracy", len(history.epoch) - 1, history.accuracy
        else:
            accuracies = history.val_accuracy
        outcomes[seed] = SeedOutcome(position + 1, accuracies[position], sum(history.seconds))
    mean, deviation = mean_and_deviation([of.accuracy for of in outcomes.values()])
    return Summary(measure, outcomes, mean, deviation)
