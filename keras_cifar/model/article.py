"""The article's network: six convolutions and three linear layers, 5,852,170 parameters."""

import math

import keras
from keras import initializers, layers

from keras_cifar.cifar10 import IMAGE_SHAPE, NUM_CLASSES
from keras_cifar.model.normalization import image_normalization

# Said in each layer, since a keras.json may say otherwise.
_FORMAT = "channels_last"


def build_model(
    *, seed: int, dropout: float = 0.1, channel_dropout: float = 0.05
) -> keras.Sequential:
    """Builds the network of Z. Na (2018) that the article shows, layer by layer.

    Args:
        seed: decides the initial weights and the dropout masks.
        dropout: share of features dropped before the first and the last linear layer.
        channel_dropout: share of channels dropped behind the second block.

    Returns:
        Uncompiled; images uint8 (batch, 32, 32, 3) to logits float32 (batch, 10).
    """
    # Layers without a seed of their own take it from here, in the order in which they are built.
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE, dtype="uint8", name="image"),
            image_normalization(),
            *_block(1, channels=(3, 32, 64)),  # (32, 32, 3) -> (16, 16, 64)
            *_block(2, channels=(64, 128, 128)),  # -> (8, 8, 128)
            layers.SpatialDropout2D(channel_dropout, data_format=_FORMAT, name="block2_dropout"),
            *_block(3, channels=(128, 256, 256)),  # -> (4, 4, 256)
            layers.Flatten(data_format=_FORMAT, name="flatten"),  # -> 4096
            layers.Dropout(dropout, name="flatten_dropout"),
            layers.Dense(1024, name="dense1", **_pytorch_initializers(fan_in=4096)),
            layers.ReLU(name="dense1_relu"),
            layers.Dense(512, name="dense2", **_pytorch_initializers(fan_in=1024)),
            layers.ReLU(name="dense2_relu"),
            layers.Dropout(dropout, name="dense2_dropout"),
            layers.Dense(
                NUM_CLASSES, dtype="float32", name="logits", **_pytorch_initializers(fan_in=512)
            ),
        ],
        name="article",
    )


def _block(number: int, *, channels: tuple[int, int, int]) -> list[layers.Layer]:
    """Returns two convolutions and a pooling, which halves height and width."""
    first, middle, last = channels
    name = f"block{number}"
    return [
        # Its bias is the article's, although the batch normalisation subtracts it again.
        _convolution(middle, channels=first, name=f"{name}_conv1"),
        # PyTorch's momentum of 0.1 is 0.9 in Keras.
        layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_batch_norm"),
        layers.ReLU(name=f"{name}_relu1"),
        _convolution(last, channels=middle, name=f"{name}_conv2"),
        layers.ReLU(name=f"{name}_relu2"),
        layers.MaxPooling2D(2, data_format=_FORMAT, name=f"{name}_pool"),
    ]


def _convolution(filters: int, *, channels: int, name: str) -> layers.Conv2D:
    initializers_of_both = _pytorch_initializers(fan_in=9 * channels)
    return layers.Conv2D(
        filters, 3, padding="same", data_format=_FORMAT, name=name, **initializers_of_both
    )


def _pytorch_initializers(*, fan_in: int) -> dict[str, initializers.Initializer]:
    """Returns PyTorch's defaults: kernel and bias uniform within 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return {
        "kernel_initializer": initializers.RandomUniform(-bound, bound),
        "bias_initializer": initializers.RandomUniform(-bound, bound),
    }
