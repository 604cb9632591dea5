"""Bytes of an encoded image, read by TensorFlow operations: for graphs, which run no Python."""

import tensorflow as tf

_HEAD_BYTES = 1 << 17


def bytes_at(encoded: tf.Tensor, position: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """Returns int64 (count,) in 0..255; zeros for what is beyond the end.

    Args:
        encoded: string ().
        position: 0 or more.
        count: at least 1.
    """
    start = tf.minimum(tf.cast(position, tf.int64), length_of(encoded))
    part = tf.strings.substr(encoded, start, tf.cast(count, tf.int64))
    return tf.cast(
        tf.io.decode_raw(part, tf.uint8, fixed_length=tf.cast(count, tf.int32)), tf.int64
    )


def contains(encoded: tf.Tensor, pattern: str) -> tf.Tensor:
    """Tells whether a pattern of RE2 is in what comes before the pixels, or else among them."""
    head = tf.strings.substr(encoded, 0, _HEAD_BYTES)
    return tf.strings.regex_full_match(head, rf"(?s)\C*(?:{pattern})\C*")


def with_bytes(encoded: tf.Tensor, position: tf.Tensor, replacement: bytes) -> tf.Tensor:
    """Returns the image with other bytes at a position, which is int64 () and within it."""
    length = length_of(encoded)
    behind = tf.minimum(position + len(replacement), length)
    before = tf.strings.substr(encoded, tf.constant(0, tf.int64), position)
    return tf.strings.join([before, replacement, tf.strings.substr(encoded, behind, length)])


def length_of(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the number of bytes, int64 ()."""
    return tf.cast(tf.strings.length(encoded), tf.int64)
