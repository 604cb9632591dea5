import io
import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from dataclasses import asdict

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.client import Failure, Prediction, predict_files, prepare_image
from keras_cifar.image.decode import image_from_bytes
from keras_cifar.image.header import MAX_PIXELS, check_header
from keras_cifar.model.article import build_model
from keras_cifar.recipes import TrainConfig


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    build_model(seed=0).save(path / "model.keras")
    settings = asdict(TrainConfig(dataset="sample"))
    (path / "config.json").write_text(json.dumps({"settings": settings}))
    return path


def encode(pixels, kind, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def enlarged(image, factor=9):
    return np.kron(image, np.ones((factor, factor, 1), np.uint8))


# Predictions


def test_predictions_are_those_of_the_model_in_the_order_of_the_files(run_path, sample, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in (2, 0, 1)]
    for path, image in zip(paths, sample.images, strict=False):
        path.write_bytes(encode(image, "PNG"))
    predictions = predict_files(paths, model=run_path)
    logits = build_model(seed=0).predict(sample.images[:3], verbose=0)
    for prediction, path, expected in zip(
        predictions, paths, tf.nn.softmax(logits).numpy(), strict=True
    ):
        assert prediction.file == path
        assert prediction.label == CLASS_NAMES[expected.argmax()]
        found = [prediction.probabilities[name] for name in CLASS_NAMES]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_probabilities_come_with_the_highest_first_and_add_up_to_one(run_path, sample, tmp_path):
    (tmp_path / "image.png").write_bytes(encode(sample.images[0], "PNG"))
    (prediction,) = predict_files([tmp_path / "image.png"], model=run_path / "model.keras")
    values = list(prediction.probabilities.values())
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1)
    assert prediction.label == next(iter(prediction.probabilities))
    assert set(prediction.probabilities) == set(CLASS_NAMES)


