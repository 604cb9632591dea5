"""The workers of a cluster, connected: what they agree on, what the chief sends, how they fail."""

import atexit
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import click
import keras
import tensorflow as tf

# What TensorFlow's strategy itself takes; it has no public way to say how long to wait for whom.
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context

from keras_cifar.distribute.cluster import Cluster, find_cluster
from keras_cifar.distribute.failures import FAILURES, JOB, what_failed
from keras_cifar.distribute.interrupts import ended_by_signals

# Until all have come: machines of a cluster do not start at once.
_JOIN_SECONDS = 600
# What has stopped, or is cut off, is missed after this long.
_HEARTBEAT_SECONDS = 20
# What still beats but does not compute, since its disk hangs say. More than the others need to
# trace a step or to write a checkpoint.
_STEP_SECONDS = 50
_END_SECONDS = 120
_SHUTDOWN_SECONDS = 3
_BYPASS_OF_GRPC = "no_grpc_proxy"


class Workers:
    """The processes of a cluster, connected with each other.

    Attributes:
        cluster: who they are.
        strategy: what trains on all of them.
    """

    def __init__(self, cluster: Cluster, strategy: tf.distribute.Strategy) -> None:
        self.cluster = cluster
        self.strategy = strategy
        self._trainings = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run."""
        return self.cluster.is_chief

    def agree(self, facts: dict[str, Any]) -> None:
        """Begins a training, and compares what each worker is about to do.

        Raises:
            OSError: one of them is not as the chief, on all of them.
        """
        self._trainings += 1
        self._say(f"facts/{self.cluster.rank}", json.dumps(facts))
        chiefs, *others = (
            json.loads(self._hear(f"facts/{rank}")) for rank in range(len(self.cluster.addresses))
        )
        for rank, theirs in enumerate(others, start=1):
            if different := differences(theirs, chiefs=chiefs):
                raise OSError(
                    f"{self.cluster.name(rank)} was started with {', '.join(different)}. "
                    "Start all workers alike."
                )

    def tell(self, name: str, value: Any) -> Any:
        """Returns on all workers what the chief passes here, once it does; of JSON."""
        if self.is_chief:
            self._say(f"chief/{name}", json.dumps(value))
        return json.loads(self._hear(f"chief/{name}"))

    def take_the_chiefs(self, variables: Sequence[keras.Variable]) -> None:
        """Gives variables, on all workers, the values that they have on the chief."""
        for variable in variables:
            with self.strategy.scope():
                # What is made under the strategy starts with the chief's value.
                value = tf.Variable(variable.numpy(), trainable=False)
            variable.assign(value.numpy())

    def end(self) -> None:
        """Has the chief, with whom all connections end, end last."""
        with suppress(*FAILURES):
            self._say(f"ended/{self.cluster.rank}", "")
            if self.is_chief:
                for rank in range(len(self.cluster.addresses)):
                    self._hear(f"ended/{rank}", seconds=_END_SECONDS)

    @contextmanager
    def failures_in_words(self) -> Iterator[None]:
        """Turns what TensorFlow raises when a worker is gone into one line.

        Raises:
            ConnectionError: a worker does not answer, or this one's device fails.
        """
        try:
            yield
        except FAILURES as error:
            # Operations that wait for others may not be left in order: Python's own end could.
            atexit.register(_end_at_once)
            here = self.cluster.name(self.cluster.rank)
            raise ConnectionError(
                f"{here}: {what_failed(str(error), self.cluster)}; then go on from the last "
                "checkpoint with the same command on all workers and --resume."
            ) from error

    def _say(self, name: str, text: str) -> None:
        # A name is given once, and a process may train again.
        context.context().set_config_key_value(f"{self._trainings}/{name}", text)

    def _hear(self, name: str, *, seconds: int = 0) -> str:
        """Waits for what another process says, as long as it lives."""
        name = f"{self._trainings}/{name}"
        with ended_by_signals():
            return str(context.context().get_config_key_value(name, seconds * 1000))


def differences(theirs: dict[str, Any], *, chiefs: dict[str, Any]) -> list[str]:
    """Returns in words what of a worker is not as the chief, of what both tell."""
    return [
        f"{name} {theirs[name]} (the chief: {value})"
        for name, value in chiefs.items()
        if theirs.get(name, value) != value
    ]


def _end_at_once() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


@cache
def workers_of_this_process() -> Workers:
    """Connects this process with the others of its cluster, before TensorFlow computes anything.

    Raises:
        OSError: there is no cluster.
        ConnectionError: some of them have not come.
    """
    cluster = find_cluster()
    if cluster is None:
        raise OSError(
            "--strategy: multi-worker, but neither TF_CONFIG nor Slurm names any workers. On one "
            "machine, start them so, with the same options: keras-cifar launch --workers 2 -- train"
        )
    return _join(cluster)


def _join(cluster: Cluster) -> Workers:
    count = len(cluster.addresses)
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{JOB}/task:0",
        cluster_register_timeout_in_ms=_JOIN_SECONDS * 1000,
        heartbeat_timeout_in_ms=_HEARTBEAT_SECONDS * 1000,
        shutdown_barrier_timeout_in_ms=_SHUTDOWN_SECONDS * 1000,  # `Workers.end` has waited
        coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name=JOB, num_tasks=count)],
    )
    _pass_by_proxies(cluster)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({JOB: list(cluster.addresses)}),
        task_type=JOB,
        task_id=cluster.rank,
        rpc_layer="grpc",
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
    )
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=_STEP_SECONDS)
    try:
        with ended_by_signals():
            if cluster.is_chief:
                click.echo(f"Waiting for {count} workers, up to {_JOIN_SECONDS} s", err=True)
            strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
        return Workers(cluster, strategy)
    except tf.errors.OpError as error:
        atexit.register(_end_at_once)
        raise ConnectionError(
            f"{cluster.name(cluster.rank)}: not all of {', '.join(cluster.addresses)} have come "
            f"within {_JOIN_SECONDS} s ({str(error.message).splitlines()[0]})."
        ) from error


def _pass_by_proxies(cluster: Cluster) -> None:
    """Has gRPC connect to the workers themselves, not by the proxy of http_proxy."""
    hosts = dict.fromkeys(address.rpartition(":")[0] for address in cluster.addresses)
    os.environ[_BYPASS_OF_GRPC] = ",".join(hosts)
