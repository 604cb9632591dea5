"""Training by the fast recipes."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_cifar.evaluate import evaluate, format_table
from keras_cifar.history import read_history
from keras_cifar.machine import pick_precision
from keras_cifar.measure.sheets import answered_sheet
from keras_cifar.model.load import load_model
from keras_cifar.model.whitening import whitening_filters
from keras_cifar.recipes import RECIPES, TrainConfig
from keras_cifar.recipes.fast import FAST96
from keras_cifar.run_dir import RunDir
from keras_cifar.train import checkpoint, train
from keras_cifar.train.tensorboard import Sheets

FAST94 = TrainConfig.of(
    "fast94", dataset="sample", batch_size=100, precision="float32", strategy="single"
)


@pytest.fixture(autouse=True)
def float32_afterwards():
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run_dir = RunDir(tmp_path_factory.mktemp("fast94") / "run")
    precision, _ = pick_precision()
    config = dataclasses.replace(FAST94, epochs=5, precision=precision)
    train(config, run_dir, tensorboard=run_dir.tensorboard)
    return run_dir


def test_tensorboard_shows_the_images_as_large_as_they_are(run):
    """Of 24 pixels in the first epoch, of 32 in the last; there are no validation images."""
    events = EventAccumulator(str(run.tensorboard / "images")).Reload()
    assert events.Tags()["tensors"] == ["training images"]
    widths = [int(tf.make_ndarray(p.tensor_proto)[0]) for p in events.Tensors("training images")]
    assert widths == [16 * 26 - 2, 16 * 34 - 2]


def test_a_hundred_steps_on_the_sample_teach_it_half_of_the_test_images(run):
    assert read_history(run.history).accuracy[-1] > 0.5
    assert evaluate(run, split="test", data_dir=None).accuracy > 0.5


@pytest.fixture(scope="module")
def views(run):
    """Measured with one view, with six of a quarter of the images, and with six of all."""
    return tuple(
        evaluate(run, split="test", data_dir=None, views=views, views_share=share)
        for views, share in ((1, 1.0), (6, 0.25), (6, 1.0))
    )


def test_test_time_augmentation_is_another_measurement_and_says_so(run, views):
    plain, _, augmented = views
    assert (plain.views, augmented.views) == (1, 6)
    assert augmented.loss != plain.loss
    assert augmented.loss == pytest.approx(plain.loss, rel=0.1)
    assert '"views": 6' in run.metrics.read_text()


def test_the_least_certain_alone_get_six_views_if_told(run, views):
    of_none, of_quarter, of_all = views
    assert of_quarter.loss not in (of_none.loss, of_all.loss)
    assert format_table(of_quarter).startswith(
        f"test: {of_quarter.examples:,} images, 6 views of the least certain 25%\n"
    )
    assert '"views_share": 1.0' in run.metrics.read_text()


def test_the_whitening_stays_as_it_was_computed(run, sample):
    kernel = load_model(run.model).get_layer("whitening").kernel.numpy()
    np.testing.assert_allclose(kernel, whitening_filters(sample.images), rtol=1e-4, atol=1e-5)


def test_the_kernels_keep_the_norm_that_muon_gives_them(run):
    """Up to the last step, which comes after."""
    for layer in load_model(run.model).layers:
        if "conv" in layer.name:
            filters = layer.kernel.shape[-1]
            norm = np.linalg.norm(layer.kernel.numpy())
            assert norm == pytest.approx(filters**0.5, rel=0.02)


@pytest.mark.slow
def test_compiled_by_xla_a_whole_epoch_trains_the_same(sample):
    """As a GPU does it, with the layers that a CPU has."""
    few = sample.take(np.arange(100))
    config = dataclasses.replace(FAST94, batch_size=25, epochs=1)
    losses = []
    for jit_compile in (False, True):
        model = RECIPES["fast94"].compile_model(
            config, examples=few, steps=4, device="CPU", jit_compile=jit_compile
        )
        history = model.fit(
            RECIPES["fast94"].batches(config, examples=few, epochs=range(1)),
            steps_per_epoch=4,
            shuffle=False,
            verbose=0,
        )
        losses.append(history.history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-3)


NARROW = dataclasses.replace(FAST96, groups=((24,),) * 3)


def test_tensorboard_shows_what_the_network_answers(sample, tmp_path):
    config = TrainConfig.of("fast96", dataset="sample", batch_size=100, epochs=1)
    few = sample.take(np.arange(200))
    model = NARROW.compile_model(config, examples=few, steps=2, device="CPU", jit_compile=False)
    sheets = Sheets(tmp_path, config=config, training=few, validation=few)
    sheets.set_model(model)
    sheets.on_epoch_end(0)
    (sheet,) = EventAccumulator(str(tmp_path)).Reload().Tensors("validation images")
    logits = model.predict(few.images[:32], verbose=0)
    _, _, png = tf.make_ndarray(sheet.tensor_proto)
    expected = answered_sheet(few.take(np.arange(32)), logits=logits)
    assert (tf.io.decode_png(png).numpy() == expected).mean() > 0.999  # but for rounding of shares


def test_from_other_weights_the_whitening_and_the_slow_weights_are_those_too(sample):
    config = TrainConfig.of("fast96", dataset="sample", batch_size=100)
    keras.config.set_dtype_policy("mixed_float16")  # in which another optimiser holds the recipe's
    model = NARROW.compile_model(
        config, examples=sample.take(np.arange(200)), steps=2, device="CPU", jit_compile=False
    )
    start = [weight + 1 for weight in NARROW.build_model(seed=7).get_weights()]
    NARROW.set_weights(model, start)
    slow = [variable for variable in model.optimizer.variables if "slow" in variable.path]
    for value, weight, kept in zip(start, model.weights, slow, strict=True):
        np.testing.assert_array_equal(weight, value)
        np.testing.assert_array_equal(kept, value)


@pytest.mark.slow
def test_a_checkpoint_of_fast96_has_its_slow_weights_too(sample, tmp_path):
    """Seven steps and three more end as ten do; lookahead is after the fifth and the tenth."""
    few = sample.take(np.arange(20))
    config = TrainConfig.of("fast96", dataset="sample", batch_size=2, epochs=1, seed=3)
    plans = list(RECIPES["fast96"].batches(config, examples=few, epochs=range(1)))

    def compiled():
        return RECIPES["fast96"].compile_model(
            config, examples=few, steps=10, device="CPU", jit_compile=False
        )

    unbroken, broken, resumed = compiled(), compiled(), compiled()
    for plan in plans:
        unbroken.train_step(plan)
    for plan in plans[:7]:
        broken.train_step(plan)
    checkpoint.save(tmp_path, model=broken, progress=checkpoint.Progress(epoch=1))
    checkpoint.restore(checkpoint.load_newest(tmp_path), model=resumed)
    for plan in plans[7:]:
        resumed.train_step(plan)
    for one, other in zip(unbroken.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_step_trains_on_the_hardest_and_notes_their_losses(sample):
    few = sample.take(np.arange(40))
    config = dataclasses.replace(FAST94, batch_size=20, epochs=1)
    model = RECIPES["fast94"].compile_model(
        config, examples=few, steps=2, device="CPU", jit_compile=False
    )
    (plan, _) = RECIPES["fast94"].batches(config, examples=few, epochs=range(1))
    known = np.arange(40, dtype=np.float32)
    model.last_losses.assign(known)
    before = plan["positions"].numpy()
    hardest = np.sort(before)[-13:]  # 0.64 of 20, here those of the highest number
    images, labels = model.make_batch(plan | {"positions": tf.constant(hardest)}, model.examples)
    logits = model(images, training=True)
    expected = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    model.train_step(plan)
    after = model.last_losses.numpy()
    changed = np.flatnonzero(after != known)
    assert changed.tolist() == hardest.tolist()
    assert after[hardest].mean() == pytest.approx(np.mean(expected), rel=0.1)  # other shifts


def test_the_last_losses_are_state_but_no_weights(sample):
    model = RECIPES["fast94"].compile_model(
        FAST94, examples=sample, steps=20, device="CPU", jit_compile=False
    )
    assert any(variable is model.last_losses for variable in model.variables)
    assert not any(weight is model.last_losses for weight in model.weights)


def test_the_images_are_variables_not_constants_of_the_step(sample):
    """As constants, 150 MB of them would be compiled into it."""
    model = RECIPES["fast94"].compile_model(
        FAST94, examples=sample, steps=20, device="CPU", jit_compile=False
    )
    assert all(isinstance(values, tf.Variable) for values in model.examples)
    assert not any(values is weight for values in model.examples for weight in model.weights)
