"""Encoded image of any format and size -> what the model takes: TensorFlow operations alone.

So `export` can put the same operations into its graph, and an image gets the same answer whichever
way it is asked about. `keras_cifar.image.header.check_header` comes before them wherever an image
may be hostile: a graph has no way to refuse one in time.
"""

import tensorflow as tf

from keras_cifar.cifar10 import IMAGE_SHAPE
from keras_cifar.image.contents import contains
from keras_cifar.image.exif import orientation
from keras_cifar.image.gif import decode_gif

# By EXIF orientation, of which there is no 0: are the rows to be reversed, are the columns, and are
# both then to be exchanged?
_TURNS = [
    (0, 0, 0),
    (0, 0, 0),
    (0, 1, 0),
    (1, 1, 0),
    (1, 0, 0),
    (0, 0, 1),
    (1, 0, 1),
    (1, 1, 1),
    (0, 1, 1),
]


def image_from_bytes(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image, cuts the largest square from its middle and scales that to 32 x 32.

    It is turned upright as its EXIF data say. What is transparent becomes white; of an animated GIF
    the first frame counts; 16-bit channels keep their upper 8 bits. Scaling is bilinear, with
    antialiasing where it makes smaller; an opaque 32 x 32 image passes unchanged, bit for bit.

    Args:
        encoded: string (), PNG, JPEG, BMP, GIF or WebP (not animated).

    Returns:
        uint8 (32, 32, 3), red-green-blue.

    Raises:
        tf.errors.InvalidArgumentError: it cannot be decoded.
    """
    # Apart, as it takes as long as all the rest of a small image, which seldom has need of it.
    scaled = tf.cond(
        contains(encoded, r"^BM|^GIF8|tRNS|eXIf|Exif\x00\x00"),
        lambda: _scaled_with_care(encoded),
        lambda: _scaled(_decoded(encoded)),
    )
    return tf.saturate_cast(tf.round(scaled), tf.uint8)


def _scaled_with_care(encoded: tf.Tensor) -> tf.Tensor:
    start = tf.strings.substr(encoded, 0, 2)
    pixels = tf.case(
        [
            (start == b"BM", lambda: _without_unused_alpha(_decoded(encoded))),
            (start == b"GI", lambda: decode_gif(encoded)),
            # Only where alpha is asked for, a colour that stands for transparency becomes it.
            (start == b"\x89P", lambda: tf.io.decode_png(encoded, channels=4)),
        ],
        default=lambda: _decoded(encoded),
    )
    rows, columns, exchanged = tf.unstack(tf.gather(_TURNS, orientation(encoded)))
    scaled = _scaled(pixels, rounding=(rows, columns))
    scaled = tf.where(rows > 0, scaled[::-1], scaled)
    scaled = tf.where(columns > 0, scaled[:, ::-1], scaled)
    return tf.where(exchanged > 0, tf.transpose(scaled, [1, 0, 2]), scaled)


def _without_unused_alpha(pixels: tf.Tensor) -> tf.Tensor:
    # Many 32-bit BMPs leave alpha at 0 and mean an opaque image.
    return tf.cond(tf.reduce_max(pixels[..., 3:]) == 0, lambda: pixels[..., :3], lambda: pixels)


def _decoded(encoded: tf.Tensor) -> tf.Tensor:
    # "" is no image, and says so.
    safe = tf.where(_is_animated_webp(encoded), "", encoded)
    return tf.io.decode_image(safe, expand_animations=False)


def _is_animated_webp(encoded: tf.Tensor) -> tf.Tensor:
    # TensorFlow 2.21 writes all frames of these into the memory of one, and crashes or worse.
    start = tf.io.decode_raw(encoded, tf.uint8, fixed_length=21)  # zeros where it is shorter
    is_extended = tf.reduce_all(start[8:16] == tf.constant(list(b"WEBPVP8X"), tf.uint8))
    return is_extended & (tf.bitwise.bitwise_and(start[20], tf.constant(2, tf.uint8)) > 0)


def _scaled(
    pixels: tf.Tensor, *, rounding: tuple[tf.Tensor | int, tf.Tensor | int] = (0, 0)
) -> tf.Tensor:
    """Returns 32 x 32 of the largest square in the middle, float32.

    Args:
        pixels: uint8 (height, width, 1 to 4).
        rounding: 1 for the lower, and for the right of two middles, 0 for the other.
    """
    pixels.set_shape([None, None, None])
    height, width, _ = tf.unstack(tf.shape(pixels))
    side = tf.minimum(height, width)
    top, left = (height - side + rounding[0]) // 2, (width - side + rounding[1]) // 2
    square = _without_alpha(pixels[top : top + side, left : left + side])
    scaled = tf.image.resize(square, IMAGE_SHAPE[:2], antialias=True)
    return tf.broadcast_to(scaled, IMAGE_SHAPE)  # grey becomes red, green and blue


def _without_alpha(pixels: tf.Tensor) -> tf.Tensor:
    """Returns 1 or 3 channels of 1 (grey), 2 (grey, alpha), 3 or 4 (colours, alpha)."""
    return tf.cond(
        tf.shape(pixels)[-1] % 2 == 0,
        lambda: _on_white(pixels[..., :-1], alpha=pixels[..., -1:]),
        lambda: pixels,
    )


def _on_white(colours: tf.Tensor, *, alpha: tf.Tensor) -> tf.Tensor:
    # In 16 bits, of which 255 * 255 + 127 just has need: a large image takes half of float32's.
    colours, alpha = tf.cast(colours, tf.uint16), tf.cast(alpha, tf.uint16)
    mixed = (colours * alpha + 255 * (255 - alpha) + 127) // 255
    return tf.cast(mixed, tf.uint8)
