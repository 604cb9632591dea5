"""The gradient of kernels that is faster on a CPU: the same as TensorFlow's."""

import dataclasses
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_cifar.fast import FAST94, FAST96
from keras_cifar.model.cpu_gradients import convolve, use_cpu_gradients
from keras_cifar.model.fast import build_model

from keras_cifar.recipes import RECIPES
from keras_cifar.train.fit import compile_model

DEEP_CONVOLUTIONS = ["block2_conv1", "block2_conv2", "block3_conv1", "block3_conv2"]


def outcome_and_gradients(convolution, images, kernel, upstream):
    with tf.GradientTape() as tape:
        tape.watch([images, kernel])
        outputs = convolution(images, kernel)
    return outputs, *tape.gradient(outputs, [images, kernel], upstream)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("count", [4, 5])
@pytest.mark.parametrize("size", [(7, 7), (6, 6), (2, 2), (3, 5)])
def test_convolution_and_gradients_are_those_of_tensorflow(size, count, known):
    """Whether the number of images and their size are known beforehand or not."""
    random = np.random.default_rng(0)
    images, kernel, upstream = (
        tf.constant(random.normal(size=shape), tf.float32)
        for shape in ((count, *size, 5), (3, 3, 5, 6), (count, *size, 6))
    )
    expected = outcome_and_gradients(
        lambda images, kernel: tf.nn.conv2d(images, kernel, 1, "SAME"), images, kernel, upstream
    )
    # Compiled, as in training: TensorFlow changes a graph before it runs it.
    shapes = [None, None, None, 5], [3, 3, 5, 6], [None, None, None, 6]
    compiled = tf.function(
        partial(outcome_and_gradients, convolve),
        input_signature=None if known else [tf.TensorSpec(shape) for shape in shapes],
    )
    found = compiled(images, kernel, upstream)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("count", "expected"), [(17, 6), (20, 6), (24, 6), (25, 8)])
def test_onednn_never_gets_an_odd_number_of_channels(count, expected):
    """It would read the memory behind its input, and give NaN where that holds NaN."""

    @tf.function
    def gradients(images, kernel):
        return tf.gradients(convolve(images, kernel), [images, kernel])

    graph = gradients.get_concrete_function(
        tf.TensorSpec([count, 7, 7, 2], tf.bfloat16), tf.TensorSpec([3, 3, 2, 4], tf.bfloat16)
    ).graph
    channels = {op.inputs[0].shape[-1] for op in graph.get_operations() if op.type == "Conv2D"}
    assert channels == {2, expected}


def names_of_changed(model):
    return [
        layer.name
        for layer in model._flatten_layers()
        if getattr(layer, "convolution_op", None) is convolve
    ]


@pytest.mark.parametrize(("method", "count"), [(FAST94, 4), (FAST96, 8)])
def test_the_deep_convolutions_of_a_network_use_it(method, count, sample):
    """Those in a residual too; and the network has the gradients that it had."""
    model = build_model(method, seed=0)
    images, labels = sample.images[:4], sample.labels[:4]

    def gradients():
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return tape.gradient(loss, model.trainable_variables)

    before = gradients()
    use_cpu_gradients(model)
    assert len(names_of_changed(model)) == count
    for one, other in zip(gradients(), before, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one / scale, other / scale, atol=1e-4)


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="is for training on a CPU")
@pytest.mark.parametrize(("precision", "names"), [("bfloat16", DEEP_CONVOLUTIONS), ("float32", [])])
def test_training_uses_it_in_bfloat16(sample, precision, names):
    config = dataclasses.replace(
        RECIPES["article"]["sgd"], dataset="sample", precision=precision, strategy="single"
    )
    model = compile_model(config, examples=sample, steps=10)
    assert names_of_changed(model) == names
