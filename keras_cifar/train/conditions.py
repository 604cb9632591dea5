"""What a run is trained under: settings without "auto", versions, a device; resume under others."""

import dataclasses
from pathlib import Path

import click
import tensorflow as tf

from keras_cifar.accelerate import xla
from keras_cifar.machine import (
    ONEDNN,
    cpu_model,
    device_kind,
    gpu_names,
    local_devices,
    onednn,
    package_versions,
    pick_precision,
    usable_cores,
)
from keras_cifar.recipes import RECIPES, TrainConfig
from keras_cifar.run_record import RunRecord
from keras_cifar.train.replicas import why_not_shared


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
    return dataclasses.replace(config, precision=precision, strategy=strategy), choices


def _settle_strategy(config: TrainConfig) -> tuple[str, dict[str, str]]:
    """Returns the strategy without "auto", and what to say of it where there are several GPUs."""
    require_equal_shares(config)
    gpus = len(tf.config.list_physical_devices("GPU"))
    if config.strategy != "auto" or gpus < 2 or "mirrored" not in RECIPES[config.recipe].strategies:
        return config.strategy.replace("auto", "single"), {}
    if fault := why_not_shared(config.batch_size, replicas=gpus):
        return "single", {"strategy": f"single ({fault} as --batch-size for all)"}
    return "mirrored", {"strategy": f"mirrored (over {gpus} GPUs)"}


def require_equal_shares(config: TrainConfig) -> None:
    """Refuses a batch size by which some examples would count for more than others.

    Raises:
        OSError: names the next sizes below and above.
    """
    replicas = len(local_devices()) if config.strategy == "mirrored" else 1
    if fault := why_not_shared(config.batch_size, replicas=replicas):
        raise OSError(f"--batch-size: {fault}, or --strategy single.")


def _ways(strategy: str) -> dict[str, str]:
    """Returns how this process computes, and why, by name: "oneDNN", and on a GPU "XLA"."""
    ways = {"oneDNN": onednn()}
    if device_kind() == "GPU":
        ways["XLA"] = xla.state(strategy, device="GPU")
    return {name: f"{state} ({reason})" for name, (state, reason) in ways.items()}


def device() -> str:
    """Returns the name of what this machine trains on."""
    return ", ".join(gpu_names()) or f"{cpu_model()}, {usable_cores()} threads"


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
        click.echo(f"{path}: {text}", err=True)

    here = device()
    if record.device != here:
        warn(f"on {record.device}", f"on this machine ({here})")
    for name, now in _ways(record.settings.strategy).items():
        then = record.choices.get(name, now)
        if then.partition(" ")[0] != now.partition(" ")[0]:  # another reason changes nothing
            way_out = f" {ONEDNN}, 1 or 0, is read at the start." if name == "oneDNN" else ""
            warn(f"with {name} {then}", f"with {name} {now}", way_out=way_out)
