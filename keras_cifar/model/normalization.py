"""The first layer of each network: images of mean 0 and deviation 1."""

from keras import layers

from keras_cifar.cifar10 import MEAN, STANDARD_DEVIATION


def image_normalization() -> layers.Rescaling:
    """Returns the layer that normalises each channel of images in 0..255.

    It is part of the model, so that training and serving cannot scale differently.
    """
    pairs = list(zip(MEAN, STANDARD_DEVIATION, strict=True))
    return layers.Rescaling(
        # Of shape (1, 1, 3): Keras turns a plain vector round where keras.json says channels_first.
        scale=[[[1 / deviation for _, deviation in pairs]]],
        offset=[[[-mean / deviation for mean, deviation in pairs]]],
        dtype="float32",
        name="normalize",
    )
