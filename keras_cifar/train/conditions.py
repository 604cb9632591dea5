"""What a run is trained under: settings without "auto", versions, a device; resume under others."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import tensorflow as tf

from keras_cifar.accelerate import xla
from keras_cifar.distribute.cluster import find_cluster
from keras_cifar.errors import printable
from keras_cifar.machine import (
    ONEDNN,
    cpu_model,
    device_kind,
    gpus,
    local_devices,
    onednn,
    package_versions,
    pick_precision,
    usable_cores,
)
from keras_cifar.recipes import RECIPES, TrainConfig
from keras_cifar.recipes.equal_shares import require_equal_shares
from keras_cifar.run_record import RunRecord


def settle(config: TrainConfig) -> tuple[TrainConfig, dict[str, str]]:
    """Replaces "auto" by what it means on this machine.

    Returns:
        The settings, and what was chosen and why, as config.json says it.
    """
    best, reason = pick_precision()
    precision = best if config.precision == "auto" else config.precision
    if precision != best:
        reason = f"as told; {best} is faster here: {reason}"
    strategy, devices = _settle_strategy(config)
    choices = {**devices, "precision": f"{precision} ({reason})", **_ways(strategy)}
    config = dataclasses.replace(config, precision=precision, strategy=strategy)
    require_equal_shares(config, replicas=replicas_here(config))
    return config, choices


def _settle_strategy(config: TrainConfig) -> tuple[str, dict[str, str]]:
    """Returns the strategy without "auto", and what to say of several GPUs."""
    if config.strategy != "auto":
        return config.strategy, {}
    if cluster := _of_cluster(config):
        return cluster, {}
    count = len(gpus())
    if count < 2 or "mirrored" not in RECIPES[config.recipe].strategies:
        return "single", {}
    try:
        require_equal_shares(config, replicas=count)
    except OSError as error:
        return "single", {"strategy": f"single ({error})"}
    return "mirrored", {"strategy": f"mirrored (over {count} GPUs)"}


def _of_cluster(config: TrainConfig) -> str | None:
    cluster = find_cluster()
    if cluster is None or len(cluster.addresses) == 1:
        return None
    if "multi-worker" not in RECIPES[config.recipe].strategies:
        raise OSError(
            f"{cluster.source} names {len(cluster.addresses)} workers, but {config.recipe} trains "
            "on a single device alone. Start one process, or give --strategy single."
        )
    return "multi-worker"


def replicas_here(config: TrainConfig) -> int:
    """Returns on how many devices, of all workers, the settings, without "auto", are trained."""
    if config.strategy == "mirrored":
        return len(local_devices())
    if config.strategy == "multi-worker" and (cluster := find_cluster()):
        return len(cluster.addresses) * (len(gpus()) or 1)
    return 1


def require_one_process(config: TrainConfig, *, option: str) -> None:
    """Raises OSError if settings without "auto" are of several workers."""
    if config.strategy == "multi-worker":
        raise OSError(f"{option}: is for one process; several workers train a run. Leave it out.")


def _ways(strategy: str) -> dict[str, str]:
    """Returns how it is computed, and why, by name: "oneDNN", and on a GPU "XLA", say."""
    ways = {"oneDNN": onednn()}
    if strategy == "multi-worker" and (cluster := find_cluster()):
        ways["workers"] = str(len(cluster.addresses)), f"as {cluster.source} says"
    if device_kind() == "GPU":
        ways["XLA"] = xla.state(strategy, device="GPU")
    return {name: f"{state} ({reason})" for name, (state, reason) in ways.items()}


@contextmanager
def out_of_memory_in_words(config: TrainConfig) -> Iterator[None]:
    """Turns TensorFlow's error, which lists what is allocated, into a MemoryError that helps."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(
            f"--batch-size: {config.batch_size} images at a time need more memory than "
            f"{device()} has left. Take fewer, or end what else uses it."
        ) from error


def device() -> str:
    """Returns the name of what this machine trains on."""
    return ", ".join(gpu.name for gpu in gpus()) or f"{cpu_model()}, {usable_cores()} threads"


def refuse_other_versions(path: Path, versions: dict[str, str]) -> None:
    """Raises OSError if what was started in `path` was started with other versions."""
    changed = [
        f"{name} {versions.get(name)} (now {value})"
        for name, value in package_versions().items()
        if versions.get(name) != value
    ]
    if changed:
        raise OSError(
            f"{path}: was started with {', '.join(changed)}; with other versions it would "
            "not end the same. Install those, or train anew in another --run-dir."
        )


def warn_of_another_machine(path: Path, record: RunRecord) -> None:
    """Says what is not as it was when `path` was started, and what comes of that."""

    def warn(then: str, now: str, *, way_out: str = "") -> None:
        text = f"was started {then}; {now} it will end nearly the same, not to the bit.{way_out}"
        click.echo(f"{path}: {printable(text)}", err=True)

    here = device()
    if record.device != here:
        warn(f"on {record.device}", f"on this machine ({here})")
    for name, now in _ways(record.settings.strategy).items():
        then = record.choices.get(name, now)
        if then.partition(" ")[0] != now.partition(" ")[0]:  # another reason changes nothing
            way_out = f" {ONEDNN}, 1 or 0, is read at the start." if name == "oneDNN" else ""
            warn(f"with {name} {then}", f"with {name} {now}", way_out=way_out)
