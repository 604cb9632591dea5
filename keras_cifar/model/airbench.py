"""The network of the airbench family: whitening, groups of convolutions, a scaled head.

Source: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv:2404.00498), here "the
paper", and the programs airbench94.py and airbench96.py of KellerJordan/cifar10-airbench.
"""

import math
from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from keras_cifar.cifar10 import IMAGE_SHAPE, NUM_CLASSES
from keras_cifar.model.normalization import image_normalization
from keras_cifar.model.whitening import PATCH_SIZE

_ACTIVATION = "silu"
# Nothing is divided by it: without it a channel of zeros would be (airbench94.py).
_BATCH_NORM_EPSILON = 1e-12
_WHITENING_FILTERS = 2 * PATCH_SIZE * PATCH_SIZE * IMAGE_SHAPE[-1]
_KERNEL_SIZE = 3
# Said in each layer, since a keras.json may say otherwise.
_FORMAT = "channels_last"


def build_model(
    groups: Sequence[Sequence[int]],
    *,
    head_bound: float,
    logit_scale: float,
    batch_norm_momentum: float,
    seed: int,
    image_shape: tuple[int | None, int | None, int] = IMAGE_SHAPE,
) -> keras.Model:
    """Builds the network, layer by layer.

    The whitening layer's kernel does not train. It is random until it is set to what
    `whitening_filters` returns.

    Args:
        groups: filters of each convolution of each group. In a group of more than two, a residual
            connection leads round all but the first.
        head_bound: the head's weights are uniform within this at first.
        logit_scale: factor of the head's outputs.
        batch_norm_momentum: share of the moving moments that a step keeps.
        seed: decides the initial weights.
        image_shape: of one image; None for a height and width that change from batch to batch.

    Returns:
        Uncompiled; images uint8 (batch, *image_shape) to logits float32 (batch, 10).
    """
    image = keras.Input(image_shape, dtype="uint8", name="image")
    x = image_normalization()(image)
    # Whitening divides by small deviations, which magnifies rounding errors: so it is in float32.
    x = layers.Conv2D(
        _WHITENING_FILTERS, PATCH_SIZE, data_format=_FORMAT, dtype="float32", name="whitening"
    )(x)  # (batch, 31, 31, 24)
    x = layers.Activation(_ACTIVATION, name="whitening_activation")(x)
    for number, filters in enumerate(groups, start=1):
        x = _group(x, filters, batch_norm_momentum=batch_norm_momentum, name=f"group{number}")
    x = layers.GlobalMaxPooling2D(data_format=_FORMAT, name="pool")(x)  # of 3x3 pixels
    x = layers.Dense(NUM_CLASSES, use_bias=False, dtype="float32", name="head")(x)
    logits = layers.Rescaling(logit_scale, dtype="float32", name="logits")(x)
    model = keras.Model(image, logits, name="airbench")
    model.get_layer("whitening").kernel.trainable = False
    _initialize(model, head_bound=head_bound, random=np.random.RandomState(seed))
    return model


def _group(
    x: keras.KerasTensor, filters: Sequence[int], *, batch_norm_momentum: float, name: str
) -> keras.KerasTensor:
    """Adds convolutions, each with batch normalisation and activation."""
    shortcut = None
    for number, count in enumerate(filters, start=1):
        x = layers.Conv2D(
            count,
            _KERNEL_SIZE,
            padding="same",
            use_bias=False,
            data_format=_FORMAT,
            name=f"{name}_conv{number}",
        )(x)
        if number == 1:
            # Right behind the first, so that the others have a quarter of the work.
            x = layers.MaxPooling2D(2, data_format=_FORMAT, name=f"{name}_pool")(x)
        x = layers.BatchNormalization(
            momentum=batch_norm_momentum,
            epsilon=_BATCH_NORM_EPSILON,
            scale=False,
            name=f"{name}_batch_norm{number}",
        )(x)
        if number == len(filters) > 2:
            # He et al., 2016, section 3.2.
            x = layers.Add(name=f"{name}_residual")([shortcut, x])
        x = layers.Activation(_ACTIVATION, name=f"{name}_activation{number}")(x)
        if number == 1:
            shortcut = x
    return x


def _initialize(model: keras.Model, *, head_bound: float, random: np.random.RandomState) -> None:
    """Sets the initial weights, which Keras's initializers cannot express."""
    for variable in model.variables:
        if variable.name == "kernel":
            *window, channels, _ = variable.shape
            bound = 1 / math.sqrt(math.prod(window) * channels) if window else head_bound
            kernel = random.uniform(-bound, bound, variable.shape).astype(np.float32)
            variable.assign(with_identity(kernel) if window[:1] == [_KERNEL_SIZE] else kernel)
    bias = model.get_layer("whitening").bias
    bound = 1 / math.sqrt(_WHITENING_FILTERS / 2)
    bias.assign(random.uniform(-bound, bound, bias.shape))


def with_identity(kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Sets the first filters of a kernel to the identity: one for each channel.

    Training starts from a network that passes on what it is given (the paper, section 3.2).

    Args:
        kernel: (height, width, channels, filters), at least as many filters as channels.
    """
    height, width, channels, _ = kernel.shape
    kernel = kernel.copy()
    kernel[..., :channels] = 0
    kernel[height // 2, width // 2, :, :channels] = np.eye(channels)
    return kernel
