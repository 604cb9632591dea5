"""The article's network: six convolutions and three linear layers, 5,852,170 parameters."""

import math

import keras
from keras import initializers, layers

from keras_cifar.cifar10 import IMAGE_SHAPE, MEAN, NUM_CLASSES, STANDARD_DEVIATION
from keras_cifar.model.batch_norm import FusedBatchNormalization
from keras_cifar.model.convolution import NormalizedConv2D, PooledConv2D
from keras_cifar.model.dropout import ExactDropout
from keras_cifar.model.normalization import ImageNormalization


def build_model(*, seed: int, dropout: float = 0.1, channel_dropout: float = 0.05) -> keras.Model:
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
    variance = [deviation**2 for deviation in STANDARD_DEVIATION]
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE, dtype="uint8", name="image"),
            # In the model, so that training and serving cannot scale differently.
            ImageNormalization(mean=MEAN, variance=variance, dtype="float32", name="normalize"),
            *_block(1, channels=(3, 32, 64)),
            *_block(2, channels=(64, 128, 128)),
            # Of whole channels.
            ExactDropout(channel_dropout, noise_shape=(None, 1, 1, None), name="block2_dropout"),
            *_block(3, channels=(128, 256, 256)),
            layers.Flatten(name="flatten"),  # (4, 4, 256) -> 4096
            ExactDropout(dropout, name="flatten_dropout"),
            layers.Dense(1024, name="dense1", **_pytorch_initializers(fan_in=4096)),
            layers.ReLU(name="dense1_relu"),
            layers.Dense(512, name="dense2", **_pytorch_initializers(fan_in=1024)),
            layers.ReLU(name="dense2_relu"),
            ExactDropout(dropout, name="dense2_dropout"),
            layers.Dense(
                NUM_CLASSES, dtype="float32", name="logits", **_pytorch_initializers(fan_in=512)
            ),
        ],
        name="article",
    )


def _block(number: int, *, channels: tuple[int, int, int]) -> list[layers.Layer]:
    """Two convolutions and a pooling; the biases before the normalisation are the article's.

    The last ReLU comes after the pooling, before it in the article: the outcome and its gradient
    are the same, and a quarter of the numbers go through it.
    """
    first, middle, last = channels
    name = f"block{number}"
    return [
        _convolution(NormalizedConv2D, middle, channels=first, name=f"{name}_conv1"),
        # PyTorch's momentum 0.1 is 0.9 here.
        FusedBatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_batch_norm"),
        layers.ReLU(name=f"{name}_relu1"),
        _convolution(PooledConv2D, last, channels=middle, name=f"{name}_conv2"),
        layers.ReLU(name=f"{name}_relu2"),
    ]


def _convolution(
    kind: type[layers.Conv2D], filters: int, *, channels: int, name: str
) -> layers.Layer:
    return kind(filters, 3, padding="same", name=name, **_pytorch_initializers(fan_in=9 * channels))


def _pytorch_initializers(*, fan_in: int) -> dict[str, initializers.Initializer]:
    """PyTorch's default: kernel and bias uniform within 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return {
        "kernel_initializer": initializers.RandomUniform(-bound, bound),
        "bias_initializer": initializers.RandomUniform(-bound, bound),
    }