def test_unreadable_files_are_reported_by_name_and_the_rest_answered(run_path, sample, tmp_path):
    image = encode(sample.images[0], "PNG")
    contents = {
        "good.png": image,
        "empty.png": b"",
        "text.png": b"not an image at all",
        "torn.png": image[: len(image) // 2],
        "torn.jpg": encode(enlarged(sample.images[0]), "JPEG")[:900],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    names = ["none.png", "good.png", "folder", *list(contents)[1:], "good.png"]
    answers = predict_files([tmp_path / name for name in names], model=run_path)
    assert [answer.file.name for answer in answers] == names
    reasons = {answer.file.name: answer.reason for answer in answers if type(answer) is Failure}
    assert reasons == {
        "none.png": "No such file or directory",
        "folder": "Is a directory",
        "empty.png": "the file is empty",
        "text.png": "not an image that can be read; expected PNG, JPEG, BMP, GIF, WebP",
        "torn.png": "the image is damaged: its PNG data cannot be read",
        "torn.jpg": "the image is damaged: its JPEG data cannot be read",
    }
    first, second = (answer for answer in answers if isinstance(answer, Prediction))
    assert first.label == second.label
    # Where an image stands in a batch decides how its sums are rounded.
    assert first.probabilities == pytest.approx(second.probabilities, abs=1e-5)


def test_no_readable_file_leaves_nothing_but_failures(run_path, tmp_path):
    answers = predict_files([tmp_path / "a", tmp_path / "b"], model=run_path)
    assert [answer.file.name for answer in answers] == ["a", "b"]
    assert all(isinstance(answer, Failure) for answer in answers)


def test_more_files_than_a_batch_holds_are_all_answered(run_path, sample, tmp_path):
    (tmp_path / "image.png").write_bytes(encode(sample.images[0], "PNG"))
    assert len(predict_files([tmp_path / "image.png"] * 501, model=run_path)) == 501


def test_a_folder_without_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no trained model; expected model\.keras in it"):
        predict_files([], model=tmp_path)


# Exported models


def answers_of(paths, model):
    return [(answer.label, answer.probabilities) for answer in predict_files(paths, model=model)]


def test_an_exported_model_gives_its_runs_answers_for_images_of_any_size(
    exported, trained_run, sample, tmp_path
):
    paths = [tmp_path / name for name in ("a.png", "b.jpg", "c.bmp")]
    paths[0].write_bytes(encode(sample.images[0], "PNG"))
    paths[1].write_bytes(encode(enlarged(sample.images[1]), "JPEG"))
    paths[2].write_bytes(encode(sample.images[2][:20], "BMP"))
    expected = answers_of(paths, trained_run.path)
    for model in (exported.version, exported.version.parent):
        for (label, found), (wanted, probabilities) in zip(
            answers_of(paths, model), expected, strict=True
        ):
            assert label == wanted
            assert found == pytest.approx(probabilities, abs=1e-5)


def test_a_model_directory_answers_with_the_version_of_the_highest_number(
    exported, sample, tmp_path
):
    shutil.copytree(exported.version, tmp_path / "models" / "10")
    for number in ("2", "9"):  # the last by name
        (tmp_path / "models" / number).mkdir()
        (tmp_path / "models" / number / "saved_model.pb").write_text("damaged")
    (tmp_path / "image.png").write_bytes(encode(sample.images[0], "PNG"))
    paths = [tmp_path / "image.png"] * 65
    assert len(answers_of(paths, tmp_path / "models")) == 65
    with pytest.raises(OSError, match="models/9: a damaged SavedModel"):
        predict_files([], model=tmp_path / "models" / "9")


def test_damaged_images_cost_no_others_the_answers_of_an_exported_model(exported, sample, tmp_path):
    image = encode(sample.images[0], "PNG")
    contents = {"good.png": image, "torn.png": image[:1000], "text.png": b"not an image at all"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    good, torn, text = predict_files([tmp_path / name for name in contents], model=exported.version)
    assert isinstance(good, Prediction)
    assert torn == Failure(
        tmp_path / "torn.png", "the image is damaged: its PNG data cannot be read"
    )
    assert text.reason.startswith("not an image that can be read; expected PNG")


def test_a_version_that_is_no_saved_model_is_refused(tmp_path):
    version = tmp_path / "models" / "1"
    version.mkdir(parents=True)
    expected = f"{version}: no SavedModel; expected saved_model.pb in it. Export one: keras-cifar "
    for content in ("nothing", "model.onnx"):
        (version / content).touch()
        with pytest.raises(OSError, match=f"^{re.escape(expected)}export$"):
            predict_files([], model=version.parent)
    with pytest.raises(OSError, match=f"^{re.escape(expected)}export$"):
        predict_files([], model=version)


def test_a_saved_model_that_is_damaged_or_another_projects_is_refused(exported, tmp_path):
    folder = tmp_path / "1"
    shutil.copytree(exported.version, folder)
    shutil.rmtree(folder / "variables")
    with pytest.raises(OSError, match=rf"^{folder}: a damaged SavedModel \(.*\)\. Export it again"):
        predict_files([], model=folder)
    tf.saved_model.save(tf.Module(), str(tmp_path / "2"))
    with pytest.raises(
        OSError, match=r"2: no signature 'image_bytes'\. Name what keras-cifar export"
    ):
        predict_files([], model=tmp_path / "2")


def test_a_diverged_exported_model_gives_no_predictions(sample, tmp_path):
    class Diverged(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def classify(self, image_bytes):
            return {"probabilities": tf.fill([tf.size(image_bytes), 10], float("nan"))}

    module = Diverged()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"image_bytes": module.classify})
    (tmp_path / "image.png").write_bytes(encode(sample.images[0], "PNG"))
    with pytest.raises(FloatingPointError, match="1: the model gives numbers that are not finite"):
        predict_files([tmp_path / "image.png"], model=tmp_path / "1")


# What the model is given


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})]
)
def test_an_image_of_the_right_size_passes_unchanged(sample, kind, options):
    for image in sample.images[:20]:
        np.testing.assert_array_equal(prepare_image(encode(image, kind, **options)), image)


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "WEBP"])
def test_a_lossy_format_shows_what_its_own_decoder_shows(sample, kind):
    encoded = encode(sample.images[0], kind)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)
    assert np.abs(prepare_image(encoded) - expected).max() <= 8  # chroma is scaled differently


def test_grey_is_the_same_in_each_channel(sample):
    grey = sample.images[0, :, :, 0]
    for encoded in (encode(grey, "PNG"), encode(grey, "BMP")):
        np.testing.assert_array_equal(prepare_image(encoded), np.stack([grey] * 3, axis=-1))


