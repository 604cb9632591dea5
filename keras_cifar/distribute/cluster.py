"""Which processes train together, as TF_CONFIG or Slurm tells each of them."""

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

TF_CONFIG = "TF_CONFIG"
_SLURM_TASKS, _SLURM_RANK = "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"
# Of Slurm's jobs on one node, each has ports of its own, below those that Linux gives to anybody.
_FIRST_PORT, _PORTS = 20_000, 10_000
_EXPECTED = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


class Cluster(NamedTuple):
    """The processes that train together.

    Attributes:
        source: what tells of them: "TF_CONFIG" or "Slurm".
        addresses: host:port of each worker. The first one is the chief, which writes the run.
        rank: the place of this process among them.
    """

    source: str
    addresses: tuple[str, ...]
    rank: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == 0

    def name(self, rank: int) -> str:
        """Returns what to call one of the processes in a message."""
        return f"worker {rank} ({self.addresses[rank]})"


def find_cluster() -> Cluster | None:
    """Returns the cluster that this process was started in; None for a process by itself.

    Raises:
        OSError: TF_CONFIG or Slurm's variables make no cluster of workers.
    """
    if text := os.environ.get(TF_CONFIG):
        return _of_tf_config(text)
    return _of_slurm() if is_in_cluster() else None


def is_in_cluster() -> bool:
    """Whether there seems to be a cluster; it loads no TensorFlow and raises nothing."""
    return bool(os.environ.get(TF_CONFIG)) or os.environ.get(_SLURM_TASKS, "1") != "1"


def is_helper() -> bool:
    """Whether this process is a worker, but not the chief."""
    cluster = find_cluster()
    return cluster is not None and not cluster.is_chief


def _of_tf_config(text: str) -> Cluster | None:
    try:
        document = json.loads(text)
        jobs = document.get("cluster") or {}
        if not jobs:
            return None
        groups = {name: jobs.get(name) or [] for name in ("chief", "worker")}
        if not all(isinstance(group, list) for group in groups.values()):
            raise TypeError
        kind, index = document["task"]["type"], int(document["task"]["index"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OSError(f"{TF_CONFIG}: got {text!r}, expected {_EXPECTED}.") from error
    if "ps" in jobs or kind not in ("chief", "worker"):
        role = kind if kind not in ("chief", "worker") else "ps"
        raise OSError(f"{TF_CONFIG}: names a {role}; here a chief and workers train, no others.")
    count = len(groups[kind])
    if not 0 <= index < count:
        raise OSError(
            f"{TF_CONFIG}: this process is {kind} {index}, but there are {count}, counted from 0."
        )
    rank = index + (len(groups["chief"]) if kind == "worker" else 0)
    return _checked(TF_CONFIG, [*groups["chief"], *groups["worker"]], rank=rank)


def _of_slurm() -> Cluster:
    import tensorflow as tf

    try:
        tasks = int(os.environ[_SLURM_TASKS])
        port = _FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", "0")) % _PORTS
        # Of GPUs it is told stories, since it divides by their number (TensorFlow 2.21).
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=port, gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
        )
        # Its cluster_spec() sorts the machines as text, node10 before node9, and Slurm does not.
        addresses = [
            f"{host}:{port + place}"
            for host, count in resolver._task_configuration.items()
            for place in range(count)
        ]
        rank = range(len(addresses)).index(int(os.environ[_SLURM_RANK]))
    except (ValueError, RuntimeError, KeyError) as error:
        raise OSError(
            f"Slurm: {str(error).rstrip('.')}. Start the workers with srun; for one process, "
            "give --strategy single."
        ) from error
    return _checked("Slurm", addresses, rank=rank)


def _checked(source: str, addresses: Sequence[Any], *, rank: int) -> Cluster:
    for address in addresses:
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not host or not port.isdecimal():
            raise OSError(f"{source}: names a worker {address!r}, expected host:port.")
    if len(set(addresses)) < len(addresses):
        raise OSError(f"{source}: names a worker twice: {', '.join(addresses)}.")
    return Cluster(source, tuple(addresses), rank)
