"""The network of the fast recipes: what its pieces are, and how big it is."""

import math

import keras
import numpy as np
import pytest

from keras_cifar.cifar10 import MEAN, STANDARD_DEVIATION
from keras_cifar.model.airbench import with_identity
from keras_cifar.model.load import load_model
from keras_cifar.model.tta import with_views
from keras_cifar.model.whitening import whitening_filters
from keras_cifar.recipes.fast import FAST94, FAST96


def moments_of_whitened(images, **options):
    """Second moments of what the first twelve filters make of all patches."""
    normalised = (images - np.array(MEAN)) / STANDARD_DEVIATION
    kernel = whitening_filters(images, **options)[..., :12]
    outputs = keras.ops.conv(normalised.astype("float32"), kernel, padding="valid")
    patches = keras.ops.convert_to_numpy(outputs).reshape(-1, 12).astype(np.float64)
    return patches.T @ patches / len(patches)


def test_whitened_patches_have_the_identity_as_second_moment(sample):
    images = sample.images[:1000]
    moments = moments_of_whitened(images, epsilon=0.0)
    np.testing.assert_allclose(moments, np.eye(12), atol=1e-3)


def test_directions_that_hardly_vary_are_not_blown_up(sample):
    moments = moments_of_whitened(sample.images[:1000])
    diagonal = np.diag(moments)
    np.testing.assert_allclose(moments, np.diag(diagonal), atol=1e-3)
    assert 0.4 < diagonal.min() < 0.9
    assert (diagonal > 0.99).sum() >= 6


def test_the_other_twelve_filters_are_the_negatives(sample):
    kernel = whitening_filters(sample.images[:200])
    assert kernel.shape == (2, 2, 3, 24)
    np.testing.assert_array_equal(kernel[..., 12:], -kernel[..., :12])


def test_a_kernel_with_identity_passes_its_channels_on():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, 4, 6)).astype("float32")
    images = random.normal(size=(2, 5, 5, 4)).astype("float32")
    outputs = keras.ops.convert_to_numpy(
        keras.ops.conv(images, with_identity(kernel), padding="same")
    )
    # A convolution may go by way of a transform, which rounds.
    np.testing.assert_allclose(outputs[..., :4], images, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(with_identity(kernel)[..., 4:], kernel[..., 4:])


def test_every_convolution_but_the_whitening_starts_with_the_identity():
    model = FAST94.build_model(seed=0)
    kernels = [layer.kernel.numpy() for layer in model.layers if "conv" in layer.name]
    assert [kernel.shape[-1] for kernel in kernels] == [64, 64, 256, 256, 256, 256]
    for kernel in kernels:
        channels = kernel.shape[2]
        np.testing.assert_array_equal(kernel[1, 1, :, :channels], np.eye(channels))
        rest = kernel[..., channels:]
        bound = 1 / math.sqrt(9 * channels)
        assert rest.size == 0 or (0.99 * bound < np.abs(rest).max() <= bound)


def test_the_head_starts_with_deviation_1():
    assert FAST94.build_model(seed=0).get_layer("head").kernel.numpy().std() == pytest.approx(
        1, abs=0.02
    )


def test_fast94_has_the_parameters_of_airbench94():
    model = FAST94.build_model(seed=0)
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == 1_971_352
    frozen = sum(math.prod(weight.shape) for weight in model.non_trainable_weights)
    moving_moments = 2 * 2 * (64 + 256 + 256)
    assert frozen == 288 + moving_moments


def test_fast96_has_the_parameters_and_the_arithmetic_of_airbench96():
    model = FAST96.build_model(seed=0)
    parameters = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    assert parameters / 1e6 == pytest.approx(9.92, abs=0.01)
    assert forward_flops(FAST96) / 1e9 == pytest.approx(0.904, abs=0.001)


def test_fast94_has_the_arithmetic_of_airbench94():
    assert forward_flops(FAST94) / 1e9 == pytest.approx(0.2363, abs=0.0001)


def forward_flops(recipe):
    """Multiplications and additions of the convolutions and the head, an image."""
    side, flops = 31, 2 * 31**2 * 12 * 24
    channels = 24
    for filters, *others in recipe.groups:
        flops += 2 * side**2 * 9 * channels * filters
        side //= 2
        flops += len(others) * 2 * side**2 * 9 * filters * filters
        channels = filters
    return flops + 2 * channels * 10


def test_the_same_seed_gives_the_same_weights():
    one, same, other = (FAST94.build_model(seed=seed).get_weights() for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("recipe", [FAST94, FAST96])
def test_a_saved_network_is_loaded_as_it_was(recipe, sample, tmp_path):
    model = recipe.build_model(seed=0)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    for found, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    images = sample.images[:4]
    np.testing.assert_allclose(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("side", [24, 28])
def test_smaller_images_go_through_the_same_weights(side, sample):
    model = FAST94.build_model(seed=0, image_shape=(None, None, 3))
    logits = model(sample.images[:4, :side, :side])
    assert logits.shape == (4, 10)
    assert np.isfinite(logits).all()


def test_six_views_are_the_mean_of_mirrored_and_moved_images(sample):
    model = FAST94.build_model(seed=0)
    images = sample.images[:8]
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")

    def both_ways(views):
        return (model.predict(views, verbose=0) + model.predict(views[:, :, ::-1], verbose=0)) / 2

    expected = both_ways(images) / 2
    expected += (both_ways(padded[:, :32, :32]) + both_ways(padded[:, 2:, 2:])) / 4
    found = with_views(model, 6).predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert with_views(model, 1) is model


def test_another_number_of_views_is_refused():
    with pytest.raises(ValueError, match="views: got 3, expected 1 or 6"):
        with_views(FAST94.build_model(seed=0), 3)
