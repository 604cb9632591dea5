"""Several devices of one machine, here halves of the CPU: what Keras gets wrong, and what we do."""

import dataclasses
import json
from zipfile import ZipFile

import numpy as np
import pytest

from keras_cifar.evaluate import evaluate
from keras_cifar.history import read_history
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir

TWO_DEVICES = """
import json, keras, numpy as np
(cpu,) = tf.config.list_physical_devices("CPU")
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, halves)
def copies(strategy, variable):
    return [copy.numpy().tolist() for copy in strategy.experimental_local_results(variable.value)]
"""
# A run, and a copy of it that goes on after its first epoch. What the replicas have is noted when
# validation has begun: the callbacks of a user come last.
TRAIN = """
import shutil

class Look(keras.callbacks.Callback):
    def on_test_begin(self, logs=None):
        strategy = self.model.distribute_strategy
        self.seen = {
            "moments": [
                copies(strategy, weight)
                for weight in self.model.non_trainable_weights
                if weight.name.startswith("moving")
            ],
            "seeds": [
                copies(strategy, layer.seed_generator.state)
                for layer in self.model.layers
                if isinstance(layer, keras.layers.Dropout)
            ],
        }

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            shutil.copytree(folder / "unbroken", folder / "resumed")

look = Look()
logs = folder / "logs"
train(config, RunDir(folder / "unbroken"), data_dir=data_dir, tensorboard=logs, callbacks=[look])
resume(RunDir(folder / "resumed"), data_dir=data_dir)
print(json.dumps(look.seen))
"""


@pytest.fixture(scope="module")
def config(tiny):
    return TrainConfig(
        dataset="tiny",
        validation_fraction=0.5,
        epochs=2,
        batch_size=50,
        precision="float32",
        strategy="mirrored",
    )


@pytest.fixture(scope="module")
def on_two_devices(in_a_process):
    """Runs code in a process with two devices; returns what it prints last, in JSON."""

    def run(*lines):
        ended = in_a_process(TWO_DEVICES, *lines)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def trained(config, on_two_devices, tmp_path_factory):
    """A folder with two runs, and what the replicas had at the end of the first one's training."""
    folder = tmp_path_factory.mktemp("mirrored")
    settings = f"config, folder = {config!r}, pathlib.Path({str(folder)!r})"
    return folder, on_two_devices(settings, TRAIN)


@pytest.mark.slow
def test_each_replica_draws_masks_of_its_own(trained):
    _, seen = trained
    assert len(seen["seeds"]) == 3
    for (first, first_draws), (second, second_draws) in seen["seeds"]:
        assert (second - first, first_draws) == (1, second_draws)


@pytest.mark.slow
def test_all_replicas_validate_the_model_that_is_kept(trained, tiny):
    folder, seen = trained
    assert len(seen["moments"]) == 6
    assert all(first == second for first, second in seen["moments"])
    run = RunDir(folder / "unbroken")
    history = read_history(run.history)
    best = int(np.argmax(history.val_accuracy))
    metrics = evaluate(run, split="validation", data_dir=tiny.data_dir)
    assert metrics.loss == pytest.approx(history.val_loss[best], rel=1e-5)


@pytest.mark.slow
def test_a_mirrored_run_resumes_to_the_bit(trained):
    folder, _ = trained
    unbroken, resumed = (RunDir(folder / name) for name in ("unbroken", "resumed"))
    first, second = (read_history(run.history)._asdict() for run in (unbroken, resumed))
    del first["seconds"], second["seconds"]
    assert first == second
    kept = [ZipFile(run.model).read("model.weights.h5") for run in (unbroken, resumed)]
    assert kept[0] == kept[1]


