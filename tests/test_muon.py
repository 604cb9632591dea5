"""Muon, SGD by groups, lookahead and the schedule: each for what it is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cifar.optimize.group_sgd import LOOKAHEAD_EVERY, Group, GroupSGD, Lookahead
from keras_cifar.optimize.loss import smoothed_cross_entropy
from keras_cifar.optimize.muon import Muon, orthogonalize
from keras_cifar.optimize.schedules import WarmupThenLinear


def singular_values(matrix):
    return np.linalg.svd(np.asarray(matrix), compute_uv=False)


@pytest.mark.parametrize("shape", [(216, 64), (576, 256), (2304, 256)])
def test_an_orthogonalized_matrix_has_singular_values_near_1(shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype("float32")
    values = singular_values(orthogonalize(tf.constant(matrix)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_orthogonalizing_keeps_the_directions():
    random = np.random.default_rng(0)
    left, _ = np.linalg.qr(random.normal(size=(40, 8)))
    right, _ = np.linalg.qr(random.normal(size=(8, 8)))
    matrix = left * np.linspace(1, 3, 8) @ right.T
    found = np.asarray(orthogonalize(tf.constant(matrix, tf.float32)))
    values = np.diag(left.T @ found @ right)
    np.testing.assert_allclose(left.T @ found @ right, np.diag(values), atol=1e-5)
    assert (values > 0.6).all()


def muon_step(kernel, gradient, *, steps=1):
    variable = keras.Variable(kernel, name="kernel")
    optimizer = Muon(0.1, kernel_momentum=0.6, momentum=0.85, group_of=lambda _: Group())
    for _ in range(steps):
        optimizer.apply([tf.constant(gradient)], [variable])
    return variable.numpy()


def test_a_step_of_muon_turns_a_kernel_of_norm_sqrt_filters_by_the_rate():
    random = np.random.default_rng(0)
    kernel, gradient = random.normal(size=(2, 3, 3, 8, 16)).astype("float32")
    scaled = kernel * 4 / np.linalg.norm(kernel)
    step = (scaled - muon_step(kernel, gradient)) / 0.1
    values = singular_values(step.reshape(-1, 16))
    assert values.min() > 0.6
    assert values.max() < 1.3
    # Downhill, and the same whatever the size of the gradient.
    assert (step * gradient).sum() > 0
    np.testing.assert_allclose(muon_step(kernel, 1000 * gradient), scaled - 0.1 * step, atol=1e-4)


def test_muon_looks_ahead_of_its_momentum():
    """Nesterov's: with g, then g again, the second step orthogonalizes g + 0.6 (g + 0.6 g)."""
    random = np.random.default_rng(0)
    kernel, gradient = random.normal(size=(2, 3, 3, 4, 4)).astype("float32")
    opposite = np.concatenate([gradient[..., :2], -gradient[..., 2:]], axis=-1)
    variable = keras.Variable(kernel, name="kernel")
    optimizer = Muon(0.1, kernel_momentum=0.6, momentum=0.85, group_of=lambda _: Group())
    optimizer.apply([tf.constant(gradient)], [variable])
    before = variable.numpy()
    optimizer.apply([tf.constant(opposite)], [variable])
    direction = opposite + 0.6 * (0.6 * gradient + opposite)
    step = np.asarray(orthogonalize(tf.constant(direction.reshape(-1, 4))))
    scaled = before * 2 / np.linalg.norm(before)
    np.testing.assert_allclose(
        variable.numpy(), scaled - 0.1 * step.reshape(kernel.shape), atol=1e-5
    )


def test_groups_have_rates_and_decays_of_their_own():
    bias = keras.Variable(np.ones(3, "float32"), name="bias")
    kernel = keras.Variable(np.ones((3, 2), "float32"), name="kernel")
    groups = {"bias": Group(rate=64.0), "kernel": Group(rate=2.0, weight_decay=0.5)}
    optimizer = GroupSGD(0.01, momentum=0.0, group_of=lambda variable: groups[variable.name])
    optimizer.apply([tf.ones(3), tf.ones((3, 2))], [bias, kernel])
    np.testing.assert_allclose(bias.numpy(), 1 - 0.64, rtol=1e-6)
    np.testing.assert_allclose(kernel.numpy(), 1 - 0.02 * 1.5, rtol=1e-6)


def test_a_group_can_stop_after_some_steps():
    bias = keras.Variable(np.zeros(1, "float32"), name="bias")
    optimizer = GroupSGD(1.0, momentum=0.0, group_of=lambda _: Group(steps=2))
    places = []
    for _ in range(4):
        optimizer.apply([tf.ones(1)], [bias])
        places.append(bias.numpy()[0])
    assert places == [-1.0, -1.5, -1.5, -1.5]


def test_lookahead_sets_back_all_that_training_changes_batch_norm_included():
    """One trained variable, one that only moves, as a moving mean does."""
    weight = keras.Variable(np.zeros(1, "float32"), name="kernel")
    mean = keras.Variable(np.zeros(1, "float32"), trainable=False, name="moving_mean")
    steps = 2 * LOOKAHEAD_EVERY + 1
    optimizer = GroupSGD(
        1.0,
        momentum=0.0,
        group_of=lambda _: Group(),
        lookahead=Lookahead([weight, mean], decay=0.8, steps=steps),
    )
    optimizer.build([weight])
    seen = []
    for _ in range(steps):
        mean.assign_add([10.0])
        optimizer.apply([-tf.ones(1)], [weight])
        seen.append((weight.numpy()[0], mean.numpy()[0]))
    keep = 0.8 * (5 / 11) ** 3
    slow = 5 * (1 - keep)
    assert seen[3] == (4, 40)
    np.testing.assert_allclose(seen[4], [slow, 10 * slow], rtol=1e-5)
    keep = 0.8 * (10 / 11) ** 3
    slow = keep * slow + (1 - keep) * (slow + 5)
    np.testing.assert_allclose(seen[9], [slow, 10 * slow], rtol=1e-5)
    # The last step is the end of the run: what the slow weights are.
    np.testing.assert_allclose(seen[10], [slow, 10 * slow], rtol=1e-5)


@pytest.mark.parametrize(("warmup", "first", "peak_at"), [(0.0, 1.0, 0), (0.1, 0.1, 9)])
def test_the_rate_rises_in_a_line_and_falls_to_zero_in_one(warmup, first, peak_at):
    schedule = WarmupThenLinear(2.0, steps=100, warmup=warmup)
    rates = np.array([float(schedule(step)) for step in range(101)])
    assert rates[0] == pytest.approx(2.0 * first)
    assert rates.argmax() == pytest.approx(peak_at, abs=1)
    assert rates.max() == pytest.approx(2.0)
    np.testing.assert_allclose(np.diff(rates[peak_at + 2 :]), -2 / (100 * (1 - warmup)), rtol=1e-3)
    assert rates[100] == 0


def test_label_smoothing_is_cross_entropy_with_softer_targets():
    logits = np.random.default_rng(0).normal(size=(5, 10)).astype("float32")
    labels = np.array([0, 3, 9, 3, 1])
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)(
        np.eye(10)[labels], logits
    )
    found = smoothed_cross_entropy(0.2)(tf.constant(labels[:, None]), tf.constant(logits))
    assert float(tf.reduce_mean(found)) == pytest.approx(float(expected), rel=1e-6)
