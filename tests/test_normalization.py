"""Images are normalised as Keras does it."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_cifar.cifar10 import MEAN, STANDARD_DEVIATION
from keras_cifar.model.normalization import ImageNormalization


@pytest.mark.parametrize("known", [True, False])
def test_the_numbers_are_those_of_keras(sample, known):
    """Whether the size of the images is known beforehand or not."""
    options = {"mean": MEAN, "variance": [deviation**2 for deviation in STANDARD_DEVIATION]}
    layer = ImageNormalization(**options)
    size = [32, 24] if known else [None, None]
    compiled = tf.function(layer, input_signature=[tf.TensorSpec([None, *size, 3], tf.uint8)])
    images = sample.images[:8, :, :24]
    expected = layers.Normalization(**options)(images)
    np.testing.assert_allclose(compiled(images), expected, rtol=1e-5, atol=1e-6)
