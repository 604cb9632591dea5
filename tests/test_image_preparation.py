"""Turned photos and transparent drawings: the same pixels and answers by every way to ask."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from keras_cifar.client import GrpcClient, RestClient, predict_files, prepare_image
from keras_cifar.image.decode import image_from_bytes
from keras_cifar.image.header import check_header

Turn = Image.Transpose
# How a camera stores what it was held otherwise for, by the EXIF orientation that says so.
STORED = {
    1: None,
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_90,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_270,
}


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation, *, order=">", before=()):
    """A TIFF directory with an orientation, and other entries before it."""
    entries = [*before, (0x0112, 3, 1, orientation)]
    head = {">": b"MM\0*", "<": b"II*\0"}[order] + struct.pack(order + "IH", 8, len(entries))
    packed = [
        struct.pack(order + "HHIHH", tag, kind, count, value, 0)
        for tag, kind, count, value in entries
    ]
    return b"Exif\0\0" + head + b"".join(packed) + bytes(4)


def photo(sample, *, orientation=1, size=(301, 200), **options):
    """A JPEG that is upright when it is turned as its orientation says."""
    picture = Image.fromarray(sample.images[7]).resize(size)
    if STORED[orientation] is not None:
        picture = picture.transpose(STORED[orientation])
    return encode(picture, "JPEG", quality=100, **{"exif": exif(orientation), **options})


def difference(found, expected):
    return np.abs(found.astype(int) - expected.astype(int))


# Orientation


@pytest.mark.parametrize("orientation", STORED)
def test_a_photo_is_turned_as_its_exif_data_say(sample, orientation):
    encoded = photo(sample, orientation=orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    assert upright.size == (301, 200)
    found = prepare_image(encoded)
    # TensorFlow's decoder of JPEG is a faster and coarser one.
    assert difference(found, prepare_image(encode(upright, "PNG"))).max() <= 6
    others = [photo(sample, orientation=orientation, exif=exif(other)) for other in STORED]
    nearest = np.argmin([difference(prepare_image(other), found).mean() for other in others])
    assert list(STORED)[nearest] == orientation


def test_the_middle_is_the_same_one_however_the_photo_was_held(sample):
    """A margin of one pixel, of which one half cannot be cut off on both sides."""
    for size in ((33, 32), (32, 33)):
        upright = prepare_image(photo(sample, size=size))
        for orientation in STORED:
            found = prepare_image(photo(sample, orientation=orientation, size=size))
            assert difference(found, upright).mean() < 3, (size, orientation)


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_in_either_byte_order_and_among_other_entries(sample, order):
    before = [(0x010F, 3, 1, 6), (0x0112 << 4 & 0xFFFF, 3, 1, 3)]
    encoded = photo(sample, orientation=8, exif=exif(8, order=order, before=before))
    assert difference(prepare_image(encoded), prepare_image(photo(sample))).max() <= 6


def test_orientation_is_read_behind_other_segments(sample):
    encoded = photo(sample, orientation=6)
    profile = b"\xff\xe2" + struct.pack(">H", 40_002) + bytes(40_000)
    comment = b"\xff\xff\xfe\0\x04hi"  # a byte of filling before the marker
    behind = encoded[:2] + profile + comment + encoded[2:]
    np.testing.assert_array_equal(prepare_image(behind), prepare_image(encoded))


def test_a_png_is_turned_and_a_webp_is_not_as_in_a_browser(sample):
    stored = Image.fromarray(sample.images[7])
    turned = stored.transpose(Turn.ROTATE_270)
    for kind, expected in (("PNG", turned), ("WEBP", stored)):
        encoded = encode(stored, kind, exif=exif(6), lossless=True)
        np.testing.assert_array_equal(prepare_image(encoded), np.asarray(expected), err_msg=kind)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_means_upright(sample, value):
    np.testing.assert_array_equal(
        prepare_image(photo(sample, exif=exif(value))), prepare_image(photo(sample))
    )


@given(data=st.binary(max_size=60))
@settings(max_examples=30)
def test_damaged_exif_data_cost_no_photo_its_answer(sample, data):
    for start in (b"", b"MM\0*\0\0\0\x08", b"II*\0\x08\0\0\0"):
        for kind in ("JPEG", "PNG"):
            picture = Image.fromarray(sample.images[7])
            damaged = encode(picture, kind, exif=b"Exif\0\0" + start + data)
            assert prepare_image(damaged).shape == (32, 32, 3)


# Transparency


@pytest.fixture(scope="module")
def drawing(sample):
    """63 colours and, in index 63, what is transparent: black, as editors leave it."""
    drawing = Image.fromarray(sample.images[3]).quantize(63)
    indices = np.array(drawing)
    indices[:, :12] = 63
    found = Image.fromarray(indices, "P")
    found.putpalette([*drawing.getpalette()[: 3 * 63], 0, 0, 0])
    return found


@pytest.fixture(scope="module")
def on_white(drawing):
    expected = np.array(drawing.convert("RGB"))
    expected[:, :12] = 255
    return expected


def with_own_palette(gif):
    """Moves the palette of a GIF from its head to its frame."""
    size = 3 * 2 ** ((gif[10] & 7) + 1)
    table, rest = gif[13 : 13 + size], bytearray(gif[13 + size :])
    frame = rest.index(b"\x2c\0\0\0\0")
    rest[frame + 9] |= 0x80 | gif[10] & 7
    return (
        gif[:10]
        + bytes([gif[10] & 0x70])
        + gif[11:13]
        + rest[: frame + 10]
        + table
        + rest[frame + 10 :]
    )


def test_transparency_of_every_format_becomes_white(drawing, on_white):
    gif = encode(drawing, "GIF", transparency=63, optimize=False)
    rgba = Image.open(io.BytesIO(gif)).convert("RGBA")
    commented = encode(drawing, "GIF", transparency=63, comment=b"x" * 1000)
    ways = {
        "GIF": gif,
        "GIF with its own palette": with_own_palette(gif),
        "GIF with a comment": commented,
        "PNG with a palette": encode(drawing, "PNG", transparency=63),
        "PNG with alpha": encode(rgba, "PNG"),
        "PNG with a colour key": encode(drawing.convert("RGB"), "PNG", transparency=(0, 0, 0)),
        "WebP": encode(rgba, "WEBP", lossless=True, exact=True),
    }
    for way, encoded in ways.items():
        np.testing.assert_array_equal(prepare_image(encoded), on_white, err_msg=way)


def test_a_grey_that_stands_for_transparency_becomes_white(sample):
    grey = np.maximum(sample.images[0, :, :, 0], 1)
    grey[5:9] = 0
    expected = np.where(grey == 0, 255, grey)
    for pixels in (grey, grey.astype(np.uint16) << 8):
        encoded = encode(Image.fromarray(pixels), "PNG", transparency=0)
        np.testing.assert_array_equal(prepare_image(encoded)[..., 1], expected)


def test_a_frame_smaller_than_its_image_is_shown_in_its_place_on_white(drawing, on_white):
    gif = bytearray(encode(drawing, "GIF", transparency=63, optimize=False))
    frame = gif.index(b"\x2c\0\0\0\0", 13 + 3 * 64)
    gif[6:10] = struct.pack("<HH", 40, 50)
    gif[frame + 1 : frame + 5] = struct.pack("<HH", 3, 11)
    expected = np.full((50, 40, 3), 255, np.uint8)
    expected[11:43, 3:35] = on_white
    whole = prepare_image(encode(Image.fromarray(expected), "PNG"))
    np.testing.assert_array_equal(prepare_image(bytes(gif)), whole)


def test_a_frame_that_is_said_to_be_far_away_takes_no_memory(drawing, on_white):
    gif = bytearray(encode(drawing, "GIF", transparency=63, optimize=False))
    frame = gif.index(b"\x2c\0\0\0\0", 13 + 3 * 64)
    gif[frame + 1 : frame + 5] = struct.pack("<HH", 65535, 65535)
    np.testing.assert_array_equal(prepare_image(bytes(gif)), on_white)


def test_what_is_transparent_everywhere_is_white_but_in_a_bmp(sample):
    image = Image.fromarray(np.dstack([sample.images[0], np.zeros((32, 32), np.uint8)]))
    for kind in ("PNG", "WEBP"):
        assert (prepare_image(encode(image, kind, lossless=True)) == 255).all()
    np.testing.assert_array_equal(prepare_image(encode(image, "BMP")), sample.images[0])


# Every way to ask


def test_a_turned_photo_and_a_transparent_drawing_get_one_answer_by_every_way(
    trained_run, exported, server, sample, drawing, tmp_path
):
    photos = [photo(sample, orientation=orientation) for orientation in STORED]
    drawings = [encode(drawing, kind, transparency=63) for kind in ("PNG", "GIF")]
    paths = [tmp_path / str(number) for number in range(10)]
    for path, encoded in zip(paths, photos + drawings, strict=True):
        path.write_bytes(encoded)
    with RestClient(server.url) as rest, GrpcClient(server.grpc) as by_grpc:
        ways = trained_run.model, exported.version, rest, by_grpc
        answers = [predict_files(paths, model=way) for way in ways]
    for upright, *rest_of_photos, png, gif in answers:
        for turned in rest_of_photos:
            assert turned.label == upright.label
            assert turned.probabilities == pytest.approx(upright.probabilities, abs=0.02)
        assert gif.probabilities == pytest.approx(png.probabilities, abs=1e-5)
    for other in answers[1:]:
        for found, expected in zip(other, answers[0], strict=True):
            # Of a mean that is just between two numbers, a graph may take the other one.
            assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-3)


def test_the_same_operations_work_in_a_graph(sample, drawing):
    in_graph = tf.function(image_from_bytes, input_signature=[tf.TensorSpec([], tf.string)])
    for encoded in (photo(sample, orientation=7), encode(drawing, "GIF", transparency=63)):
        found = in_graph(tf.constant(encoded)).numpy()
        assert difference(found, prepare_image(encoded)).max() <= 1


# Other formats


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50)),
        ("HEIC", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(50)),
        ("JPEG XL", b"\xff\x0a" + bytes(50)),
        ("PDF", b"%PDF-1.7"),
        ("TIFF", encode(Image.new("RGB", (9, 9)), "TIFF")),
        ("TIFF", encode(Image.new("RGB", (9, 9)), "TIFF", big_tiff=True)),
        ("AVIF", encode(Image.new("RGB", (9, 9)), "AVIF")),
        ("JPEG 2000", encode(Image.new("RGB", (9, 9)), "JPEG2000")),
        ("ICO", encode(Image.new("RGB", (16, 16)), "ICO")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_formats_that_cannot_be_read_are_named(name, encoded):
    expected = rf"^an image in {name}, which cannot be read\. Save it as PNG or JPEG$"
    with pytest.raises(ValueError, match=expected):
        check_header(encoded)


@pytest.mark.parametrize("part", [b"\xff", b"\xff\0", b"\xff\xfe\0\2"])
def test_a_jpeg_of_markers_without_end_is_given_up(sample, part):
    encoded = photo(sample)
    assert check_header(encoded[:2] + 9000 * part + encoded[2:]).width == 301
    with pytest.raises(ValueError, match="damaged: no size within 10,000 markers"):
        check_header(encoded[:2] + 10_000 * part + encoded[2:])


def test_a_film_is_no_image():
    with pytest.raises(ValueError, match=r"^not an image that can be read; expected PNG, JPEG"):
        check_header(b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(50))
