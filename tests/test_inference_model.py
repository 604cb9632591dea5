"""The network that is exported computes the trained one's function, with less."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_cifar.model.article import build_model
from keras_cifar.model.inference import inference_model
from keras_cifar.recipes.fast import FAST94, FAST96


def lived(model):
    """Gives every weight, moving statistics too, a value of its own, as training does."""
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            continue
        values = layer.get_weights()
        layer.set_weights([value + generator.normal(0, 0.02, value.shape) ** 2 for value in values])
    return model


def assert_same_function(model, images, *, atol=2e-6):
    expected = tf.nn.softmax(model.predict(images, verbose=0)).numpy()
    found = inference_model(model, precision="float32").predict(images, verbose=0)
    assert np.ptp(expected, axis=0).max() > 1e-3  # it does tell images apart
    np.testing.assert_allclose(found, expected, atol=atol)


def small_model(*new_layers):
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3), dtype="uint8")
    head = [layers.GlobalAveragePooling2D(), layers.Dense(10)]
    return lived(keras.Sequential([image, *new_layers, *head]))


def kinds(model):
    return [type(layer) for layer in model.layers]


def test_the_articles_network_gives_the_same_probabilities(sample):
    assert_same_function(lived(build_model(seed=0)), sample.images[:64])


def test_what_only_training_needs_is_gone():
    found = kinds(inference_model(build_model(seed=0), precision="float32"))
    assert not {kind for kind in found if issubclass(kind, layers.BatchNormalization)}
    assert not {kind for kind in found if issubclass(kind, layers.Dropout)}
    assert found.count(layers.Conv2D) == 6
    assert found.count(layers.Dense) == 3


def test_a_batch_norm_takes_four_values_a_channel_with_it():
    model = build_model(seed=0)
    channels = 32 + 128 + 256
    folded = inference_model(model, precision="float32")
    assert folded.count_params() == model.count_params() - 4 * channels
    assert model.count_params() - 2 * channels == 5_852_170


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("gamma_and_beta", [(True, True), (False, True), (True, False)])
def test_any_batch_norm_behind_a_convolution_is_folded(sample, padding, use_bias, gamma_and_beta):
    scale, center = gamma_and_beta
    model = small_model(
        layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3600.0, 2500.0, 1600.0]),
        layers.Conv2D(8, 3, padding=padding, use_bias=use_bias),
        layers.BatchNormalization(scale=scale, center=center),
        layers.ReLU(),
    )
    assert layers.BatchNormalization not in kinds(inference_model(model, precision="float32"))
    assert_same_function(model, sample.images[:8])


@pytest.mark.parametrize(("gamma", "is_folded"), [(0.5, True), (-0.5, False)])
def test_a_batch_norm_behind_a_max_pooling_is_folded_unless_it_negates(sample, gamma, is_folded):
    model = small_model(
        layers.Rescaling(1 / 255),
        layers.Conv2D(8, 3),
        layers.MaxPooling2D(2),
        layers.BatchNormalization(),
        layers.ReLU(),
    )
    batch_norm = model.layers[3]
    batch_norm.gamma.assign(np.full(8, gamma))
    found = kinds(inference_model(model, precision="float32"))
    assert (layers.BatchNormalization not in found) == is_folded
    assert_same_function(model, sample.images[:8])


@pytest.mark.parametrize(("recipe", "count"), [(FAST94, 6), (FAST96, 9)])
def test_the_fast_networks_give_the_same_probabilities(recipe, count, sample):
    # Untrained, its logits are all alike but for a larger scale.
    model = dataclasses.replace(recipe, logit_scale=1 / 16).build_model(seed=0)
    folded = inference_model(model, precision="float32")
    before = sum(issubclass(kind, layers.BatchNormalization) for kind in kinds(model))
    after = sum(issubclass(kind, layers.BatchNormalization) for kind in kinds(folded))
    assert (before, after) == (count, 0)
    assert_same_function(model, sample.images[:16], atol=1e-5)


def test_a_batch_norm_behind_an_activation_stays(sample):
    model = small_model(
        layers.Rescaling(1 / 255),
        layers.Conv2D(8, 3, activation="relu"),
        layers.BatchNormalization(),
    )
    assert layers.BatchNormalization in kinds(inference_model(model, precision="float32"))
    assert_same_function(model, sample.images[:8])


def test_a_normalization_that_was_adapted_to_data_is_folded_too(sample):
    adapted = layers.Normalization()
    adapted.adapt(sample.images[:32].astype("float32"))
    model = small_model(adapted, layers.Conv2D(8, 3, padding="same"), layers.ReLU())
    assert layers.Normalization not in kinds(inference_model(model, precision="float32"))
    assert_same_function(model, sample.images[:8])


def test_a_normalization_without_a_convolution_behind_it_keeps_its_scale(sample):
    model = small_model(layers.Normalization(mean=[120.0] * 3, variance=[900.0] * 3))
    assert_same_function(model, sample.images[:8])


@pytest.mark.parametrize(
    ("scaling", "groups"),
    [
        (layers.Rescaling([0.01, 0.02, 0.03]), 3),
        (layers.Rescaling([0.0, 0.01, 0.02], offset=0.5), 1),
        (layers.Normalization(mean=[127.0, 120.0, 0.0], variance=[3600.0, 4000.0, 0.0]), 1),
    ],
)
def test_a_scale_that_a_kernel_cannot_take_stays(sample, scaling, groups):
    images = sample.images[:64] * np.uint8([1, 1, 0])
    assert_same_function(small_model(scaling, layers.Conv2D(6, 3, groups=groups)), images)


def test_an_operation_that_is_no_layer_is_kept(sample):
    image = keras.Input((32, 32, 3), dtype="uint8")
    pixels = keras.ops.cast(image, "float32") / 255.0
    logits = layers.Dense(10)(layers.Flatten()(layers.Conv2D(4, 3)(pixels)))
    assert_same_function(keras.Model(image, logits), sample.images[:64])


def test_a_model_with_another_one_in_it_is_taken_as_it_is(sample):
    image = keras.Input((32, 32, 3), dtype="uint8")
    model = keras.Model(image, small_model(layers.Rescaling(1 / 255), layers.Conv2D(4, 3))(image))
    assert_same_function(model, sample.images[:8])
    with pytest.raises(ValueError, match="precision: got 'bfloat16', expected float32 for this"):
        inference_model(model, precision="bfloat16")


def test_bfloat16_holds_for_all_but_the_ends(sample):
    model = lived(build_model(seed=0))
    folded = inference_model(model, precision="bfloat16")
    compute = {layer.name: layer.compute_dtype for layer in folded.layers}
    ends = {name for name, dtype in compute.items() if dtype == "float32"} - {"image"}
    assert ends == {"normalize", "logits", "probabilities"}
    kernels = folded.get_layer("block1_conv1").variables
    assert {variable.dtype for variable in kernels} == {"bfloat16"}
    expected = tf.nn.softmax(model.predict(sample.images[:64], verbose=0)).numpy()
    found = folded.predict(sample.images[:64], verbose=0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_the_trained_model_is_left_alone(sample):
    model = lived(build_model(seed=0))
    before = [value.copy() for value in model.get_weights()]
    inference_model(model, precision="bfloat16")
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)
