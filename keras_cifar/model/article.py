"""The article's network: six convolutions and three linear layers, 5,852,170 parameters."""

import math

import keras
from keras import initializers, layers

from keras_cifar.cifar10 import IMAGE_SHAPE, MEAN, NUM_CLASSES, STANDARD_DEVIATION
from keras_cifar.model.batch_norm import FusedBatchNormalization


def build_model(*, seed: int, dropout: float = 0.1, channel_dropout: float = 0.05) -> keras.Model:
    """Builds the network of Z. Na (2018) that the article shows, layer by layer.

    Args:
        seed: decides the initial weights and the dropout masks.
        dropout: share of features dropped before the first and the last linear layer.
        channel_dropout: share of channels dropped after the second block.

    Returns:
        Uncompiled; images uint8 (batch, 32, 32, 3) to logits float32 (batch, 10).
    """
    seeds = iter(range(seed * 100, seed * 100 + 100))  # another one for each layer
    variance = [deviation**2 for deviation in STANDARD_DEVIATION]
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE, dtype="uint8", name="image"),
            # In the model, so that training and serving cannot scale differently.
            layers.Normalization(mean=MEAN, variance=variance, dtype="float32", name="normalize"),
            # (32, 32, 3)
            *_block(1, channels=(3, 32, 64), seeds=seeds),
            # (16, 16, 64)
            *_block(2, channels=(64, 128, 128), seeds=seeds),
            layers.SpatialDropout2D(channel_dropout, seed=next(seeds), name="block2_dropout"),
            # (8, 8, 128)
            *_block(3, channels=(128, 256, 256), seeds=seeds),
            # (4, 4, 256)
            layers.Flatten(name="flatten"),
            layers.Dropout(dropout, seed=next(seeds), name="flatten_dropout"),
            layers.Dense(1024, name="dense1", **_pytorch_default(4096, seeds=seeds)),
            layers.ReLU(name="dense1_relu"),
            layers.Dense(512, name="dense2", **_pytorch_default(1024, seeds=seeds)),
            layers.ReLU(name="dense2_relu"),
            layers.Dropout(dropout, seed=next(seeds), name="dense2_dropout"),
            layers.Dense(
                NUM_CLASSES, dtype="float32", name="logits", **_pytorch_default(512, seeds=seeds)
            ),
        ],
        name="article",
    )
