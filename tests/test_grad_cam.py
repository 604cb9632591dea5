"""Grad-CAM and the first filters: equal to a formula."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_cifar.measure.grad_cam import first_filters, grad_cam
from keras_cifar.recipes import RECIPES


def pooled(*, seed):
    """A convolution, the mean of its maps, and a linear head."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((32, 32, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(6, 5, strides=4, name="convolution"),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )


def test_with_a_linear_head_on_the_mean_it_is_the_class_activation_map(sample):
    """Selvaraju et al., 2017, section 3.1: then both are the same, up to the size of the maps."""
    model, images, classes = pooled(seed=1), sample.images[:8], np.arange(8)
    found = grad_cam(model, images, classes=classes)
    before = keras.Sequential(model.layers[:3])
    maps = before.predict_on_batch(images)  # (8, height, width, 6)
    kernel = np.asarray(model.layers[-1].kernel)  # (6, 10)
    activation = np.einsum("nhwk,nk->nhw", maps, kernel[:, classes].T)
    expected = np.maximum(activation, 0) / (maps.shape[1] * maps.shape[2])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert (found > 0).any()


def test_behind_a_head_that_is_not_linear_it_weights_maps_by_finite_differences(sample):
    keras.utils.set_random_seed(2)
    image = keras.Input((32, 32, 3), dtype="uint8")
    x = layers.Conv2D(6, 5, strides=5, name="first")(layers.Rescaling(1 / 255)(image))
    maps = layers.Add()([x, layers.Conv2D(6, 3, padding="same", activation="relu")(x)])
    x = layers.Dense(20, activation="tanh")(layers.Flatten()(maps))
    model = keras.Model(image, layers.Dense(10)(x))
    features, head = keras.Model(image, maps), keras.Model(maps, model.output)

    images, label = sample.images[:6], 4
    found = grad_cam(model, images, classes=np.full(6, label))
    assert found.any()
    for position, seen in enumerate(features.predict_on_batch(images)):  # (6, 6, 6)
        step = 1e-2
        steps = step * np.eye(seen.size, dtype=np.float32).reshape(-1, *seen.shape)
        up, down = (head.predict_on_batch(seen + sign * steps)[:, label] for sign in (1, -1))
        gradients = ((up - down) / (2 * step)).reshape(seen.shape)
        expected = np.maximum((gradients.mean(axis=(0, 1)) * seen).sum(axis=-1), 0)
        np.testing.assert_allclose(found[position], expected, rtol=0.01, atol=1e-5)


@pytest.mark.parametrize(("recipe", "side", "filters"), [("article", 8, 3), ("fast96", 3, 2)])
def test_every_network_has_maps_and_first_filters(sample, recipe, side, filters):
    model = RECIPES[recipe].build_model(seed=0)
    maps = grad_cam(model, sample.images[:5], classes=np.arange(5))
    assert maps.shape == (5, side, side)
    assert (maps >= 0).all()
    assert maps.any()
    kernel = first_filters(model)
    assert kernel.shape[:3] == (filters, filters, 3)


def test_a_network_without_convolution_is_told_apart():
    linear = keras.Sequential([keras.Input((32, 32, 3)), layers.Flatten(), layers.Dense(10)])
    with pytest.raises(ValueError, match="model: has no convolution among"):
        grad_cam(linear, np.zeros((1, 32, 32, 3)), classes=np.array([0]))
    with pytest.raises(ValueError, match="model: has no convolution that sees"):
        first_filters(linear)
