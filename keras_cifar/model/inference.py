"""Trained classifier -> the same function in fewer operations, for inference alone."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers

from keras_cifar.cifar10 import IMAGE_SHAPE
from keras_cifar.model.convolution import NormalizedConv2D, PooledConv2D
from keras_cifar.model.tta import with_views


class _Shift(layers.Layer):
    """Adds a number to each channel; `layers.Rescaling` would multiply by 1 as well."""

    def __init__(self, *, offset: list[float], **options: Any) -> None:
        super().__init__(**options)
        self.offset = offset

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns inputs (n, height, width, channels) + offset (channels,)."""
        return tf.cast(inputs, self.compute_dtype) + tf.constant(self.offset, self.compute_dtype)


class _Step(NamedTuple):
    """A layer of the new network: its class, its configuration and its weights in float64."""

    kind: type[layers.Layer]
    config: dict[str, Any]
    weights: list[npt.NDArray[np.float64]]


def inference_model(model: keras.Model, *, precision: str, views: int = 1) -> keras.Sequential:
    """Builds what is exported of a model: the same function, and its softmax.

    Dropout is left out. A batch normalisation behind a convolution becomes part of its kernel
    and bias (Jacob et al., 2018, section 3.2), and so does the scale of the input's
    normalisation; its shift stays, since a convolution pads what comes out of it with zeros.

    Args:
        model: images uint8 (n, 32, 32, 3) to logits (n, 10). A model that is not Sequential is
            taken as it is.
        precision: "float32", or "bfloat16" for weights and arithmetic, but for the input's
            shift, the logits and the softmax.
        views: of each image, as `keras_cifar.model.tta.with_views` takes them.

    Returns:
        Images uint8 (n, 32, 32, 3) to probabilities float32 (n, 10).

    Raises:
        ValueError: bfloat16 for a model that is not Sequential.
    """
    softmax = layers.Softmax(dtype="float32", name="probabilities")
    if not isinstance(model, keras.Sequential):
        if precision != "float32":
            raise ValueError(f"precision: got {precision!r}, expected float32 for this model.")
        return keras.Sequential([_image(), with_views(model, views), softmax])
    steps = _steps(model)
    last = len(steps) - 1
    new_layers = [
        step.kind.from_config({**step.config, "dtype": precision if 0 < i < last else "float32"})
        for i, step in enumerate(steps)
    ]
    built = keras.Sequential([_image(), *new_layers, softmax])
    for layer, step in zip(new_layers, steps, strict=True):
        layer.set_weights(step.weights)
    if views == 1:
        return built
    network = keras.Sequential([_image(), *new_layers], name=model.name)
    return keras.Sequential([_image(), with_views(network, views), softmax])


def _image() -> keras.KerasTensor:
    return keras.Input(IMAGE_SHAPE, dtype="uint8", name="image")


def _steps(model: keras.Sequential) -> list[_Step]:
    """Reads the layers front to back; what can be folded joins the step before it."""
    steps: list[_Step] = []
    for step in (step for layer in model.layers for step in _steps_of(layer)):
        if issubclass(step.kind, layers.Dropout):
            continue
        place = _convolution_before(step, steps)
        if place:
            steps[-place] = _with_batch_norm(steps[-place], step)
        elif issubclass(step.kind, layers.Conv2D) and _kind_of_last(steps, layers.Rescaling):
            steps[-1:] = _with_scale(steps[-1], step)
        else:
            steps.append(step)
    return steps


def _steps_of(layer: layers.Layer) -> Iterator[_Step]:
    if isinstance(layer, layers.Normalization) and not layer.invert:
        # Its mean may be a weight, a setting or neither any more; numbers are easier to go on with.
        mean, variance = (np.float64(value).ravel() for value in (layer.mean, layer.variance))
        scale = 1 / np.sqrt(variance)
        config = {"scale": scale.tolist(), "offset": (-mean * scale).tolist()}
        yield _Step(layers.Rescaling, {"name": layer.name, **config}, [])
        return
    weights = [np.asarray(value, np.float64) for value in layer.get_weights()]
    # What these add to Keras's is for training.
    is_for_training = isinstance(layer, NormalizedConv2D | PooledConv2D)
    kind = layers.Conv2D if is_for_training else type(layer)
    yield _Step(kind, layer.get_config(), weights)
    if isinstance(layer, PooledConv2D):
        yield _Step(layers.MaxPooling2D, {"name": f"{layer.name}_pool"}, [])


def _convolution_before(step: _Step, steps: list[_Step]) -> int:
    """Returns how many steps back a convolution is that can take in this batch normalisation.

    There may be a max pooling in between: what is largest stays so where nothing is negated.

    Returns:
        0 where there is none, or `step` is something else.
    """
    if not issubclass(step.kind, layers.BatchNormalization):
        return 0
    gamma = step.weights[0] if step.config["scale"] else np.float64(1)
    place = 2 if _kind_of_last(steps, layers.MaxPooling2D) and (gamma >= 0).all() else 1
    if not _kind_of_last(steps[: len(steps) - place + 1], layers.Conv2D):
        return 0
    return place if steps[-place].config["activation"] == "linear" else 0


def _kind_of_last(steps: list[_Step], kind: type[layers.Layer]) -> bool:
    return bool(steps) and issubclass(steps[-1].kind, kind)


def _with_batch_norm(convolution: _Step, batch_norm: _Step) -> _Step:
    """Folds y = (x - mean) / sqrt(variance + epsilon) * gamma + beta into kernel and bias."""
    kernel, *rest = convolution.weights
    bias = rest[0] if rest else np.float64(0)
    *gamma_and_beta, mean, variance = batch_norm.weights
    config = batch_norm.config
    gamma = gamma_and_beta.pop(0) if config["scale"] else np.float64(1)
    beta = gamma_and_beta.pop(0) if config["center"] else np.float64(0)
    scale = gamma / np.sqrt(variance + config["epsilon"])  # (filters,)
    return _Step(
        convolution.kind,
        {**convolution.config, "use_bias": True},
        [kernel * scale, (bias - mean) * scale + beta],
    )


def _with_scale(rescaling: _Step, convolution: _Step) -> list[_Step]:
    """Splits y = x * scale + offset: the shift stays a layer, the kernel takes the scale."""
    scale, offset = (np.asarray(rescaling.config[name]) for name in ("scale", "offset"))
    kernel, *bias = convolution.weights  # (height, width, channels, filters)
    shift = {"name": rescaling.config["name"], "offset": (offset / scale).tolist()}
    return [
        _Step(_Shift, shift, []),
        convolution._replace(weights=[kernel * scale[..., np.newaxis], *bias]),
    ]
