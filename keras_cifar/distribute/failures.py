"""What TensorFlow raises when workers cannot go on together, in words."""

import re

import tensorflow as tf

from keras_cifar.distribute.cluster import Cluster

# What all workers are to TensorFlow.
JOB = "worker"
# What TensorFlow says of an operation before and after what is wrong with it.
_FRAME = re.compile(
    r"Graph execution error|Detected at node|\s+File|<stack traces|\s*\[\[|\d+ root"
)
FAILURES = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def what_failed(text: str, cluster: Cluster) -> str:
    """Returns what an error says, and what to look at; another worker is blamed only if named."""
    if (rank := _who_failed(text, cluster)) is not None:
        return f"{cluster.name(rank)} does not answer any more. See what it said last"
    return f"cannot go on: {_cause(text)}. See what the others said last"


def _who_failed(text: str, cluster: Cluster) -> int | None:
    ranks = {int(rank) for rank in re.findall(rf"/job:{JOB}[^ ]*?/task:(\d+)", text)}
    ranks.discard(cluster.rank)
    if not ranks and not cluster.is_chief and "CoordinationService" in text:
        return 0
    return min(ranks, default=None)


def _cause(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _FRAME.match(line)]
    return lines[0].rstrip(".") if lines else text
