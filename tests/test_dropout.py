"""Dropout: of the rate that it is told, whatever the precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cifar.model.dropout import ExactDropout


def dropped(layer, *shape):
    outputs = layer(tf.ones(shape), training=True)
    assert outputs.dtype == layer.compute_dtype
    return tf.cast(outputs, tf.float32).numpy()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_as_many_are_dropped_as_it_says(rate, dtype):
    count = 1_000_000
    outputs = dropped(ExactDropout(rate, seed=0, dtype=dtype), count)
    deviation = (rate * (1 - rate) / count) ** 0.5
    assert (outputs == 0).mean() == pytest.approx(rate, abs=4 * deviation)
    np.testing.assert_allclose(outputs[outputs != 0], 1 / (1 - rate), rtol=2**-8)


def test_whole_channels_are_dropped():
    layer = ExactDropout(0.3, noise_shape=(None, 1, 1, None), seed=0)
    outputs = dropped(layer, 50, 3, 5, 7)
    assert (outputs == outputs[:, :1, :1]).all()
    assert (outputs[:, 0, 0] == 0).mean() == pytest.approx(0.3, abs=0.1)


def test_each_call_drops_others_and_a_seed_the_same_again():
    first, again = (ExactDropout(0.5, seed=3) for _ in range(2))
    one, other = dropped(first, 9, 9), dropped(first, 9, 9)
    assert (one != other).any()
    np.testing.assert_array_equal(dropped(again, 9, 9), one)
    assert (dropped(ExactDropout(0.5, seed=4), 9, 9) != one).any()


def test_the_gradient_goes_through_what_was_kept():
    images = tf.ones([4, 9])
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = ExactDropout(0.5, seed=0)(images, training=True)
    np.testing.assert_array_equal(tape.gradient(outputs, images), outputs)


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_otherwise_nothing_is_dropped(rate, training):
    images = tf.random.normal([4, 9])
    np.testing.assert_array_equal(ExactDropout(rate)(images, training=training), images)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_number_of_images_that_is_not_known_beforehand_is_fine(jit_compile):
    layer = ExactDropout(0.5, seed=0)
    call = tf.function(
        lambda images: layer(images, training=True),
        input_signature=[tf.TensorSpec([None, 3])],
        jit_compile=jit_compile,
    )
    assert {len(call(tf.ones([count, 3]))) for count in (1, 2, 5)} == {1, 2, 5}


def test_a_model_with_it_can_be_saved(tmp_path):
    model = keras.Sequential([keras.Input([3]), ExactDropout(0.5, seed=0)])
    model.save(tmp_path / "model.keras")
    assert isinstance(keras.models.load_model(tmp_path / "model.keras").layers[0], ExactDropout)
