"""This machine: TensorFlow started on it, its CPU, the precision that suits it, its versions."""

import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

# What TensorFlow says at every start on a healthy machine. Matched against whole lines.
_NOISE = re.compile(
    r"All log messages before absl::InitializeLog|oneDNN custom operations are on"
    r"|Could not find cuda drivers|failed call to cuInit|cpu_feature_guard|To enable the following"
    r"|Unable to register cu(FFT|DNN|BLAS) factory|computation_placer already registered"
    r"|TF-TRT Warning: Could not find TensorRT|cuda_diagnostics|^\s*$"
)
# What multiplies bfloat16 faster than float32: AMX on Intel, the instructions of AVX-512 on AMD. On
# Intel those run at half the rate of float32's: a Xeon without AMX trained the article's network
# at 205 images/s in bfloat16 and at 347 in float32 (2 cores, TensorFlow 2.21, November 2026).
_AMX = "amx_bf16"
_AVX512 = "avx512_bf16"
_BFLOAT16_COMPUTE_CAPABILITY = (8, 0)  # Ampere and later
_FLOAT16_COMPUTE_CAPABILITY = (7, 0)  # Volta and Turing: tensor cores for float16 only
_PACKAGES = ("tensorflow", "keras", "numpy", "keras-cifar")


def start_tensorflow() -> None:
    """Imports TensorFlow and looks for devices; passes on what it prints, the known noise aside.

    GPU memory is taken as it is needed, so that others can use the GPU too.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # no INFO; WARNING and ERROR stay
    with _without_noise():
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)  # noqa: FBT003


@contextmanager
def _without_noise() -> Iterator[None]:
    # TensorFlow's C++ code writes to file descriptor 2 itself, past sys.stderr.
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if not _NOISE.search(line):
                    sys.stderr.write(f"{line}\n")


def pick_precision() -> tuple[str, str]:
    """Returns the precision that suits this machine best, and the reason for it.

    Returns:
        "bfloat16", "float16" or "float32", and a phrase such as "the CPU has avx512_bf16".
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capabilities = [
            tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
            for gpu in gpus
        ]
        return precision_of_gpu(min(capabilities))
    return precision_of_cpu(cpu_flags(), vendor=_cpuinfo("vendor_id"))


def precision_of_gpu(compute_capability: tuple[int, int]) -> tuple[str, str]:
    """Returns precision and reason for the weakest GPU's compute capability."""
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
