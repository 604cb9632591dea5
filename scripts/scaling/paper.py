"""The time of a step on paper: what one worker computes, and a ring that adds the gradients.

In a ring of n workers, each sends its 1/n of the bytes 2 (n - 1) times, to its neighbour (Patarasuk
and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009). Nothing of
it overlaps with the computation: TensorFlow packs all gradients into one all-reduce, which waits
for the last of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Link(NamedTuple):
    """What connects two neighbours.

    Attributes:
        latency: seconds of a message without content.
        bandwidth: bytes/s.
    """

    latency: float
    bandwidth: float


class Compute(NamedTuple):
    """What a step takes a worker without the others.

    Attributes:
        step: seconds, whatever the images.
        image: seconds for each image.
    """

    step: float
    image: float

    def seconds(self, images: float) -> float:
        """Returns the time of a step of so many images."""
        return self.step + self.image * images


class Work(NamedTuple):
    """What a step is.

    Attributes:
        gradient_bytes: in one all-reduce.
        small: all-reduces of a number or two.
    """

    gradient_bytes: int
    small: int


def all_reduce(content: int, *, workers: int, link: Link) -> float:
    """Returns the seconds of an all-reduce of so many bytes."""
    turns = 2 * (workers - 1)
    return turns * (link.latency + content / workers / link.bandwidth)


def communication(work: Work, *, workers: int, link: Link) -> float:
    """Returns the seconds for which the workers of a step wait for each other's numbers."""
    gradients = all_reduce(work.gradient_bytes, workers=workers, link=link)
    return gradients + work.small * all_reduce(4, workers=workers, link=link)


def fit_link(points: Sequence[tuple[int, float]], *, workers: int) -> Link:
    """Returns the link by which all-reduces take as long as was measured.

    Args:
        points: bytes and seconds of at least two all-reduces.
        workers: that took part.
    """
    contents, seconds = np.array(points, float).T
    # By ratios: else the largest would decide alone.
    slope, start = np.polyfit(contents, seconds, 1, w=1 / seconds)
    turns = 2 * (workers - 1)
    # Other work can make more bytes look faster; no link of these has 1 TB/s.
    return Link(max(start, 0.0) / turns, turns / workers / max(slope, 1e-12))


def fit_compute(points: Sequence[tuple[int, float]]) -> Compute:
    """Returns the line through images and seconds of steps."""
    image, step = np.polyfit(*np.array(points, float).T, 1)
    return Compute(max(float(step), 0.0), float(image))


class Prediction(NamedTuple):
    """A row of the table.

    Attributes:
        place: what the workers are.
        workers: how many.
        batch: images of a step, in all.
        step: seconds.
        waits: seconds of it for communication.
        speedup: images/s, by those of one worker with `batch_of_one`.
    """

    place: str
    workers: int
    batch: int
    step: float
    waits: float
    speedup: float


class Place(NamedTuple):
    """Workers and what connects them."""

    name: str
    workers: int
    compute: Compute
    link: Link


def predict(place: Place, work: Work, *, batch: int, batch_of_one: int) -> Prediction:
    """Returns what is to be expected of a step of `batch` images in a place."""
    waits = communication(work, workers=place.workers, link=place.link)
    step = place.compute.seconds(batch / place.workers) + waits
    one = batch_of_one / place.compute.seconds(batch_of_one)
    return Prediction(place.name, place.workers, batch, step, waits, batch / step / one)