def test_sixteen_bits_keep_the_upper_eight(sample):
    grey = sample.images[0, :, :, 0]
    deep = (grey.astype(np.uint16) << 8) + 200
    np.testing.assert_array_equal(prepare_image(encode(deep, "PNG"))[..., 0], grey)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_transparency_becomes_white(sample, kind, options):
    alpha = np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[None], 32, axis=0)
    image = np.dstack([sample.images[0], alpha])
    expected = np.round(
        (image[..., :3] * (alpha / 255)[..., None]) + 255 * (1 - alpha / 255)[..., None]
    )
    # WebP may drop the colours behind what is fully transparent.
    found = prepare_image(encode(image, kind, exact=True, **options))
    np.testing.assert_allclose(found, expected, atol=1)
    assert (found[:, 0] == 255).all()


def test_grey_with_alpha_becomes_white_where_it_is_transparent():
    image = np.zeros((32, 32, 2), np.uint8)
    image[:16, :, 1] = 255
    found = prepare_image(encode(Image.fromarray(image, "LA"), "PNG"))
    assert (found[:16] == 0).all()
    assert (found[16:] == 255).all()


def test_alpha_that_is_zero_everywhere_means_an_opaque_image(sample):
    image = np.dstack([sample.images[0], np.zeros((32, 32), np.uint8)])
    np.testing.assert_array_equal(prepare_image(encode(image, "BMP")), sample.images[0])


def test_the_first_frame_of_a_gif_counts(sample):
    first, second = (Image.fromarray(image) for image in sample.images[:2])
    animation = encode(first.quantize(256), "GIF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(prepare_image(animation), first.quantize(256).convert("RGB"))


def test_an_animated_webp_is_refused_before_it_can_crash_the_decoder(sample):
    first, second = (Image.fromarray(image) for image in sample.images[:2])
    animation = encode(first, "WEBP", save_all=True, append_images=[second])
    with pytest.raises(ValueError, match=r"an animated WebP image, which cannot be read\. Save a"):
        prepare_image(animation)
    in_graph = tf.function(image_from_bytes, input_signature=[tf.TensorSpec([], tf.string)])
    with pytest.raises(tf.errors.InvalidArgumentError):
        in_graph(tf.constant(animation))


@pytest.mark.parametrize("size", [(500, 300), (300, 500), (33, 31), (3000, 40), (5, 7), (1, 1)])
def test_any_size_is_cut_to_its_central_square_and_scaled(sample, size):
    image = Image.fromarray(enlarged(sample.images[0])).resize(size)
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    square = image.crop((left, top, left + side, top + side))
    expected = np.asarray(square.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    found = prepare_image(encode(image, "PNG"))
    assert found.shape == (32, 32, 3)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1  # Pillow rounds twice
    assert abs((found - expected).mean()) < 0.2  # cutting off the fraction would give 0.5


def test_fine_stripes_blur_to_grey_and_do_not_alias():
    stripes = np.zeros((320, 320), np.uint8)
    stripes[:, ::2] = 255
    # Without antialiasing, every 10th column would be taken: all black, or all white.
    assert np.abs(prepare_image(encode(stripes, "PNG")).astype(int) - 127.5).max() < 5


def test_the_same_operations_work_in_a_graph(sample):
    in_graph = tf.function(image_from_bytes, input_signature=[tf.TensorSpec([], tf.string)])
    assert in_graph.get_concrete_function().structured_outputs.shape == (32, 32, 3)
    image = sample.images[0]
    for encoded in (encode(image, "PNG"), encode(image[..., 0], "PNG")):
        np.testing.assert_array_equal(in_graph(tf.constant(encoded)), prepare_image(encoded))
    # A graph may compute the means in another order, and then round one up that is at a half.
    with_alpha = np.dstack([enlarged(image), np.full((288, 288), 99, np.uint8)])
    encoded = encode(with_alpha, "PNG")
    found = in_graph(tf.constant(encoded)).numpy().astype(int)
    assert np.abs(found - prepare_image(encoded)).max() <= 1


# Headers


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *((kind, mode) for kind in ("PNG", "BMP", "GIF", "WEBP") for mode in ("L", "RGB", "RGBA")),
        *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
    ],
)
def test_headers_tell_the_size_that_the_image_has(kind, mode):
    image = Image.new(mode, (123, 45))
    for options in ({}, {"lossless": True}, {"progressive": True}, {"comment": "\xff" * 9000}):
        header = check_header(encode(image, kind, **options))
        assert header == (dict(WEBP="WebP").get(kind, kind), 123, 45, 1)


