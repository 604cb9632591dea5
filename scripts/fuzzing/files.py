"""What a person gets from elsewhere: pictures, archives and folders of data, models, runs."""

import csv
import gzip
import hashlib
import io
import json
import shutil
import struct
import tarfile
import zipfile
import zlib
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from fuzzing.target import Target
from PIL import Image

import keras_cifar.serve.page
from keras_cifar.cifar10 import IMAGE_SHAPE, NUM_CLASSES, SAMPLE, DatasetFacts, SplitFacts
from keras_cifar.data.prepare import prepare
from keras_cifar.data.source.archive import read_archive
from keras_cifar.data.source.parquet import read_parquet
from keras_cifar.data.tfds_folder import read_split
from keras_cifar.history import COLUMNS, read_history
from keras_cifar.image.decode import image_from_bytes
from keras_cifar.image.header import check_header
from keras_cifar.model.load import load_model
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir
from keras_cifar.run_record import RunRecord
from keras_cifar.train import checkpoint

_SAMPLES = Path(keras_cifar.serve.page.__file__).parent / "samples"
_MAX_PIXELS = 1_000_000
# Of the archives and Parquet files made here: 20 training images and 4 test images.
_SMALL = DatasetFacts("small", "1.0.0", train=SplitFacts(20, ""), test=SplitFacts(4, ""))


# Pictures


def images(_: Path) -> Target:
    """A picture's file. The checksums of a PNG are set right, or nothing behind them is reached."""
    decode = tf.function(image_from_bytes, [tf.TensorSpec([], tf.string)])

    def check(content: bytes) -> None:
        content = _with_checksums(content)
        try:
            header = check_header(content, max_pixels=_MAX_PIXELS)
            pixels = tf.io.decode_image(content, expand_animations=False)
        except (ValueError, tf.errors.InvalidArgumentError):
            return
        claimed, found = header.width * header.height, pixels.shape[0] * pixels.shape[1]
        if found > claimed:
            raise RuntimeError(f"the decoder finds {found} pixels, the header claims {claimed}")
        # A kind that is refused on purpose: the graph's own check.
        with suppress(tf.errors.InvalidArgumentError):
            decode(content)

    return Target(check, _pictures())


