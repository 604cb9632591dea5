"""How a process starts TensorFlow: quietly, with the settings that training needs."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from keras_cifar.machine import AVX2, ONEDNN, ONEDNN_ON, cpu_flags, granted_threads

# What TensorFlow says at every start on a healthy machine, and what else without an NVIDIA driver;
# with one, the latter is the reason why a GPU is not seen. Matched against whole lines.
_NOISE = (
    r"All log messages before absl::InitializeLog|oneDNN custom operations are on"
    r"|cpu_feature_guard|To enable the following"
    r"|Unable to register cu(FFT|DNN|BLAS) factory|computation_placer already registered"
    r"|TF-TRT Warning: Could not find TensorRT|^\s*$"
    # Keras imports it. Without a home folder, its list of fonts is made anew each time.
    r"|[Mm]atplotlib.* is not a writable directory|Matplotlib created a temporary cache directory"
)
_NOISE_WITHOUT_DRIVER = "Could not find cuda drivers|failed call to cuInit|cuda_diagnostics"
# The second is WSL 2's.
_DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/usr/lib/wsl/lib/libcuda.so.1"))
# A process of its own passes the rest on, since TensorFlow may abort right after it has said why.
_FILTER = """
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
for line in sys.stdin.buffer:
    if not re.search(sys.argv[1], line.decode(errors="replace")):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
"""
# Read by XLA when it first compiles. With TensorFlow's switch for determinism Keras drops XLA; this
# is XLA's own (openxla.org/xla/determinism). It would still measure which kernels are fastest, and
# choose others in the next process, so that a resumed run would not end the same.
XLA_FLAGS = "XLA_FLAGS"
EXACT_ON_GPU = "--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0"
_BACKEND, _TENSORFLOW = "KERAS_BACKEND", "tensorflow"
# What else Keras heeds: the first two end a training early.
_KERAS_SWITCHES = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED")
# What is left of the noise takes moments, unless a process that TensorFlow started still writes.
_SIEVE_SECONDS = 5


def start_tensorflow(*, trains: bool = False) -> None:
    """Imports TensorFlow and looks for devices; passes on what it prints, the known noise aside.

    GPU memory is taken as it is needed, so that others can use the GPU too.

    Args:
        trains: whether the process is to train, for which oneDNN is on where it helps, unless
            TF_ENABLE_ONEDNN_OPTS says otherwise. For all else, TensorFlow decides. And XLA is told
            to compute the same each time, in addition to what XLA_FLAGS says.
    """
    _set_keras_up()
    provide_temporary_folder(Path())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # no INFO; WARNING and ERROR stay
    if trains and AVX2 in cpu_flags():
        os.environ.setdefault(ONEDNN, ONEDNN_ON)
    if trains:
        _have_xla_exact()
    with _without_noise():
        import tensorflow as tf

        seen = tf.config.list_physical_devices("GPU")
        for gpu in seen:
            tf.config.experimental.set_memory_growth(gpu, True)  # noqa: FBT003
    if not seen and _has_driver() and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1"):
        sys.stderr.write(
            "TensorFlow sees no GPU, and goes on without, although there is an NVIDIA driver. "
            "Look for what is missing: keras-cifar doctor\n"
        )
    if threads := granted_threads():
        with suppress(RuntimeError):  # of a process that has begun to compute, a notebook's say
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)


def _has_driver() -> bool:
    """Returns whether there is an NVIDIA driver."""
    return any(path.exists() for path in _DRIVERS)


def provide_temporary_folder(place: Path) -> None:
    """Has temporary files go to memory, or else to `place`, if the system has no folder for them.

    In a container whose disk is read only, say: without one, TensorFlow cannot even be imported.

    Args:
        place: a folder; if it is missing, what it is to be in counts.
    """
    with suppress(FileNotFoundError):
        tempfile.gettempdir()
        return
    shared_memory = Path("/dev/shm")
    nearest = next(path for path in (place, *place.absolute().parents) if path.exists())
    is_usable = os.access(shared_memory, os.W_OK | os.X_OK)
    tempfile.tempdir = str(shared_memory if is_usable else nearest)


def _set_keras_up() -> None:
    """Has Keras take TensorFlow and its own defaults, whatever environment and keras.json say."""
    told = os.environ.get(_BACKEND, _TENSORFLOW)
    if told != _TENSORFLOW:
        sys.stderr.write(f"{_BACKEND} is {told!r}: keras-cifar computes with TensorFlow.\n")
    os.environ[_BACKEND] = _TENSORFLOW
    for switch in _KERAS_SWITCHES:
        if value := os.environ.pop(switch, None):
            sys.stderr.write(f"{switch} is {value!r}: keras-cifar takes no notice of it.\n")
    # Where keras.json would be. It may say float16, or be another user's and not readable.
    os.environ["KERAS_HOME"] = os.devnull


def _have_xla_exact() -> None:
    flags = os.environ.get(XLA_FLAGS, "").strip()
    # What does not begin so names a file of flags.
    if EXACT_ON_GPU not in flags and (not flags or flags.startswith("--")):
        os.environ[XLA_FLAGS] = f"{EXACT_ON_GPU} {flags}".strip()


@contextmanager
def _without_noise() -> Iterator[None]:
    # TensorFlow's C++ code writes to file descriptor 2 itself, past sys.stderr.
    noise = _NOISE if _has_driver() else f"{_NOISE}|{_NOISE_WITHOUT_DRIVER}"
    sys.stderr.flush()
    stderr = os.dup(2)
    command = [sys.executable, "-I", "-S", "-c", _FILTER, noise]
    read, write = os.pipe()
    sieve = subprocess.Popen(command, stdin=read, stdout=stderr)
    os.dup2(write, 2)
    os.close(read)
    os.close(write)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        with suppress(subprocess.TimeoutExpired):
            sieve.wait(_SIEVE_SECONDS)