def png_header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13)
    return start + chunk + struct.pack(">I", zlib.crc32(chunk))


def bombs(sample):
    """Small files that claim 50,000 x 50,000 pixels, or the most their format can."""
    image = sample.images[0]
    jpeg, gif, bmp = (bytearray(encode(image, kind)) for kind in ("JPEG", "GIF", "BMP"))
    webp = bytearray(encode(np.dstack([image, image[..., 0]]), "WEBP"))
    size = jpeg.find(b"\xff\xc0") + 5
    jpeg[size : size + 4] = struct.pack(">HH", 50_000, 50_000)
    frame = bytearray(gif)
    gif[6:10] = struct.pack("<HH", 50_000, 50_000)
    descriptor = 13 + 3 * 2 ** ((frame[10] & 7) + 1)
    while frame[descriptor] != 0x2C:
        descriptor += 1
    frame[descriptor + 5 : descriptor + 9] = struct.pack("<HH", 50_000, 50_000)
    bmp[18:26] = struct.pack("<ii", 50_000, -50_000)
    webp[24:30] = struct.pack("<I", 49_999)[:3] * 2
    return {
        "png": png_header(50_000, 50_000),
        "jpeg": jpeg,
        "gif": gif,
        "gif, its frame alone": frame,
        "bmp": bmp,
        "webp": webp,
    }


def test_an_image_that_claims_too_many_pixels_is_refused_by_its_header(sample):
    for encoded in bombs(sample).values():
        with pytest.raises(ValueError, match="claims 50,000 x 50,000 pixels; at most"):
            prepare_image(bytes(encoded))


def test_refusing_a_bomb_takes_no_memory(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header(50_000, 50_000))
    code = f"""
import resource, pathlib, pytest
from keras_cifar.client import prepare_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with pytest.raises(ValueError):
    prepare_image(pathlib.Path({str(tmp_path / "bomb.png")!r}).read_bytes())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(answer.stdout) < 50_000  # kibibytes; the pixels would take 7.5 gigabytes


def test_an_animation_is_measured_with_all_its_frames():
    frames = [Image.new("L", (1000, 1000), grey) for grey in range(101)]
    animation = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert MAX_PIXELS < 101 * 1000 * 1000
    with pytest.raises(ValueError, match="claims 1,000 x 1,000 pixels in 101 frames; at most"):
        check_header(animation)


def test_a_bmp_with_a_palette_is_refused_as_tensorflow_would_show_it_grey(sample):
    encoded = encode(Image.fromarray(sample.images[0]).quantize(64), "BMP")
    with pytest.raises(
        ValueError, match=r"a BMP with a palette, which cannot be read\. Save it as"
    ):
        prepare_image(encoded)


def test_a_compressed_bmp_is_refused(sample):
    encoded = bytearray(encode(sample.images[0], "BMP"))
    encoded[30] = 1
    with pytest.raises(
        ValueError, match=r"a compressed BMP, which cannot be read\. Save it as PNG"
    ):
        prepare_image(bytes(encoded))


def bmp_with_masks(red, green, blue):
    """A pixel 0x112233, of 32 bits whose channels are where the masks say."""
    info = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 32, 3, 4, 0, 0, 0, 0)
    masks = struct.pack("<III", red, green, blue)
    return b"BM" + struct.pack("<IHHI", 70, 0, 0, 66) + info + masks + b"\x33\x22\x11\xff"


def test_a_bmp_with_its_channels_in_another_order_is_refused():
    usual = prepare_image(bmp_with_masks(0xFF0000, 0xFF00, 0xFF))
    assert np.all(usual == [0x11, 0x22, 0x33])
    with pytest.raises(ValueError, match=r"channels of its own order, which cannot .* as PNG"):
        prepare_image(bmp_with_masks(0xFF, 0xFF00, 0xFF0000))


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ValueError, match="damaged: it claims 0 x 7 pixels"):
        prepare_image(png_header(0, 7))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
@given(data=st.data())
def test_a_damaged_image_gives_an_image_or_one_line(sample, kind, data):
    encoded = bytearray(encode(sample.images[0], kind))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(1, len(encoded)))
    try:
        reason = None if prepare_image(bytes(encoded[:end])).shape == (32, 32, 3) else "other shape"
    except ValueError as error:
        reason = str(error)
    assert reason is None or re.fullmatch("(the|not an|a|an) .*(image|BMP|file).*", reason)
