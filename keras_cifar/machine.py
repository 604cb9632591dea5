"""This machine: its cores, CPU and GPUs, the precision that suits it, its versions."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

# TensorFlow reads it when it is imported. By itself it takes oneDNN only where the CPU has AVX-512
# with VNNI or better. An AMD EPYC with AVX2 alone (2 cores, TensorFlow 2.21, November 2026) trained
# the article's network in float32 at 92 images/s without it and at 121 to 130 with it. But there
# the exported network answered 122 to 129 images/s one at a time without it, and 72 to 73 with it.
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
ONEDNN_ON = "1"
_WITH_ONEDNN = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}
_THREADS = {"TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"}
# What multiplies bfloat16 faster than float32: AMX on Intel, the instructions of AVX-512 on AMD. On
# Intel those run at half the rate of float32's: a Xeon without AMX trained the article's network
# at 205 images/s in bfloat16 and at 347 in float32 (2 cores, TensorFlow 2.21, November 2026).
AVX2 = "avx2"
_AMX = "amx_bf16"
_AVX512 = "avx512_bf16"
_BFLOAT16_COMPUTE_CAPABILITY = (8, 0)  # Ampere and later
_FLOAT16_COMPUTE_CAPABILITY = (7, 0)  # Volta and Turing: tensor cores for float16 only
MAX_CORES = "LOKY_MAX_CPU_COUNT"  # of this process, as `usable_cores` counts them
_NVIDIA_SMI_SECONDS = 20
_PACKAGES = ("tensorflow", "keras", "numpy", "keras-cifar")


def granted_threads() -> int:
    """Returns how many threads TensorFlow is to compute with; 0 where it knows by itself.

    It heeds taskset, but not a container's share of time: of 64 cores it would start 64 threads for
    the 2 that a container has.
    """
    if usable_cores() == os.cpu_count() or os.environ.keys() & _THREADS:
        return 0
    return usable_cores()


def usable_cores() -> int:
    """Returns the cores that this process may use: by affinity, and by its cgroup's quota."""
    import loky

    try:
        return int(loky.cpu_count())
    except ValueError as error:
        told = os.environ.get(MAX_CORES)
        raise OSError(f"{MAX_CORES}: got {told!r}, expected a number. Unset it.") from error


def nvidia_smi(*arguments: str) -> str:
    """Returns what NVIDIA's tool says; "" where there is none, or it fails."""
    try:
        return subprocess.run(
            ["nvidia-smi", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_NVIDIA_SMI_SECONDS,
            check=True,
            encoding="utf-8",
            errors="replace",
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def onednn() -> tuple[str, str]:
    """Returns whether TensorFlow, which has been started, computes with oneDNN, and the reason.

    Returns:
        "on" or "off", and a phrase such as "faster to train with on a CPU with avx2".
    """
    # TensorFlow 2.21 says so nowhere in public.
    from tensorflow.python.util import _pywrap_util_port

    state = "on" if _pywrap_util_port.IsMklEnabled() else "off"
    setting = os.environ.get(ONEDNN)
    if setting is None:
        return state, "as TensorFlow has it on this CPU"
    if setting == ONEDNN_ON and AVX2 in cpu_flags():
        return state, f"faster to train with on a CPU with {AVX2}"
    return state, f"{ONEDNN} is {setting!r}"


def onednn_by_itself() -> str:
    """Returns what TensorFlow does about oneDNN on this CPU, if it is not told: "on" or "off"."""
    return "on" if cpu_flags() & _WITH_ONEDNN else "off"


def device_kind() -> str:
    """Returns what this machine trains on: "GPU" where TensorFlow sees one, else "CPU"."""
    import tensorflow as tf

    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"


def local_devices() -> list[str]:
    """Returns TensorFlow's names of all that "mirrored" trains on: the GPUs, or else the CPU."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in devices]


class Gpu(NamedTuple):
    """A GPU that TensorFlow sees, which does not describe every one.

    Attributes:
        device: TensorFlow's name of it, "/physical_device:GPU:0" say.
        name: "NVIDIA T4", say.
        capability: the compute capability; None if it is not known.
    """

    device: str
    name: str
    capability: tuple[int, int] | None


def gpus() -> list[Gpu]:
    """Returns the GPUs that TensorFlow sees."""
    import tensorflow as tf

    found = []
    for device in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(device)
        name = details.get("device_name", "an unknown GPU")
        found.append(Gpu(device.name, name, details.get("compute_capability")))
    return found


def precisions() -> list[str]:
    """Returns the precisions that this machine computes in hardware."""
    best, _ = pick_precision()
    also = ["bfloat16"] if device_kind() == "CPU" and cpu_flags() & {_AMX, _AVX512} else []
    return list(dict.fromkeys(["float32", best, *also]))


def pick_precision() -> tuple[str, str]:
    """Returns the precision that suits this machine best, and the reason for it.

    Returns:
        "bfloat16", "float16" or "float32", and a phrase such as "the CPU has avx512_bf16".
    """
    if seen := gpus():
        known = [gpu.capability for gpu in seen if gpu.capability]
        return precision_of_gpu(min(known) if len(known) == len(seen) else None)
    return precision_of_cpu(cpu_flags(), vendor=_cpuinfo("vendor_id"))


def precision_of_gpu(compute_capability: tuple[int, int] | None) -> tuple[str, str]:
    """Returns precision and reason for the weakest GPU's compute capability, if it is known."""
    if compute_capability is None:
        return "float32", "TensorFlow does not tell the GPU's compute capability"
    reason = f"the GPU has compute capability {'.'.join(map(str, compute_capability))}"
    if compute_capability >= _BFLOAT16_COMPUTE_CAPABILITY:
        return "bfloat16", reason
    if compute_capability >= _FLOAT16_COMPUTE_CAPABILITY:
        return "float16", reason
    return "float32", reason


def precision_of_cpu(flags: frozenset[str], *, vendor: str) -> tuple[str, str]:
    """Returns precision and reason for a CPU.

    Args:
        flags: its features, as Linux names them.
        vendor: as it says itself, "AuthenticAMD" or "GenuineIntel" say.
    """
    if _AMX in flags:
        return "bfloat16", f"the CPU has {_AMX}"
    if _AVX512 not in flags:
        return "float32", f"the CPU has neither {_AMX} nor {_AVX512}"
    if vendor == "AuthenticAMD":
        return "bfloat16", f"the CPU has {_AVX512}"
    return "float32", f"faster than {_AVX512} on this CPU, which has no {_AMX}"


def cpu_flags() -> frozenset[str]:
    """Returns the CPU's feature flags as Linux names them; none where they cannot be read."""
    return frozenset(_cpuinfo("flags").split())


def cpu_model() -> str:
    """Returns the CPU's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    """Returns the first processor's entry in /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    entries = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in entries if name.strip() == key), "")


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that compute."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
