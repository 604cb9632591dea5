"""TensorFlow, started without its noise, and what it found on this machine."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# What TensorFlow says at every start on a healthy machine. Matched against whole lines.
_NOISE = re.compile(
    r"All log messages before absl::InitializeLog|oneDNN custom operations are on"
    r"|Could not find cuda drivers|failed call to cuInit|cpu_feature_guard|To enable the following"
    r"|Unable to register cu(FFT|DNN|BLAS) factory|computation_placer already registered"
    r"|TF-TRT Warning: Could not find TensorRT|cuda_diagnostics|^\s*$"
)


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
