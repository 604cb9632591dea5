"""Which processes train together, as TF_CONFIG or Slurm tells each of them."""

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

TF_CONFIG = "TF_CONFIG"
# Is set for the workers of `launch`, which itself says what there is to be said to the user.
LAUNCHED = "KERAS_CIFAR_LAUNCHED"
_SLURM_TASKS, _SLURM_RANK = "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"
# Ports below those that Linux gives to anybody: 20 for each of Slurm's steps, one for each task on
# a node. Two jobs have the same ones only if their numbers differ by a multiple of 500.
_FIRST_PORT, _PORTS_OF_A_STEP, _STEPS = 20_000, 20, 500
# So far from one step of a job to the next, since the jobs beside it have the next numbers.
_NEXT_STEP = 97
_KINDS = ("chief", "worker")
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
    return bool(variable_of_cluster())


def variable_of_cluster() -> str | None:
    """Returns the variable without which there would seem to be no cluster."""
    if os.environ.get(TF_CONFIG):
        return TF_CONFIG
    return _SLURM_TASKS if os.environ.get(_SLURM_TASKS, "1") != "1" else None


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
        groups = {name: jobs.get(name) or [] for name in _KINDS}
        if not all(isinstance(group, list) for group in groups.values()):
            raise TypeError
        kind, index = document["task"]["type"], int(document["task"]["index"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OSError(f"{TF_CONFIG}: got {text!r}, expected {_EXPECTED}.") from error
    if "ps" in jobs or kind not in _KINDS:
        role = "a ps" if kind in _KINDS else f"this process {kind!r}"
        raise OSError(f"{TF_CONFIG}: names {role}; here a chief and workers train, no others.")
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
        port = _first_port()
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
            f"unset {_SLURM_TASKS}, or begin with --strategy single."
        ) from error
    return _checked("Slurm", addresses, rank=rank)


def _first_port() -> int:
    job, step = (int(os.environ.get(f"SLURM_{name}_ID", "0")) for name in ("JOB", "STEP"))
    return _FIRST_PORT + (job + _NEXT_STEP * step) % _STEPS * _PORTS_OF_A_STEP


def _checked(source: str, addresses: Sequence[Any], *, rank: int) -> Cluster:
    for address in addresses:
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not host or not port.isdecimal():
            raise OSError(f"{source}: names a worker {address!r}, expected host:port.")
    if len(set(addresses)) < len(addresses):
        raise OSError(f"{source}: names a worker twice: {', '.join(addresses)}.")
    return Cluster(source, tuple(addresses), rank)
