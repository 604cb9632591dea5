"""The network of the fast recipes: whitening, three groups of convolutions, a scaled head."""

import math
from collections.abc import Iterator

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from keras_cifar.cifar10 import IMAGE_SHAPE, MEAN, NUM_CLASSES, STANDARD_DEVIATION
from keras_cifar.fast import FastMethod
from keras_cifar.model.batch_norm import FusedBatchNormalization
from keras_cifar.model.normalization import ImageNormalization
from keras_cifar.model.residual import Residual
from keras_cifar.model.whitening import PATCH_SIZE

ACTIVATION = "silu"
# Nothing is divided by it: without it a channel of zeros would be (airbench94.py).
BATCH_NORM_EPSILON = 1e-12
_WHITENING_FILTERS = 2 * PATCH_SIZE * PATCH_SIZE * IMAGE_SHAPE[-1]
_KERNEL_SIZE = 3


def build_model(
    method: FastMethod,
    *,
    seed: int,
    image_shape: tuple[int | None, int | None, int] = IMAGE_SHAPE,
) -> keras.Sequential:
    """Builds the network of the airbench family (see `keras_cifar.fast`), layer by layer.

    The whitening layer's kernel does not train. It is random until it is set to what
    `whitening_filters` gives.

    Args:
        method: widths, depth and scales.
        seed: decides the initial weights.
        image_shape: of one image; None for a height and width that change from batch to batch.

    Returns:
        Uncompiled; images uint8 (batch, *image_shape) to logits float32 (batch, 10).
    """
    variance = [deviation**2 for deviation in STANDARD_DEVIATION]
    model = keras.Sequential(
        [
            keras.Input(image_shape, dtype="uint8", name="image"),
            ImageNormalization(mean=MEAN, variance=variance, dtype="float32", name="normalize"),
            # What hardly varies is blown up, and with it the rounding of half precision.
            layers.Conv2D(_WHITENING_FILTERS, PATCH_SIZE, dtype="float32", name="whitening"),
            layers.Activation(ACTIVATION, name="whitening_activation"),
            *(
                layer
                for number, filters in enumerate(method.widths, start=1)
                for layer in _group(method, filters, name=f"group{number}")
            ),
            layers.GlobalMaxPooling2D(name="pool"),
            layers.Dense(NUM_CLASSES, use_bias=False, dtype="float32", name="head"),
            layers.Rescaling(method.logit_scale, dtype="float32", name="logits"),
        ],
        name="fast",
    )
    model.get_layer("whitening").kernel.trainable = False
    _initialize(model, method, random=np.random.RandomState(seed))
    return model


def _group(method: FastMethod, filters: int, *, name: str) -> Iterator[layers.Layer]:
    """Convolutions, each with batch normalisation and activation; the first one's also pools.

    The pooling comes first, so that the others have a quarter of the work.
    """
    yield _convolution(filters, name=f"{name}_conv1")
    yield layers.MaxPooling2D(2, name=f"{name}_pool")
    yield _batch_norm(method, name=f"{name}_batch_norm1")
    yield layers.Activation(ACTIVATION, name=f"{name}_activation1")
    rest = []
    for number in range(2, method.convolutions + 1):
        rest += [
            _convolution(filters, name=f"{name}_conv{number}"),
            _batch_norm(method, name=f"{name}_batch_norm{number}"),
            layers.Activation(ACTIVATION, name=f"{name}_activation{number}"),
        ]
    if method.convolutions > 2:
        *inner, last = rest
        rest = [Residual(inner, name=f"{name}_residual"), last]
    yield from rest


def _convolution(filters: int, *, name: str) -> layers.Layer:
    return layers.Conv2D(filters, _KERNEL_SIZE, padding="same", use_bias=False, name=name)


def _batch_norm(method: FastMethod, *, name: str) -> layers.Layer:
    return FusedBatchNormalization(
        momentum=method.batch_norm_momentum, epsilon=BATCH_NORM_EPSILON, scale=False, name=name
    )


def _initialize(
    model: keras.Sequential, method: FastMethod, *, random: np.random.RandomState
) -> None:
    """Sets the initial weights; as Keras initializers they would have to be in the model file."""
    for variable in model.variables:
        if variable.name == "kernel":
            *window, channels, _ = variable.shape
            bound = method.head_bound if not window else 1 / math.sqrt(math.prod(window) * channels)
            kernel = random.uniform(-bound, bound, variable.shape).astype(np.float32)
            variable.assign(with_identity(kernel) if window[:1] == [_KERNEL_SIZE] else kernel)
    bias = model.get_layer("whitening").bias
    bound = 1 / math.sqrt(_WHITENING_FILTERS / 2)
    bias.assign(random.uniform(-bound, bound, bias.shape))


def with_identity(kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Has the first filters of a kernel pass the channels on as they are.

    Training starts from a network that keeps what it is given (the paper, section 3.2).

    Args:
        kernel: (height, width, channels, filters), at least as many filters as channels.
    """
    height, width, channels, _ = kernel.shape
    kernel = kernel.copy()
    kernel[..., :channels] = 0
    kernel[height // 2, width // 2, :, :channels] = np.eye(channels)
    return kernel
