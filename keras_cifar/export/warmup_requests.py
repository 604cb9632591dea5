"""Requests that TensorFlow Serving sends to itself before a version counts as available."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_cifar.serving import (
    BATCHING,
    BYTES_INPUT,
    BYTES_SIGNATURE,
    IMAGE_INPUT,
    IMAGE_SIGNATURE,
    MODEL_NAME,
    WARMUP_FILE,
)


def write_warmup(folder: Path, *, images: npt.NDArray[np.uint8]) -> None:
    """Writes a request for each signature and each batch size, so that no user's is the first.

    Args:
        folder: of the SavedModel.
        images: uint8 (n, 32, 32, 3), n at least 1; they are used again where there are too few.
    """
    path = folder / WARMUP_FILE
    path.parent.mkdir()
    sizes = sorted({size for each in BATCHING.values() for size in each.allowed_batch_sizes})
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in sizes:
            pixels = np.resize(images, (size, *images.shape[1:]))
            encoded = [tf.io.encode_png(image).numpy() for image in pixels]
            writer.write(prediction_log(IMAGE_SIGNATURE, IMAGE_INPUT, tensor=pixels))
            writer.write(prediction_log(BYTES_SIGNATURE, BYTES_INPUT, tensor=encoded))


def prediction_log(signature: str, name: str, *, tensor: npt.ArrayLike) -> bytes:
    """Serialises a tensorflow.serving.PredictionLog: a Predict request of one signature and input.

    Encoded by hand: the official classes (tensorflow-serving-api) are in the extra "serve" alone,
    and an export needs none; classes made at run time would be twice this code. The field numbers
    are those of model.proto, predict.proto and prediction_log.proto.
    """
    model_spec = _field(1, MODEL_NAME.encode()) + _field(3, signature.encode())
    value = tf.make_tensor_proto(tensor).SerializeToString()
    entry = _field(1, name.encode()) + _field(2, value)
    request = _field(1, model_spec) + _field(2, entry)
    return _field(6, _field(1, request))


def _field(number: int, content: bytes) -> bytes:
    """Encodes a field of a message, string or bytes: its key, its length, its content."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Encodes a number in groups of 7 bits, lowest first; all but the last have the top bit set."""
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
