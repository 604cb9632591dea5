"""The first frame of a GIF, on white: TensorFlow operations alone.

TensorFlow's decoder shows what is transparent black, or in whatever colour the palette has there,
and a frame that is smaller than its image cut off, or without what surrounds it.
"""

import tensorflow as tf

from keras_cifar.image.contents import bytes_at, length_of, with_bytes

_EXTENSION, _GRAPHIC_CONTROL = 0x21, 0xF9
_FLAGS = 3  # where they stand in a graphic control extension
# What comes before the frame, in blocks of up to 255 bytes. There could be millions.
_MAX_BLOCKS = 1000


def decode_gif(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a GIF.

    Args:
        encoded: string ().

    Returns:
        uint8 (height, width, 3) of the first frame, put where it belongs in a white image.

    Raises:
        tf.errors.InvalidArgumentError: it cannot be decoded.
    """
    frame, control = _first_frame(encoded)
    white = _with_white_for_transparent(encoded, frame=frame, control=control)
    # At the upper left corner the decoder cuts nothing off.
    moved = with_bytes(white, frame + 1, bytes(4))
    return _in_its_place(
        tf.io.decode_image(moved, expand_animations=False),
        screen=_numbers(encoded, 6, count=2),
        corner=_numbers(encoded, frame + 1, count=2),
    )


def _first_frame(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns where the first frame and its graphic control extension begin; 0 without one.

    GIF89a, section 20 and following: extensions, each a label and blocks of data, each led by
    its length, up to an empty one.
    """

    def is_before(position: tf.Tensor, is_data: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return is_data | (bytes_at(encoded, position, 1)[0] == _EXTENSION)

    def step(
        position: tf.Tensor, is_data: tf.Tensor, control: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        first, second = tf.unstack(bytes_at(encoded, position, 2))
        is_control = ~is_data & (second == _GRAPHIC_CONTROL)
        return (
            position + tf.where(is_data, 1 + first, 2),
            ~is_data | (first > 0),
            tf.where(is_control, position, control),
        )

    start = 13 + _table_bytes(bytes_at(encoded, 10, 1)[0])
    first = start, tf.constant(value=False), tf.constant(0, tf.int64)
    frame, _, control = tf.while_loop(is_before, step, first, maximum_iterations=_MAX_BLOCKS)
    return tf.minimum(frame, length_of(encoded)), control


def _table_bytes(packed: tf.Tensor) -> tf.Tensor:
    """Returns the size of a palette from the byte that tells of it; 0 if there is none."""
    entries = tf.bitwise.left_shift(tf.constant(2, tf.int64), packed % 8)
    return tf.where(packed >= 0x80, 3 * entries, 0)


def _with_white_for_transparent(
    encoded: tf.Tensor, *, frame: tf.Tensor, control: tf.Tensor
) -> tf.Tensor:
    """Returns the GIF with white in its palette, and in no need of transparency."""
    own_table = bytes_at(encoded, frame + 9, 1)[0]
    has_own = own_table >= 0x80
    size = _table_bytes(tf.where(has_own, own_table, bytes_at(encoded, 10, 1)[0]))
    flags, _, _, index = tf.unstack(bytes_at(encoded, control + _FLAGS, 4))
    position = tf.where(has_own, frame + 10, 13) + 3 * index
    return tf.cond(
        (control > 0) & (flags % 2 == 1) & (3 * index < size),
        lambda: with_bytes(with_bytes(encoded, position, b"\xff\xff\xff"), control + _FLAGS, b"\0"),
        lambda: encoded,
    )


def _in_its_place(pixels: tf.Tensor, *, screen: tf.Tensor, corner: tf.Tensor) -> tf.Tensor:
    """Returns a frame with white around it, as large as the image it is for, or as it is itself.

    Args:
        pixels: uint8 (height, width, 3).
        screen: the image's width and height.
        corner: left and top of the frame in it; beyond it, the nearest place within it counts.
    """
    room = tf.maximum(screen[::-1] - tf.shape(pixels, tf.int64)[:2], 0)
    before = tf.minimum(corner[::-1], room)
    margins = tf.pad(tf.stack([before, room - before], axis=1), [[0, 1], [0, 0]])
    return tf.pad(pixels, margins, constant_values=255)


def _numbers(encoded: tf.Tensor, position: tf.Tensor | int, *, count: int) -> tf.Tensor:
    """Returns numbers of 16 bits, the lower 8 first."""
    pairs = tf.reshape(bytes_at(encoded, position, 2 * count), [count, 2])
    return pairs[:, 0] + 256 * pairs[:, 1]
