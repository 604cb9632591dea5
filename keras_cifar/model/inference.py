"""Trained classifier -> the same function in fewer operations, for inference alone."""

from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers

from keras_cifar.model.rewrite import Line, rewrite
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


def inference_model(model: keras.Model, *, precision: str, views: int = 1) -> keras.Model:
    """Builds what is exported of a model: the same function, and its softmax.

    Dropout is left out. A batch normalisation behind a convolution becomes part of its kernel
    and bias (Jacob et al., 2018, section 3.2). So does the scale of the input's normalisation; its
    offset stays, since a convolution pads the normalised images with zeros.

    Args:
        model: Sequential or Functional; images uint8 (n, 32, 32, 3) to logits (n, 10).
        precision: "float32", or "bfloat16" for weights and arithmetic, but for the input's
            offset, the logits and the softmax.
        views: of each image, as `keras_cifar.model.tta.with_views` takes them.

    Returns:
        Images uint8 (n, 32, 32, 3) to probabilities float32 (n, 10).

    Raises:
        ValueError: bfloat16 for a model that has models among its layers.
    """
    old = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    if precision != "float32" and any(isinstance(layer, keras.Model) for layer in old):
        raise ValueError(f"precision: got {precision!r}, expected float32 for this model.")
    weights: dict[str, list[npt.NDArray[np.float64]]] = {}

    def folded(layer: layers.Layer, line: Line) -> list[layers.Layer]:
        if not isinstance(layer, layers.Layer):  # an operation, of which a Functional has some
            return [layer]
        step = _step(layer, line)
        if not step:
            return []
        weights[layer.name] = step.weights
        if isinstance(layer, keras.Model):
            return [step.kind.from_config(step.config)]
        dtype = "float32" if layer in (old[0], old[-1]) else precision
        return [step.kind.from_config({**step.config, "dtype": dtype})]

    network = rewrite(model, folded)
    for name, values in weights.items():
        network.get_layer(name).set_weights(values)
    network = with_views(network, views)
    probabilities = layers.Softmax(dtype="float32", name="probabilities")(network.outputs[0])
    return keras.Model(network.inputs[0], probabilities)


def _step(layer: layers.Layer, line: Line) -> _Step | None:
    """Returns what takes the place of a layer, if anything does."""
    if isinstance(layer, layers.Dropout) or _is_folded(layer, line):
        return None
    if pair := _scale_and_offset(layer):
        return _rescaling(layer.name, *pair, folded=_takes_scale(line.behind(layer), pair[0]))
    weights = [np.asarray(value, np.float64) for value in layer.get_weights()]
    step = _Step(type(layer), layer.get_config(), weights)
    if type(layer) is not layers.Conv2D:
        return step
    if (pair := _scale_and_offset(line.before(layer))) and _takes_scale(layer, pair[0]):
        kernel, *bias = step.weights  # (height, width, channels, filters)
        scale, _ = pair
        step = step._replace(weights=[kernel * scale[..., np.newaxis], *bias])
    batch_norm = _batch_norm_of(layer, line)
    return _with_batch_norm(step, batch_norm) if batch_norm else step


def _scale_and_offset(
    layer: layers.Layer | None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Returns both for each channel, or for all; None for a layer that does something else."""
    if isinstance(layer, layers.Rescaling):
        scale, offset = (np.float64(value).ravel() for value in (layer.scale, layer.offset))
    elif isinstance(layer, layers.Normalization) and not layer.invert:
        mean, variance = (np.float64(value).ravel() for value in (layer.mean, layer.variance))
        deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())  # as the layer does
        scale, offset = 1 / deviation, -mean / deviation
    else:
        return None
    of_channels = {scale.size, offset.size} <= {1, layer.input.shape[-1]}
    return (scale, offset) if of_channels else None


def _takes_scale(layer: layers.Layer | None, scale: npt.NDArray[np.float64]) -> bool:
    """Tells whether the kernel of a layer can take over the scale of its images' channels."""
    is_plain = layer is not None and type(layer) is layers.Conv2D and layer.groups == 1
    return is_plain and bool(scale.all())


def _rescaling(
    name: str, scale: npt.NDArray[np.float64], offset: npt.NDArray[np.float64], *, folded: bool
) -> _Step:
    """Returns y = x * scale + offset; without the scale, where the kernel behind it has it."""
    if folded:
        return _Step(_Shift, {"name": name, "offset": (offset / scale).tolist()}, [])
    config = {"name": name, "scale": scale.tolist(), "offset": offset.tolist()}
    return _Step(layers.Rescaling, config, [])


def _batch_norm_of(convolution: layers.Layer, line: Line) -> layers.Layer | None:
    """Returns the batch normalisation behind a convolution that can become part of it.

    There may be a max pooling in between: what is largest stays so where nothing is negated.
    """
    layer = line.behind(convolution)
    is_pooled = isinstance(layer, layers.MaxPooling2D)
    batch_norm = line.behind(layer) if is_pooled else layer
    if not isinstance(batch_norm, layers.BatchNormalization) or batch_norm.axis not in (-1, 3):
        return None
    negates = batch_norm.scale and (np.asarray(batch_norm.gamma) < 0).any()
    is_linear = convolution.activation is keras.activations.linear
    return batch_norm if is_linear and not (is_pooled and negates) else None


def _is_folded(layer: layers.Layer, line: Line) -> bool:
    """Tells whether a layer is the batch normalisation that becomes part of a convolution."""
    before = line.before(layer)
    if isinstance(before, layers.MaxPooling2D):
        before = line.before(before)
    return type(before) is layers.Conv2D and _batch_norm_of(before, line) is layer


def _with_batch_norm(convolution: _Step, batch_norm: layers.BatchNormalization) -> _Step:
    """Folds y = (x - mean) / sqrt(variance + epsilon) * gamma + beta into kernel and bias."""
    kernel, *rest = convolution.weights
    bias = rest[0] if rest else 0
    *gamma_and_beta, mean, variance = (np.float64(value) for value in batch_norm.get_weights())
    gamma = gamma_and_beta.pop(0) if batch_norm.scale else 1
    beta = gamma_and_beta.pop(0) if batch_norm.center else 0
    scale = gamma / np.sqrt(variance + batch_norm.epsilon)  # (filters,)
    return convolution._replace(
        config={**convolution.config, "use_bias": True},
        weights=[kernel * scale, (bias - mean) * scale + beta],
    )
