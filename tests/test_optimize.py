import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cifar.optimize.schedules import warmup_then_cosine
from keras_cifar.recipes import TrainConfig
from keras_cifar.recipes.article import MOMENTUM, build_optimizer


def test_the_rate_rises_for_a_tenth_of_the_run_and_falls_to_zero():
    schedule = warmup_then_cosine(0.5, steps=1000)
    rates = np.array([float(schedule(step)) for step in range(1001)])
    assert rates.argmax() == 100
    assert rates.max() == pytest.approx(0.5)
    assert (np.diff(rates[:101]) > 0).all()
    assert (np.diff(rates[100:]) < 0).all()
    assert 0 < rates[0] < 0.01
    assert rates[999] < 1e-5
    assert rates[1000] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_run_of_a_few_steps_has_a_schedule_too(steps):
    schedule = warmup_then_cosine(0.5, steps=steps)
    assert float(schedule(0)) == pytest.approx(0.5)


def test_sgd_is_nesterovs_with_the_momentum_that_the_network_test_compares():
    config = TrainConfig(strategy="single")
    optimizer = build_optimizer(config, steps=1, jit_compile=False)
    assert (optimizer.momentum, optimizer.nesterov) == (MOMENTUM, True)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_decay_shrinks_kernels_by_rate_times_decay_and_nothing_else(name):
    variables = [
        keras.Variable(np.ones(3, dtype="float32"), name=name)
        for name in ("kernel", "bias", "gamma", "beta")
    ]
    config = TrainConfig(optimizer=name, learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer(config, steps=1, jit_compile=False)
    optimizer.apply([np.zeros(3, dtype="float32")] * 4, variables)
    kernel, *others = (variable.numpy() for variable in variables)
    np.testing.assert_allclose(kernel, 1 - 0.1 * 0.5, rtol=1e-6)
    for value in others:
        np.testing.assert_array_equal(value, 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_compiled_by_xla_the_updates_are_the_same(name, dtype):
    random = np.random.default_rng(0)
    start, *gradients = random.normal(size=(6, 4, 3)).astype("float32")

    def trained(**settings):
        variable = keras.Variable(start, name="kernel")
        config = TrainConfig(
            optimizer=name, learning_rate=0.1, weight_decay=0.5, strategy="single", **settings
        )
        optimizer = build_optimizer(config, steps=20, jit_compile=False)
        optimizer.build([variable])
        # As gradients come where the arithmetic is bfloat16.
        step = tf.function(
            lambda gradient: optimizer.apply([tf.cast(gradient, tf.float32)], [variable])
        )
        for gradient in gradients:
            step(tf.cast(gradient, dtype))
        graph = step.get_concrete_function(tf.cast(gradients[0], dtype)).graph
        calls = graph.as_graph_def().library.function
        return variable.numpy(), any("_XlaMustCompile" in call.attr for call in calls)

    expected, is_compiled = trained(accelerate=False)
    assert not is_compiled
    found, is_compiled = trained(accelerate=True)
    assert is_compiled
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(expected - start).max() > 0.1