# Each function leaves what it found in `found`. The second device gets the second half of a batch.
PARTS = """
from keras_cifar.cifar10 import SAMPLE
from keras_cifar.data.prepare import load
from keras_cifar.distribute.replicas import AverageMoments
from keras_cifar.optimize.loss_scale import AgreedLossScale
from keras_cifar.recipes import RECIPES
from keras_cifar.train.compile import compile_model

devices = ["CPU:0", "CPU:1"]
strategy = tf.distribute.MirroredStrategy(devices)
found = {}

def toy(optimizer, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, dtype="mixed_float16")])
    model.compile(optimizer, "mse", **options)
    return model

def fit(model, inputs):
    batches = tf.data.Dataset.from_tensor_slices((inputs, np.ones(len(inputs)))).batch(8)
    model.fit(batches, verbose=0)
    return model

overflowing = np.ones((8, 4), np.float32)
overflowing[4:] = 60000.0
for scale in keras.optimizers.LossScaleOptimizer, AgreedLossScale:
    with strategy.scope():
        model = toy(scale(keras.optimizers.SGD(0.01)))
    before = model.get_weights()
    fit(model, overflowing)
    found[scale.__name__] = {
        "finite": bool(np.isfinite(model.get_weights()[0]).all()),
        "same": all(map(np.array_equal, before, model.get_weights())),
        "scale": float(model.optimizer.dynamic_scale.numpy()),
    }

random = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
with strategy.scope():
    model = toy(AgreedLossScale(keras.optimizers.SGD(0.1), initial_scale=1.0))
alone = toy(AgreedLossScale(keras.optimizers.SGD(0.1), initial_scale=1.0))
apart = fit(model, random).get_weights()[0] - fit(alone, random).get_weights()[0]
found["apart"] = float(abs(apart).max())

with strategy.scope():
    model = toy(keras.optimizers.SGD(0.1), jit_compile=True)
try:
    fit(model, random)
except tf.errors.InvalidArgumentError as error:
    found["XLA"] = str(error)

average = AverageMoments()
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    model.compile("sgd", "mse")
model.fit(random, random, batch_size=8, epochs=3, callbacks=[average], verbose=0)
found["traced"] = average.average.experimental_get_tracing_count()
found["moments"] = [copies(strategy, weight) for weight in model.non_trainable_weights]

examples = load(SAMPLE, split="train", data_dir=None).take(range(8))
for precision in "bfloat16", "float16":
    config = TrainConfig.of(
        dataset="sample", batch_size=4, precision=precision, strategy="mirrored"
    )
    with strategy.scope():
        model = compile_model(config, examples=examples, steps=2, device="GPU")
    batches = RECIPES["article"].batches(config, examples=examples, epochs=range(1), share=None)
    model.fit(batches, steps_per_epoch=2, verbose=0, shuffle=False)
    found[precision] = [type(model.optimizer).__name__, int(model.optimizer.iterations.numpy())]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(on_two_devices):
    return on_two_devices(PARTS)


@pytest.mark.slow
def test_float16_leaves_out_a_step_that_overflows_on_any_device(found):
    """Keras asks the first alone. When it asks all, AgreedLossScale can go."""
    assert found["AgreedLossScale"] == {"finite": True, "same": True, "scale": 2.0**14}
    assert found["LossScaleOptimizer"] == {"finite": False, "same": False, "scale": 2.0**15}


@pytest.mark.slow
def test_two_devices_take_the_steps_of_one(found):
    assert found["apart"] < 1e-3


@pytest.mark.slow
def test_xla_cannot_compile_the_steps_of_two_devices_as_one(found):
    """keras #21366. When it can, `xla.choose` may choose it."""
    assert "located in device /job:localhost/replica:0/task:0/device:CPU:1" in found["XLA"]


@pytest.mark.slow
def test_the_moments_are_averaged_each_epoch_by_what_is_traced_once(found):
    """Traced anew each epoch, it takes longer, and TensorFlow warns from the fifth one on."""
    assert found["traced"] == 1
    assert len(found["moments"]) == 2
    assert all(first == second for first, second in found["moments"])


@pytest.mark.slow
def test_the_layers_for_gpus_train_in_half_precision(found):
    assert found["bfloat16"] == ["SGD", 2]
    assert found["float16"][0] == "AgreedLossScale"


@pytest.mark.slow
def test_a_batch_that_two_devices_cannot_share_is_refused(in_a_process, config, tmp_path):
    config = dataclasses.replace(config, batch_size=51)
    run = f"train({config!r}, RunDir(pathlib.Path({str(tmp_path / 'run')!r})), data_dir=data_dir)"
    ended = in_a_process(TWO_DEVICES, run)
    assert ended.stderr.endswith(
        "OSError: --batch-size: of 51, 51 images are trained on in a step, which 2 replicas cannot "
        "share equally. Take 52, say.\n"
    )
    assert not (tmp_path / "run").exists()
