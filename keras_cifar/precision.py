"""Which number format a machine trains fastest in."""

import platform
from pathlib import Path

import tensorflow as tf

# CPU features that multiply bfloat16 matrices in hardware.
_BFLOAT16_CPU_FLAGS = ("avx512_bf16", "amx_bf16")
_BFLOAT16_COMPUTE_CAPABILITY = (8, 0)  # Ampere and later
_FLOAT16_COMPUTE_CAPABILITY = (7, 0)  # Volta and Turing: tensor cores for float16 only


def pick_precision() -> tuple[str, str]:
    """Returns the precision that suits this machine best, and the reason for it.

    Returns:
        "bfloat16", "float16" or "float32", and a phrase such as "the CPU has avx512_bf16".
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capabilities = [
            tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
            for gpu in gpus
        ]
        return precision_of_gpu(min(capabilities))
    return precision_of_cpu(cpu_flags())


def precision_of_gpu(compute_capability: tuple[int, int]) -> tuple[str, str]:
    """Returns precision and reason for the weakest GPU's compute capability."""
    reason = f"the GPU has compute capability {'.'.join(map(str, compute_capability))}"
    if compute_capability >= _BFLOAT16_COMPUTE_CAPABILITY:
        return "bfloat16", reason
    if compute_capability >= _FLOAT16_COMPUTE_CAPABILITY:
        return "float16", reason
    return "float32", reason


def precision_of_cpu(flags: frozenset[str]) -> tuple[str, str]:
    """Returns precision and reason for a CPU with these feature flags."""
    for flag in _BFLOAT16_CPU_FLAGS:
        if flag in flags:
            return "bfloat16", f"the CPU has {flag}"
    return "float32", f"the CPU has neither {' nor '.join(_BFLOAT16_CPU_FLAGS)}"


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
