"""Encoded image of any format and size -> what the model takes: TensorFlow operations alone.

So `export` can put the same operations into its graph. `keras_cifar.image.header.check_header`
comes before them wherever an image may be hostile: a graph has no way to refuse one in time.
"""

import tensorflow as tf

from keras_cifar.cifar10 import IMAGE_SHAPE


def image_from_bytes(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image, cuts the largest square from its middle and scales that to 32 x 32.

    What is transparent becomes white; of an animated GIF the first frame counts; 16-bit channels
    keep their upper 8 bits; EXIF orientation is not looked at. Scaling is bilinear, with
    antialiasing where it makes smaller; an opaque 32 x 32 image passes unchanged, bit for bit.

    Args:
        encoded: string (), PNG, JPEG, BMP, GIF or WebP (not animated).

    Returns:
        uint8 (32, 32, 3), red-green-blue.

    Raises:
        tf.errors.InvalidArgumentError: it cannot be decoded.
    """
    safe = tf.where(_is_animated_webp(encoded), "", encoded)  # "" is no image, and says so
    pixels = tf.io.decode_image(safe, expand_animations=False)
    pixels.set_shape([None, None, None])
    return _resized(_without_alpha(_central_square(pixels)))


def _is_animated_webp(encoded: tf.Tensor) -> tf.Tensor:
    # TensorFlow 2.21 writes all frames of these into the memory of one, and crashes or worse.
    start = tf.io.decode_raw(encoded, tf.uint8, fixed_length=21)  # zeros where it is shorter
    is_extended = tf.reduce_all(start[8:16] == tf.constant(list(b"WEBPVP8X"), tf.uint8))
    return is_extended & (tf.bitwise.bitwise_and(start[20], tf.constant(2, tf.uint8)) > 0)


def _central_square(pixels: tf.Tensor) -> tf.Tensor:
    height, width, _ = tf.unstack(tf.shape(pixels))
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _without_alpha(pixels: tf.Tensor) -> tf.Tensor:
    """Returns 1 or 3 channels of 1 (grey), 2 (grey, alpha), 3 or 4 (colours, alpha)."""
    return tf.cond(
        tf.shape(pixels)[-1] % 2 == 0,
        lambda: _on_white(pixels[..., :-1], alpha=pixels[..., -1:]),
        lambda: pixels,
    )


def _on_white(colours: tf.Tensor, *, alpha: tf.Tensor) -> tf.Tensor:
    # Many 32-bit BMPs leave alpha at 0 and mean an opaque image.
    alpha = tf.where(tf.reduce_max(alpha) == 0, tf.constant(255, tf.uint8), alpha)
    # In 16 bits, of which 255 * 255 + 127 just has need: a large image takes half of float32's.
    colours, alpha = tf.cast(colours, tf.uint16), tf.cast(alpha, tf.uint16)
    mixed = (colours * alpha + 255 * (255 - alpha) + 127) // 255
    return tf.cast(mixed, tf.uint8)


def _resized(pixels: tf.Tensor) -> tf.Tensor:
    height, width, _ = IMAGE_SHAPE
    scaled = tf.image.resize(pixels, [height, width], antialias=True)
    colours = tf.broadcast_to(scaled, IMAGE_SHAPE)  # grey becomes red, green and blue
    return tf.saturate_cast(tf.round(colours), tf.uint8)
