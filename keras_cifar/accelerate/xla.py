"""Whether XLA compiles the training step: what is chosen, and what has come of it."""

import os
import re
import subprocess
from functools import cache
from typing import Any

import keras

# TensorFlow 2.21 says nowhere in public what it has compiled.
from tensorflow.python.eager import context

from keras_cifar.interpreter import python
from keras_cifar.machine import device_kind
from keras_cifar.start import EXACT_ON_GPU, XLA_FLAGS

# Many times what TensorFlow takes to start and to compile a line.
_PROBE_SECONDS = 120
_PROBE = """
import tensorflow as tf
for gpu in tf.config.list_physical_devices("GPU"):
    tf.config.experimental.set_memory_growth(gpu, True)
tf.function(lambda x: x * x + 1, jit_compile=True)(tf.ones([64, 64]))
"""
# How XLA's last words begin where it ends the process, and Python's.
_REASON = re.compile(r"(?:F\d{4} .*?\] |LLVM ERROR: |Reason: |[\w.]+Error: )(.+)")
_GRADIENT = "Conv2DBackpropFilter"


def choose(strategy: str, *, device: str) -> tuple[bool, str]:
    """Returns whether XLA is to compile the whole step, and why: "for a GPU", say.

    Args:
        strategy: as the settings say, without "auto".
        device: "CPU" or "GPU".
    """
    if device == "CPU":
        # 137 to 380 images/s of the article's network (2 cores).
        return False, "on a CPU oneDNN is faster"
    if strategy != "single":
        return False, "for a single device only"
    failure = why_not()
    return not failure, failure or "for a GPU"


def state(strategy: str, *, device: str) -> tuple[str, str]:
    """Returns the same for people: "on" or "off", and why."""
    compiles, reason = choose(strategy, device=device)
    return "on" if compiles else "off", reason


def require_valid_flags() -> None:
    """Tries XLA_FLAGS where the user has set it: a flag that XLA does not know ends the process.

    Raises:
        OSError: XLA does not start with it.
    """
    told = os.environ.get(XLA_FLAGS, "").replace(EXACT_ON_GPU, "").strip()
    if told and (failure := why_not()):
        raise OSError(f"{XLA_FLAGS} is {told!r}: XLA does not start with it ({failure}). Unset it.")


@cache
def why_not() -> str | None:
    """Returns what XLA says where it cannot compile; None if it can.

    It is tried in a process of its own, which some failures end: on an RTX 50, "PTX version 8.5
    does not support target 'sm_120'" (tensorflow #111958).
    """
    try:
        probe = subprocess.run(
            python(_PROBE),
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it compiled nothing within {_PROBE_SECONDS} s"
    if not probe.returncode:
        return None
    return last_words(probe.stderr, exit_code=probe.returncode)


def last_words(stderr: str, *, exit_code: int) -> str:
    """Returns the reason for which a process that tried XLA ended, by what it printed."""
    reasons = _REASON.findall(stderr)
    return reasons[-1].rstrip(".") if reasons else f"its process ended with exit code {exit_code}"


def callbacks(strategy: str) -> list[keras.callbacks.Callback]:
    """Returns what looks after the first steps whether XLA has compiled them, if it is to."""
    compiles, _ = choose(strategy, device=device_kind())
    return [RequireCompiled()] if compiles else []


class RequireCompiled(keras.callbacks.Callback):
    """Ends training with a RuntimeError if its step is not compiled by XLA.

    Keras drops XLA with no more than a warning where it finds it unsuitable.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_known = False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks once."""
        if not self._is_known and not is_step_compiled():
            raise RuntimeError("XLA has not compiled the training step, as told.")
        self._is_known = True


def is_step_compiled() -> bool:
    """Returns whether this process has a function that XLA must compile, gradients included."""
    functions = map(context.get_function_def, context.context().list_function_names())
    return any(
        function.attr["_XlaMustCompile"].b
        and any(node.op == _GRADIENT for node in function.node_def)
        for function in functions
    )
