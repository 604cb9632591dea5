"""What each worker on this machine gets: a port, and its share of the CPU cores and the GPUs."""

import itertools
import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import click

from keras_cifar.distribute.cluster import LAUNCHED, TF_CONFIG
from keras_cifar.machine import MAX_CORES, nvidia_smi, usable_cores

_HOST = "127.0.0.1"
_GPUS = "CUDA_VISIBLE_DEVICES"
_Thing = TypeVar("_Thing")


@dataclass(frozen=True)
class WorkerShare:
    """What one worker gets.

    Attributes:
        environment: variables that its process has in addition.
        cores: numbers of the CPU cores that it may run on; empty for all that this process may.
        cores_used: how many it computes with, which a container's share of time may bound too.
        gpus: what CUDA calls the GPUs that it sees; empty where there are none.
    """

    environment: dict[str, str]
    cores: frozenset[int]
    cores_used: int
    gpus: tuple[str, ...]


@contextmanager
def held_ports(count: int) -> Iterator[list[int]]:
    """Gives free ports that no process of another user or without SO_REUSEPORT gets meanwhile.

    The worker that listens on one has SO_REUSEPORT too, by TF_GRPC_REUSE_PORT. A socket that is
    bound and does not listen takes no connection away from it.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind(("", 0))  # as TensorFlow: on all interfaces
        yield [each.getsockname()[1] for each in sockets]


def share_out(ports: Sequence[int]) -> list[WorkerShare]:
    """Shares the cores and GPUs that this process may use out to workers, one for each port.

    Raises:
        OSError: there are fewer GPUs than workers.
    """
    count = len(ports)
    gpus = _visible_gpus()
    if gpus and count > len(gpus):
        raise OSError(
            f"--workers: got {count}, but each needs a GPU, and there are {len(gpus)}. "
            f"Start at most {len(gpus)}, or train on the CPU: {_GPUS}= keras-cifar launch ..."
        )
    if idle := len(gpus) % count:  # TensorFlow wants as many GPUs in each worker
        stay = "stays" if idle == 1 else "stay"
        text = f"GPUs: {len(gpus)}, of which {idle} {stay} idle: all workers get as many"
        click.echo(text, err=True)
        gpus = gpus[:-idle]
    affinity = _affinity()
    cores_used = max(1, usable_cores() // count)
    return [
        WorkerShare(
            _environment(ports, index, cores_used, gpus_of_it),
            # Fewer than workers: all use all.
            frozenset(_part(affinity, index, count) if len(affinity) >= count else ()),
            cores_used,
            tuple(gpus_of_it),
        )
        for index in range(count)
        for gpus_of_it in [_part(gpus, index, count)]
    ]


def _visible_gpus() -> list[str]:
    """Returns the GPUs by names that CUDA knows; TensorFlow would take seconds, and some memory."""
    if (told := os.environ.get(_GPUS)) is not None:
        names = (name.strip() for name in told.split(","))
        return list(itertools.takewhile(lambda name: name not in ("", "-1"), names))  # as CUDA does
    return re.findall(r"^GPU \d+: .*\(UUID: (\S+)\)$", nvidia_smi("-L"), re.MULTILINE)


def _affinity() -> list[int]:
    # A Mac has none.
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _part(things: Sequence[_Thing], index: int, count: int) -> Sequence[_Thing]:
    """Returns the part number `index` of `count`, of neighbours, as equal in length as can be."""
    return things[len(things) * index // count : len(things) * (index + 1) // count]


def _environment(
    ports: Sequence[int], index: int, cores_used: int, gpus: Sequence[str]
) -> dict[str, str]:
    return {
        **cluster_environment(ports, index=index),
        LAUNCHED: "1",
        # What `usable_cores` returns in the worker. Affinity does not say what a container may use.
        MAX_CORES: str(cores_used),
        **({_GPUS: ",".join(gpus)} if gpus else {}),
    }


def cluster_environment(ports: Sequence[int], *, index: int) -> dict[str, str]:
    """Returns the variables by which one worker of several on `held_ports` knows all of them."""
    cluster = {"worker": [f"{_HOST}:{port}" for port in ports]}
    return {
        TF_CONFIG: json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
        "TF_GRPC_REUSE_PORT": "1",
    }