def _with_checksums(content: bytes) -> bytes:
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    whole, position = content[:8], 8
    while position + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        chunk = content[position + 4 : position + 8 + length]
        whole += content[position : position + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        position += 12 + length
    return whole


def _pictures() -> list[bytes]:
    found = [path.read_bytes() for path in sorted(_SAMPLES.glob("*.png"))[:2]]
    with Image.open(_SAMPLES / "cat.png") as image:
        small = image.convert("RGB").resize((12, 10))
    forms = {"PNG": ("1", "L", "P", "LA", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK")}
    forms |= {"BMP": ("L", "RGB", "RGBA"), "GIF": ("L", "P"), "WEBP": ("RGB", "RGBA")}
    for name, modes in forms.items():
        for mode in modes:
            picture = small.convert("I").convert(mode) if mode == "I;16" else small.convert(mode)
            found.append(_saved(picture, name))
    frames = {"save_all": True, "append_images": [small.rotate(90), small.rotate(180)]}
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation
    return [
        *found,
        _saved(small, "PNG", interlace=1),
        _saved(small, "JPEG", progressive=True, exif=turned),
        _saved(small, "GIF", **frames),
        _saved(small, "WEBP", lossless=True),
        _saved(small, "WEBP", exif=turned),
        _saved(small, "WEBP", **frames),
    ]


def _saved(image: Image.Image, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


# Data


def archives(folder: Path) -> Target:
    """An archive, packed or not."""
    path = folder / "archive"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        with suppress(OSError):
            read_archive(path, dataset=_SMALL)

    whole = _tar({f"cifar-10-batches-bin/{name}.bin": 4 * (1 + 3072) for name in _BATCHES})
    odd = _tar({"data_batch_1": 9, "x" * 300: 3, "test_batch.bin": 0}, format=tarfile.PAX_FORMAT)
    special = [_tar_of_one(type=kind) for kind in (tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE)]
    large = _tar_of_one(format=tarfile.GNU_FORMAT, size=2**40)
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "size": "9", "path": "test_batch.bin"}
    sparse = _tar_of_one(format=tarfile.PAX_FORMAT, pax_headers=pax)
    small = _tar({"test_batch.bin": 10}, format=tarfile.GNU_FORMAT)
    return Target(
        check,
        [whole, gzip.compress(whole), odd, *special, large, sparse, small, gzip.compress(odd)],
    )


_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def _tar(sizes: dict[str, int], *, format: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, size in sizes.items():
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(bytes(size)))
    return file.getvalue()


def _tar_of_one(*, format: int = tarfile.GNU_FORMAT, **fields: object) -> bytes:
    """Returns a header alone: what follows is for the reader to miss."""
    member = tarfile.TarInfo("data_batch_1.bin")
    for name, value in fields.items():
        setattr(member, name, value)
    return member.tobuf(format) + bytes(1024)


def parquets(folder: Path) -> Target:
    """A Parquet file, read as both splits."""
    path = folder / "file.parquet"
    facts = DatasetFacts("small", "1.0.0", train=SplitFacts(4, ""), test=SplitFacts(4, ""))

    def check(content: bytes) -> None:
        path.write_bytes(content)
        with suppress(OSError):
            read_parquet(path, path, dataset=facts)

    png = tf.io.encode_png(np.zeros(IMAGE_SHAPE, np.uint8)).numpy()
    rows = {"img": [{"bytes": png, "path": None}] * 4, "label": [0, 1, 2, 3]}
    seeds = []
    for options in ({"compression": "none"}, {"compression": "snappy"}, {"use_dictionary": False}):
        pq.write_table(pa.table(rows), path, **options)
        seeds.append(path.read_bytes())
    return Target(check, seeds)


def tfds_folders(folder: Path) -> Target:
    """A byte for one of the files of a TFDS folder, then what is in it; or one record's content."""
    copy = folder / SAMPLE.name / SAMPLE.version
    shutil.copytree(prepare(SAMPLE, data_dir=None), copy)
    record = copy / "cifar10_sample-test.tfrecord-00000-of-00001"
    paths = (record, copy / "dataset_info.json", copy / "features.json", record)
    first = next(tf.data.TFRecordDataset(str(record)).take(1).as_numpy_iterator())
    contents = [first, *(path.read_bytes() for path in paths[1:3]), record.read_bytes()[:6000]]
    record.write_bytes(contents[-1])

    def check(content: bytes) -> None:
        number = content[0] % len(paths) if content else 0
        path, before = paths[number], paths[number].read_bytes()
        if number:
            path.write_bytes(content[1:])
        else:  # in a record whose checksums are right
            with tf.io.TFRecordWriter(str(path)) as writer:
                writer.write(content[1:])
        try:
            read_split(copy, split="test", dataset=SAMPLE)
        except OSError:
            pass
        finally:
            path.write_bytes(before)

    return Target(check, [bytes([n]) + content for n, content in enumerate(contents)])


# Models and runs


def keras_models(folder: Path) -> Target:
    """A byte for one of the files in a .keras file, then what is in it; or all of the archive."""
    path = folder / "model.keras"
    layers = [
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(2, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(NUM_CLASSES, name="logits"),
    ]
    keras.Sequential([keras.Input(IMAGE_SHAPE, dtype="uint8", name="image"), *layers]).save(path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    names = ("config.json", "metadata.json", "model.weights.h5")

    def check(content: bytes) -> None:
        number = content[0] % (len(names) + 1) if content else 0
        if number < len(names):
            with zipfile.ZipFile(path, "w") as archive:
                for name, given in {**files, names[number]: content[1:]}.items():
                    archive.writestr(name, given)
        else:
            path.write_bytes(content[1:])
        with suppress(OSError):
            load_model(path)
        keras.backend.clear_session()

    seeds = [bytes([number]) + files[name] for number, name in enumerate(names)]
    return Target(check, [*seeds, bytes([len(names)]) + whole])


def runs(folder: Path) -> Target:
    """A byte for one of a run's files, then what is in it; a checkpoint's digest is set right."""
    run = RunDir(folder)
    run.write_record(RunRecord(TrainConfig(), {"keras": "3"}, "a CPU", {"precision": "float32"}))
    table = io.StringIO()
    csv.writer(table).writerows([COLUMNS, [1, 2.3, 0.1, 2.2, 0.2, 0.1, 9.5], [2, *[0.5] * 6]])
    arrays = io.BytesIO()
    progress = np.array(json.dumps(asdict(checkpoint.Progress())))
    np.savez(arrays, progress=progress, variable_0=np.float32([1, 2]))
    seeds = (run.config.read_bytes(), table.getvalue().encode(), arrays.getvalue())
    saved = folder / "epoch-00001.ckpt"

    def check(content: bytes) -> None:
        number, content = content[0] % 3 if content else 0, content[1:]
        if number == 0:
            run.config.write_bytes(content)
            with suppress(OSError):
                run.read_record()
        elif number == 1:
            run.history.write_bytes(content)
            with suppress(OSError):
                read_history(run.history)
        else:
            saved.write_bytes(hashlib.sha256(content).digest() + content)
            with suppress(ValueError, OSError):
                checkpoint.read(saved)

    return Target(check, [bytes([number]) + seed for number, seed in enumerate(seeds)])
