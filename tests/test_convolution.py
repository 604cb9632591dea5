"""The article's convolutions: Keras's own, with the gradients of the biases done better."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_cifar.model.convolution import NormalizedConv2D, PooledConv2D

FILTERS = 4


def built(layer):
    """Returns a layer with weights that are the same each time."""
    random = np.random.default_rng(0)
    layer.build((None, None, None, 3))
    layer.set_weights([random.normal(size=value.shape) for value in layer.get_weights()])
    return layer


def outcome_and_gradients(layer, images, *others):
    """Those of the layer's weights and of the images, where each output weighs something else."""
    images = tf.constant(images, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images)
        for other in others:
            outputs = other(outputs)
        weights = np.random.default_rng(1).normal(size=outputs.shape)
        value = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
    return outputs, *tape.gradient(value, [images, layer.kernel.value, layer.bias.value])


@pytest.mark.parametrize("size", [8, 7])
def test_pooled_it_is_keras_convolution_and_pooling(sample, size):
    images = sample.images[:4, :size, :size] / 255
    options = {"filters": FILTERS, "kernel_size": 3, "padding": "same"}
    found = outcome_and_gradients(built(PooledConv2D(**options)), images)
    pooling = layers.MaxPooling2D(2)
    expected = outcome_and_gradients(built(layers.Conv2D(**options)), images, pooling)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)
    shape = PooledConv2D(**options).compute_output_shape((None, size, None, 3))
    assert shape == (None, size // 2, None, FILTERS)


def test_normalised_it_is_keras_convolution_but_for_the_biases_rounding(sample):
    images = sample.images[:4, :8, :8] / 255
    options = {"filters": FILTERS, "kernel_size": 3, "padding": "same"}

    def with_batch_norm(layer):
        batch_norm = layers.BatchNormalization()
        return outcome_and_gradients(
            built(layer), images, lambda outputs: batch_norm(outputs, training=True)
        )

    *found, bias = with_batch_norm(NormalizedConv2D(**options))
    *expected, expected_bias = with_batch_norm(layers.Conv2D(**options))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(bias, 0)
    np.testing.assert_allclose(expected_bias, 0, atol=1e-3)


def test_a_biases_gradient_is_added_up_in_float32():
    """TensorFlow's own comes to 256 here: the next number of bfloat16 is 258."""
    layer = PooledConv2D(FILTERS, 3, padding="same", dtype="mixed_bfloat16")
    images = tf.zeros([16, 32, 32, 3])
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(tf.cast(layer(images), tf.float32))
    gradient = tape.gradient(value, layer.bias.value)
    assert keras.backend.standardize_dtype(gradient.dtype) == "float32"
    np.testing.assert_array_equal(gradient, 16 * 16 * 16)
