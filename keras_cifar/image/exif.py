"""How a camera says that its photo was held: TensorFlow operations alone."""

import tensorflow as tf

from keras_cifar.image.contents import bytes_at, length_of

_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1
_APP1, _START_OF_SCAN = 0xE1, 0xDA
# EXIF comes among the first. There could be millions of parts, and each takes 30 us.
_MAX_PARTS = 100
_ENTRY_BYTES = 12


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Reads how an image is to be turned or mirrored (CIPA DC-008, EXIF 2.32, section 4.6.4).

    Args:
        encoded: string (). What is neither JPEG nor PNG is taken to be upright, as browsers do.

    Returns:
        int64 (), 1 (upright) to 8; 1 as well where nothing, or nothing that makes sense, is said.
    """
    start = tf.strings.substr(encoded, 0, 3)
    nowhere, upright = tf.constant(0, tf.int64), tf.constant(_UPRIGHT, tf.int64)
    position = tf.case(
        [
            (start == b"\xff\xd8\xff", lambda: _in_jpeg(encoded)),
            (start == b"\x89PN", lambda: _in_png(encoded)),
        ],
        default=lambda: nowhere,
    )
    return tf.cond(position > 0, lambda: _of_tiff(encoded, position), lambda: upright)


def _in_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Returns where the EXIF data begin; 0 without any.

    ITU-T T.81, B.1.1.4: segments of marker and length, up to the scan.
    """

    def is_exif(position: tf.Tensor) -> tf.Tensor:
        head = bytes_at(encoded, position, 10)
        expected = tf.constant([*b"Exif\0\0"], tf.int64)
        return (head[1] == _APP1) & tf.reduce_all(head[4:] == expected)

    def is_other(position: tf.Tensor) -> tf.Tensor:
        prefix, marker = tf.unstack(bytes_at(encoded, position, 2))
        return (prefix == 0xFF) & (marker != _START_OF_SCAN) & ~is_exif(position)

    def following(position: tf.Tensor) -> list[tf.Tensor]:
        _, marker, high, low = tf.unstack(bytes_at(encoded, position, 4))
        return [
            position + tf.where(marker != 0xFF, 2 + 256 * high + low, 1)
        ]  # 0xFF may be repeated

    (position,) = tf.while_loop(
        is_other, following, [tf.constant(2, tf.int64)], maximum_iterations=_MAX_PARTS
    )
    return tf.where(is_exif(position), position + 10, 0)


def _in_png(encoded: tf.Tensor) -> tf.Tensor:
    """Returns where the EXIF data begin; 0 without any before the pixels.

    PNG, third edition, section 5.3: chunks of length, type, data and checksum.
    """

    def kind(position: tf.Tensor) -> tf.Tensor:
        start = tf.minimum(position + 4, length_of(encoded))
        return tf.strings.substr(encoded, start, tf.constant(4, tf.int64))

    def is_other(position: tf.Tensor) -> tf.Tensor:
        return tf.reduce_all(kind(position) != [b"eXIf", b"IDAT", b""])

    def following(position: tf.Tensor) -> list[tf.Tensor]:
        return [position + 12 + _number(bytes_at(encoded, position, 4))]

    (position,) = tf.while_loop(
        is_other, following, [tf.constant(8, tf.int64)], maximum_iterations=_MAX_PARTS
    )
    return tf.where(kind(position) == b"eXIf", position + 8, 0)


def _of_tiff(encoded: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Reads the first directory of what is a TIFF file within the image (TIFF 6.0, section 2)."""
    is_little_endian = bytes_at(encoded, start, 1)[0] == ord("I")

    def number(digits: tf.Tensor) -> tf.Tensor:
        return tf.where(is_little_endian, _number(digits[..., ::-1]), _number(digits))

    directory = start + number(bytes_at(encoded, start + 4, 4))
    count = tf.maximum(number(bytes_at(encoded, directory, 2)), 1)
    entries = bytes_at(encoded, directory + 2, _ENTRY_BYTES * count)
    entries = tf.reshape(entries, [-1, _ENTRY_BYTES])
    tags, values = number(entries[:, :2]), number(entries[:, 8:10])
    found = tf.reduce_max(tf.where(tags == _ORIENTATION_TAG, values, _UPRIGHT))
    return tf.where((found >= 1) & (found <= 8), found, _UPRIGHT)


def _number(digits: tf.Tensor) -> tf.Tensor:
    """Returns the number of bytes (..., n), the highest first."""
    powers = [256**power for power in reversed(range(digits.shape[-1]))]
    return tf.reduce_sum(digits * tf.constant(powers, tf.int64), axis=-1)
