"""What a person needs to know, and to tell others, before asking for help."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_cifar.accelerate import xla
from keras_cifar.cifar10 import CIFAR10
from keras_cifar.data.prepare import default_data_dir
from keras_cifar.data.tfds_folder import dataset_folder, is_prepared
from keras_cifar.errors import described, printable
from keras_cifar.machine import (
    cpu_flags,
    cpu_model,
    gpus,
    nvidia_smi,
    onednn,
    pick_precision,
    usable_cores,
)
from keras_cifar.run_dir import RUNS, is_group, newest_run
from keras_cifar.usable_memory import memory

_PACKAGES = ("keras-cifar", "tensorflow", "keras", "tensorflow-datasets", "numpy", "matplotlib")
# A module of each extra, which is there only if the extra is.
_EXTRAS = {
    "cuda": "nvidia.cudnn",
    "litert": "ai_edge_litert",
    "onnx": "tf2onnx",
    "report": "jinja2",
    "serve": "uvicorn",
    "tensorboard": "tensorboard",
}
_CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_GIGABYTE = 1e9
# Preparing CIFAR-10 takes 0.5 GB, with the download beside the result.
_DISK_GIGABYTES = 1.0
# Training at batch 128 takes less than this.
_MEMORY_GIGABYTES = 2.5


class Fact(NamedTuple):
    """One thing found out, in the section "versions", "devices", "data", "extras" or "runs"."""

    section: str
    name: str
    value: str


class Problem(NamedTuple):
    """What is wrong, and what to do, each a sentence."""

    what: str
    remedy: str


class Diagnosis(NamedTuple):
    """All that was found out, and what of it is wrong."""

    facts: list[Fact]
    problems: list[Problem]


def diagnose(*, data_dir: Path | None) -> Diagnosis:
    """Looks at versions, devices, data, extras and runs; changes and decodes nothing.

    Args:
        data_dir: where TFDS data sets are; None for TFDS_DATA_DIR or TFDS's own default.
    """
    found = [*_versions(), *_cpu(), *_gpus(), *_data(data_dir), *_extras(), *_runs()]
    return Diagnosis(
        facts=[item for item in found if isinstance(item, Fact)],
        problems=[item for item in found if isinstance(item, Problem)],
    )


def _versions() -> Iterator[Fact | Problem]:
    yield Fact("versions", "Python", platform.python_version())
    yield Fact("versions", "system", platform.platform())
    for package in _PACKAGES:
        yield Fact("versions", package, _version(package))
    build = tf.sysconfig.get_build_info()
    cuda, cudnn = build.get("cuda_version"), build.get("cudnn_version")
    built_for = f"CUDA {cuda}, cuDNN {cudnn}" if cuda else "CPU only"
    yield Fact("versions", "TensorFlow built for", built_for)
    yield Fact("versions", "Keras runs on", keras.backend.backend())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> Iterator[Fact | Problem]:
    flags = cpu_flags()
    precision, reason = pick_precision()
    total, available = (bytes_ / _GIGABYTE for bytes_ in memory() or (0, 0))
    known = f"{total:.1f} GB, {available:.1f} GB available" if total else "unknown"
    yield Fact("devices", "CPU", cpu_model())
    yield Fact("devices", "CPU cores", f"{usable_cores()} of {os.cpu_count()}")
    yield Fact("devices", "memory", known)
    for feature in _CPU_FEATURES:
        yield Fact("devices", feature, "yes" if feature in flags else "no")
    yield Fact("devices", "--precision auto", f"{precision}: {reason}")
    yield Fact("devices", "oneDNN, to train", "{}: {}".format(*onednn()))
    if total and available < _MEMORY_GIGABYTES:
        yield Problem(
            f"Only {available:.1f} GB of memory are available; training at batch size 128 "
            f"takes up to {_MEMORY_GIGABYTES} GB.",
            "Close other programs, or train with a smaller --batch-size.",
        )


def _gpus() -> Iterator[Fact | Problem]:
    seen = gpus()
    yield Fact("devices", "GPUs that TensorFlow uses", str(len(seen)) if seen else "none")
    for gpu in seen:
        capability = ".".join(map(str, gpu.capability or ())) or "unknown"
        yield Fact("devices", gpu.device, f"{gpu.name}, compute capability {capability}")
    if seen:
        yield Fact("devices", "XLA, to train", "{}: {}".format(*xla.state("single", device="GPU")))
    installed = _installed_gpus()
    for number, description in enumerate(installed):
        yield Fact("devices", f"GPU {number} in nvidia-smi", description)
    if installed and not seen:
        yield Problem("This machine has a GPU that TensorFlow does not see.", _gpu_remedy())


def _installed_gpus() -> list[str]:
    """Returns name, memory and driver of each NVIDIA GPU, as the driver's own tool gives them."""
    query = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return [line.strip() for line in nvidia_smi(*query).splitlines() if line.strip()]


