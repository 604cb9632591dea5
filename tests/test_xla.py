"""XLA compiles the whole step where it is to, and what it cannot do is said in one line."""

import os

import pytest

from keras_cifar.accelerate import xla
from keras_cifar.start import EXACT_ON_GPU, start_tensorflow

TRAIN = """
import hashlib, keras
from keras_cifar.cifar10 import SAMPLE
from keras_cifar.data.prepare import load
from keras_cifar.recipes import RECIPES
from keras_cifar.accelerate import xla
from keras_cifar.train.compile import compile_model

config = TrainConfig.of(
    recipe, dataset="sample", batch_size=10, epochs=1, precision="float32", strategy="single"
)
examples = load(SAMPLE, split="train", data_dir=None).take(range(40))
if is_determinism_tensorflows:
    tf.config.experimental.enable_op_determinism()
model = compile_model(config, examples=examples, steps=4, device="GPU")
model.optimizer.build(model.trainable_variables)
state = [*model.variables, *model.optimizer.variables]
start = [variable.numpy() for variable in state]
calls = []
for _ in range(2):
    for variable, value in zip(state, start, strict=True):
        variable.assign(value)
    model.fit(
        RECIPES[recipe].batches(config, examples=examples, epochs=range(1)),
        steps_per_epoch=4,
        callbacks=[
            xla.RequireCompiled(),
            keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: calls.append(0)),
        ],
        shuffle=False,
        verbose=0,
    )
    weights = b"".join(weight.numpy().tobytes() for weight in model.weights)
    print(xla.is_step_compiled(), len(calls), hashlib.sha256(weights).hexdigest())
"""


def train_for_a_gpu(in_a_process, recipe, *, is_determinism_tensorflows=False):
    settings = f"recipe, is_determinism_tensorflows = {recipe!r}, {is_determinism_tensorflows}"
    return in_a_process(settings, TRAIN)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "calls"), [("article", 4), ("fast94", 1)])
def test_what_a_gpu_gets_is_compiled_and_ends_the_same_twice(in_a_process, recipe, calls):
    """Here on the CPU; of fast94, a whole epoch is one call."""
    ended = train_for_a_gpu(in_a_process, recipe)
    first, second = (line.split() for line in ended.stdout.splitlines())
    assert first[:2] == ["True", str(calls)], ended.stderr
    assert second == ["True", str(2 * calls), first[2]]


def test_training_ends_if_keras_has_dropped_xla(in_a_process):
    """As it does without an error where TensorFlow's own determinism is on."""
    ended = train_for_a_gpu(in_a_process, "article", is_determinism_tensorflows=True)
    assert ended.stderr.endswith("RuntimeError: XLA has not compiled the training step, as told.\n")


def test_a_cpu_and_several_gpus_do_without(tmp_path, monkeypatch):
    """Also where a file of the user's has the name of a module that TensorFlow imports."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random.py").write_text("raise ImportError('of the user')\n")
    assert xla.choose("single", device="CPU") == (False, "on a CPU oneDNN is faster")
    assert xla.choose("mirrored", device="GPU") == (False, "for a single device only")
    assert xla.choose("single", device="GPU") == (True, "for a GPU")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--xla_banana", "Unknown flag in XLA_FLAGS: --xla_banana"),
        ("banana", 'Could not open file "banana" to read flags'),
    ],
)
def test_flags_that_xla_does_not_take_end_train_before_anything_is_written(
    command, tmp_path, flags, reason
):
    """XLA itself would end the process later, without a word on what to do."""
    ended = command(
        *("train", "--dataset", "sample", "--run-dir", tmp_path / "run"),
        env={**os.environ, "XLA_FLAGS": flags},
    )
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("Error")]
    assert line.startswith(f"Error: XLA_FLAGS is {flags!r}: XLA does not start with it ({reason}")
    assert line.endswith("Unset it.")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "LLVM ERROR: PTX version 8.5 does not support target 'sm_120'. Minimum required PTX "
            "version is 8.7.\n",
            "PTX version 8.5 does not support target 'sm_120'. Minimum required PTX version is 8.7",
        ),
        (
            'Traceback (most recent call last):\n  File "<string>", line 3, in <module>\n'
            "tensorflow.python.framework.errors_impl.UnavailableError: No PTX compilation provider "
            "is available. [Op:__inference_function_8]\n",
            "No PTX compilation provider is available. [Op:__inference_function_8]",
        ),
        ("", "its process ended with exit code -6"),
    ],
)
def test_the_reason_is_what_xla_said_last(said, reason):
    assert xla.last_words(said, exit_code=-6) == reason


@pytest.mark.parametrize(
    ("told", "flags"),
    [
        ("", EXACT_ON_GPU),
        ("--xla_dump_to=x", f"{EXACT_ON_GPU} --xla_dump_to=x"),
        ("a_file_of_flags", "a_file_of_flags"),
        (f"{EXACT_ON_GPU} --xla_dump_to=x", f"{EXACT_ON_GPU} --xla_dump_to=x"),
    ],
)
def test_xla_is_told_to_compute_the_same_each_time(monkeypatch, told, flags):
    monkeypatch.setenv("XLA_FLAGS", told)
    start_tensorflow(trains=True)
    assert os.environ["XLA_FLAGS"] == flags
