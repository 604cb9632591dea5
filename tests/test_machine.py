"""What is fastest on the machine is chosen, and the reason given."""

import os
import signal
import subprocess
import sys

import pytest

from keras_cifar import machine, start
from keras_cifar.machine import cpu_flags, pick_precision, precision_of_cpu, precision_of_gpu


@pytest.mark.parametrize(
    ("flags", "vendor", "precision", "reason"),
    [
        ({"avx512_bf16"}, "AuthenticAMD", "bfloat16", "the CPU has avx512_bf16"),
        (
            {"avx512_bf16"},
            "GenuineIntel",
            "float32",
            "faster than avx512_bf16 on this CPU, which has no amx_bf16",
        ),
        ({"avx512_bf16", "amx_bf16"}, "GenuineIntel", "bfloat16", "the CPU has amx_bf16"),
        ({"avx2"}, "AuthenticAMD", "float32", "the CPU has neither amx_bf16 nor avx512_bf16"),
        (set(), "", "float32", "the CPU has neither amx_bf16 nor avx512_bf16"),
    ],
)
def test_a_cpu_gets_bfloat16_where_it_is_faster(flags, vendor, precision, reason):
    assert precision_of_cpu(frozenset(flags), vendor=vendor) == (precision, reason)


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), "float32")],
)
def test_a_gpu_gets_what_its_tensor_cores_take(capability, precision):
    version = ".".join(map(str, capability))
    expected = (precision, f"the GPU has compute capability {version}")
    assert precision_of_gpu(capability) == expected


def test_a_gpu_that_is_not_described_gets_float32():
    reason = "TensorFlow does not tell the GPU's compute capability"
    assert precision_of_gpu(None) == ("float32", reason)


def test_this_machine_gets_one_of_them():
    precision, reason = pick_precision()
    assert precision in ("float32", "bfloat16", "float16")
    assert reason


NAMES = "from keras_cifar.machine import *; from keras_cifar.start import *"


def in_a_process(code, *, stream="stdout", **environment):
    """What code prints in a process that has just imported NAMES; None unsets a variable."""
    variables = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": None, **environment}
    result = subprocess.run(
        [sys.executable, "-c", f"{NAMES}\n{code}"],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        check=True,
    )
    return getattr(result, stream)


@pytest.mark.skipif("avx2" not in cpu_flags(), reason="elsewhere TensorFlow decides")
def test_a_process_that_trains_has_onednn_and_the_users_word_is_last():
    code = "start_tensorflow(trains=True); print(*onednn())"
    for setting, said in (
        (None, "on faster to train with on a CPU with avx2\n"),
        ("0", "off TF_ENABLE_ONEDNN_OPTS is '0'\n"),
        ("banana", "on TF_ENABLE_ONEDNN_OPTS is 'banana'\n"),
    ):
        assert in_a_process(code, TF_ENABLE_ONEDNN_OPTS=setting) == said
    served = in_a_process("start_tensorflow(); print(*onednn())")
    assert served == f"{machine.onednn_by_itself()} as TensorFlow has it on this CPU\n"


def test_keras_takes_tensorflow_whatever_it_is_told():
    code = "start_tensorflow(); import keras; assert keras.backend.backend() == 'tensorflow'"
    said = in_a_process(code, stream="stderr", KERAS_BACKEND="banana")
    assert said == "KERAS_BACKEND is 'banana': keras-cifar computes with TensorFlow.\n"


def test_what_tensorflow_says_at_its_death_reaches_the_person():
    code = (
        "import os, keras_cifar.start\n"
        "with keras_cifar.start._without_noise():\n"
        "    os.write(2, b'cpu_feature_guard: noise\\nwhy it dies\\n')\n"
        "    os.abort()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (-signal.SIGABRT, b"why it dies\n")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="macOS has no affinity")
def test_the_cores_that_were_granted_are_the_ones_that_are_used():
    code = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
start_tensorflow(trains=True)
import tensorflow as tf
print(usable_cores(), tf.config.threading.get_intra_op_parallelism_threads())
"""
    one_of_several = os.cpu_count() > 1
    assert in_a_process(code) == ("1 1\n" if one_of_several else "1 0\n")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="macOS has no affinity")
def test_a_process_that_computes_already_keeps_its_threads():
    code = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import tensorflow as tf
tf.constant(1) + 1
start_tensorflow(trains=True)
print("started")
"""
    assert in_a_process(code) == "started\n"


@pytest.mark.skipif(start._has_driver(), reason="there is a driver")
def test_why_a_gpu_is_not_seen_is_no_noise_where_there_is_a_driver():
    code = """
import pathlib, keras_cifar.start
there = pathlib.Path(keras_cifar.start.__file__)
keras_cifar.start._DRIVERS = (there / "not", there)  # the second, as on WSL 2
start_tensorflow()
"""
    said = in_a_process(code, stream="stderr", TF_CPP_MIN_LOG_LEVEL="0", CUDA_VISIBLE_DEVICES=None)
    assert "Could not find cuda drivers" in said
    assert said.endswith("Look for what is missing: keras-cifar doctor\n")
    hidden = in_a_process(code, stream="stderr", CUDA_VISIBLE_DEVICES="")
    assert "goes on without" not in hidden
    healthy = in_a_process("start_tensorflow()", stream="stderr", TF_CPP_MIN_LOG_LEVEL="0")
    assert healthy == ""
