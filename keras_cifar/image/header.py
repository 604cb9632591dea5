"""What an encoded image claims to be, read from its first bytes: nothing is decoded here.

Pillow reads headers too, but does more than a limit may, or sees something else than TensorFlow's
decoder will. It unpacks the texts of a PNG and refuses a wrong checksum, decodes each frame of a
GIF to reach the next, makes room for the canvas of a WebP, prints warnings about a JPEG's EXIF, and
reads BMPs of OS/2, whose fields TensorFlow takes for others.
"""

import struct
from typing import NamedTuple

# A decoder takes 3 to 4 bytes for each pixel that a header claims, whatever the file's size.
MAX_PIXELS = 100_000_000
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WebP")
# Before a JPEG's size. Cameras write dozens; in 64 MB is room for millions, which take 10 s.
_MAX_MARKERS = 10_000
# Red, green and blue in a pixel of 32 bits.
_BMP_MASKS = (0xFF0000, 0xFF00, 0xFF)
# How images begin that TensorFlow has no decoder for.
_OTHER_FORMATS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\0\0\1\0": "ICO",
    b"8BPS": "Photoshop's format",
    b"%PDF": "PDF",
    b"<svg": "SVG",
}
# ISO/IEC 23008-12, annex B, and AV1 Image File Format, section 7: brands of what is in the file.
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIC",
    b"msf1": "HEIC",
}


class Header(NamedTuple):
    """Format and size that an encoded image claims.

    Attributes:
        format: one of `FORMATS`.
        width: pixels.
        height: pixels.
        frames: pictures of that size that the decoder unpacks; above 1 for animated GIFs only.
    """

    format: str
    width: int
    height: int
    frames: int = 1


def check_header(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Reads format and size of an encoded image.

    Args:
        encoded: at least its beginning.
        max_pixels: of all its frames together.

    Returns:
        A header that is safe to decode; the pixels behind it may still be damaged.

    Raises:
        ValueError: not one of `FORMATS`, more than `max_pixels`, or of a kind that
            TensorFlow decodes wrongly: an animated WebP, a BMP with a palette, compressed, or with
            channels of another order.
    """
    try:
        header = _read(encoded)
    except (struct.error, IndexError) as error:
        raise ValueError("the image is damaged: it ends within its header") from error
    if header.width < 1 or header.height < 1:
        raise ValueError(f"the image is damaged: it claims {header.width} x {header.height} pixels")
    if header.width * header.height * header.frames > max_pixels:
        frames = f" in {header.frames} frames" if header.frames > 1 else ""
        raise ValueError(
            f"the image claims {header.width:,} x {header.height:,} pixels{frames}; "
            f"at most {max_pixels:,} are read. Make it smaller"
        )
    return header


def _read(encoded: bytes) -> Header:
    if not encoded:
        raise ValueError("the file is empty")
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return Header("PNG", *struct.unpack_from(">II", encoded, 16))
    if encoded.startswith(b"\xff\xd8\xff"):
        return _read_jpeg(encoded)
    if encoded.startswith((b"GIF87a", b"GIF89a")):
        return _read_gif(encoded)
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return _read_webp(encoded)
    if encoded.startswith(b"BM"):
        return _read_bmp(encoded)
    if other := _other_format(encoded):
        raise ValueError(f"an image in {other}, which cannot be read. Save it as PNG or JPEG")
    raise ValueError(f"not an image that can be read; expected {', '.join(FORMATS)}")


def _other_format(encoded: bytes) -> str | None:
    if encoded[4:8] == b"ftyp":
        brands = encoded[8 : min(64, int.from_bytes(encoded[:4], "big"))]
        return next((name for brand, name in _BRANDS.items() if brand in brands), None)
    found = (name for start, name in _OTHER_FORMATS.items() if encoded.startswith(start))
    return next(found, None)


def _read_jpeg(encoded: bytes) -> Header:
    """ITU-T T.81, B.2: segments of marker and length, up to the frame header that has the size."""
    position = 2
    for _ in range(_MAX_MARKERS):
        position = encoded.find(b"\xff", position)
        if position < 0:
            raise struct.error
        marker = encoded[position + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # without a length
            position += 1
            continue
        if marker in (0xD9, 0xDA):  # end, or pixels before any frame header
            raise struct.error
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", encoded, position + 5)
            return Header("JPEG", width, height)
        position += 2 + max(2, struct.unpack_from(">H", encoded, position + 2)[0])
    raise ValueError(f"the image is damaged: no size within {_MAX_MARKERS:,} markers")


def _read_gif(encoded: bytes) -> Header:
    """GIF89a: the largest frame's size, and all frames, for the decoder unpacks them all."""
    width, height, packed = struct.unpack_from("<HHB", encoded, 6)
    position = 13 + _colour_table_bytes(packed)
    frames = 0
    while position < len(encoded) and encoded[position] != 0x3B:
        if encoded[position] == 0x2C:
            frame_width, frame_height, packed = struct.unpack_from("<HHB", encoded, position + 5)
            width, height = max(width, frame_width), max(height, frame_height)
            frames += 1
            position += 11 + _colour_table_bytes(packed)
        else:
            position += 2
        while encoded[position]:  # blocks of data, each led by its length, up to an empty one
            position += 1 + encoded[position]
        position += 1
    return Header("GIF", width, height, max(1, frames))


def _colour_table_bytes(packed: int) -> int:
    return 3 * 2 ** ((packed & 7) + 1) if packed & 0x80 else 0


def _read_webp(encoded: bytes) -> Header:
    """RFC 9649, section 2: one of three kinds of first chunk."""
    kind = encoded[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", encoded, 26)
        return Header("WebP", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", encoded, 21)
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        # TensorFlow 2.21 writes all frames into the memory of one, and crashes or worse.
        if encoded[20] & 2:
            raise ValueError("an animated WebP image, which cannot be read. Save a frame as PNG")
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", encoded, 24)
        return Header(
            "WebP", (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
        )
    raise ValueError("the image is damaged: a WebP without pixels")


def _read_bmp(encoded: bytes) -> Header:
    """BITMAPINFOHEADER and its successors."""
    info_size, width, height = struct.unpack_from("<Iii", encoded, 14)
    bits, compression = struct.unpack_from("<HI", encoded, 28)
    # TensorFlow would take the compressed bytes for pixels, and palette positions for greys.
    if compression not in (0, 3):
        raise ValueError("a compressed BMP, which cannot be read. Save it as PNG")
    # It would take the colours in their usual order, wherever the masks say that they are.
    if compression == 3 and struct.unpack_from("<III", encoded, 54) != _BMP_MASKS:
        raise ValueError(
            "a BMP with channels of its own order, which cannot be read. Save it as PNG"
        )
    if bits <= 8 and not _has_grey_palette(encoded, start=14 + info_size):
        raise ValueError("a BMP with a palette, which cannot be read. Save it as PNG")
    return Header("BMP", width, abs(height))  # a negative height only means top row first


def _has_grey_palette(encoded: bytes, *, start: int) -> bool:
    colours = encoded[start : start + 4 * 256]
    grey = bytes(range(256))
    return all(colours[channel::4] == grey for channel in range(3))