def _gpu_remedy() -> str:
    if not _is_importable(_EXTRAS["cuda"]):
        return "Install the CUDA libraries: pip install 'keras-cifar[cuda]'"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return f"CUDA_VISIBLE_DEVICES is {hidden!r}: unset it, or name the GPU to use."
    return "The CUDA libraries are installed: update the NVIDIA driver (525 or newer)."


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the parent package
        return False


def _data(data_dir: Path | None) -> Iterator[Fact | Problem]:
    try:
        yield from _data_in(data_dir or default_data_dir())
    except OSError as error:
        # Of default_data_dir, it says itself what to do.
        what, _, remedy = described(error).partition(". ")
        yield Fact("data", "cifar10", "unknown")
        yield Problem(f"{what}.", remedy or "Name another folder with --data-dir.")


def _data_in(root: Path) -> Iterator[Fact | Problem]:
    folder = dataset_folder(CIFAR10, data_dir=root)
    free = _free_gigabytes(root)
    state = "prepared, files complete"
    if not is_prepared(folder):
        state = "not prepared"
        yield Problem(
            f"CIFAR-10 is not in {root}.",
            "Get it: keras-cifar data. Or try the part that is installed: --dataset sample",
        )
        if free < _DISK_GIGABYTES:
            yield Problem(
                f"Only {free:.1f} GB are free in {root}; preparing CIFAR-10 needs "
                f"{_DISK_GIGABYTES:.0f} GB.",
                "Make room, or name another folder with --data-dir.",
            )
    elif missing := _missing_bytes(folder):
        state = "damaged"
        yield Problem(
            f"CIFAR-10 in {folder} is damaged ({missing}).",
            "Move that folder away and prepare it anew: keras-cifar data",
        )
    yield Fact("data", "folder", str(root))
    yield Fact("data", "cifar10", state)
    yield Fact("data", "free space", f"{free:.1f} GB")


def _free_gigabytes(folder: Path) -> float:
    absolute = folder.absolute()
    existing = next(path for path in (absolute, *absolute.parents) if path.exists())
    return shutil.disk_usage(existing).free / _GIGABYTE


def _missing_bytes(folder: Path) -> str:
    """Returns what is wrong with the size of a prepared data set's files; empty if nothing is.

    TFDS notes the bytes of all records; a TFRecord file adds 16 to each (lengths and checksums). Of
    other formats, reading alone can tell.
    """
    try:
        information = json.loads((folder / "dataset_info.json").read_text())
        if information.get("fileFormat", "tfrecord") != "tfrecord":
            return ""
        splits = information["splits"]
        expected = sum(
            int(split["numBytes"]) + 16 * sum(map(int, split["shardLengths"])) for split in splits
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "dataset_info.json is unreadable"
    found = sum(path.stat().st_size for path in folder.glob("*.tfrecord*"))
    return "" if found == expected else f"{found:,} bytes of {expected:,}"


def _extras() -> Iterator[Fact]:
    for extra, module in _EXTRAS.items():
        state = "installed" if _is_importable(module) else f"pip install 'keras-cifar[{extra}]'"
        yield Fact("extras", extra, state)


def _runs() -> Iterator[Fact]:
    try:
        run = newest_run()
    except FileNotFoundError:
        yield Fact("runs", "newest", f"none in {RUNS.absolute()}")
    else:
        state = "trained" if run.model.is_file() else "no model yet"
        state = "a group of runs" if is_group(run.path) else state
        yield Fact("runs", "newest", f"{printable(str(run.path))} ({state})")


def format_diagnosis(diagnosis: Diagnosis) -> str:
    """Returns what a person reads: the facts by section, and the problems last."""
    width = max(len(fact.name) for fact in diagnosis.facts) + 2
    lines: list[str] = []
    for section, facts in groupby(diagnosis.facts, key=attrgetter("section")):
        lines += ["", section, *(f"  {fact.name:<{width}}{fact.value}" for fact in facts)]
    lines += ["", "problems" if diagnosis.problems else "No problem found."]
    lines += [f"  {problem.what} {problem.remedy}" for problem in diagnosis.problems]
    return "\n".join(lines).lstrip("\n")


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Returns {section: {name: value}, ..., "problems": [{"what", "remedy"}]}."""
    document: dict[str, Any] = {}
    for section, name, value in diagnosis.facts:
        document.setdefault(section, {})[name] = value
    return {**document, "problems": [problem._asdict() for problem in diagnosis.problems]}
