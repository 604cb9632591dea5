"""A TFDS folder that is cut off, altered, or not what it says."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_cifar.cifar10 import SAMPLE
from keras_cifar.data.examples import Splits
from keras_cifar.data.prepare import prepare
from keras_cifar.data.tfds_folder import _Builder, dataset_folder, is_prepared, read_split

SPLITS = ("train", "test")

TFRECORD = "cifar10_sample-test.tfrecord-00000-of-00001"


@pytest.fixture
def folder(tmp_path):
    """A copy of the sample, to be damaged; its name is the version, which TFDS wants."""
    copy = tmp_path / SAMPLE.name / SAMPLE.version
    shutil.copytree(prepare(SAMPLE, data_dir=None), copy)
    return copy


def test_a_folder_of_array_records_is_read(folder, tmp_path):
    splits = Splits(*(read_split(folder, split=name, dataset=SAMPLE) for name in SPLITS))
    builder = _Builder(splits, dataset=SAMPLE, data_dir=tmp_path / "other", id_prefix="")
    builder.download_and_prepare(file_format="array_record")
    converted = dataset_folder(SAMPLE, data_dir=tmp_path / "other")
    assert list(converted.glob("*.array_record*"))
    for name, expected in zip(SPLITS, splits, strict=True):
        found = read_split(converted, split=name, dataset=SAMPLE)
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)
    cut_off(next(converted.glob("*train.array_record*")))
    with pytest.raises(OSError, match="split is damaged or is not cifar10_sample"):
        read_split(converted, split="train", dataset=SAMPLE)


def test_a_format_that_tfds_does_not_read_is_named(folder):
    path = folder / "dataset_info.json"
    path.write_text(path.read_text().replace('"tfrecord"', '"riegeli"'))
    with pytest.raises(OSError, match="is in a format that TFDS cannot read here"):
        read_split(folder, split="test", dataset=SAMPLE)


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_at_a_record(path):
    # A record is its length (8 bytes), 4 of checksum, its content, 4 of checksum.
    path.write_bytes(path.read_bytes()[: 16 + int.from_bytes(path.read_bytes()[:8], "little")])


def empty(path):
    path.write_bytes(b"")


def alter_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_with_text(path):
    path.write_text("not what was here")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((TFRECORD, damage) for damage in (cut_off, cut_at_a_record, empty, alter_a_byte)),
        *((TFRECORD, damage) for damage in (Path.unlink, replace_with_text)),
        *(("dataset_info.json", damage) for damage in (cut_off, empty, replace_with_text)),
        *(("features.json", damage) for damage in (cut_off, empty, Path.unlink)),
    ],
)
def test_a_damaged_file_is_one_clear_line(folder, name, damage):
    damage(folder / name)
    with pytest.raises(OSError, match="split is damaged or is not cifar10_sample") as raised:
        read_split(folder, split="test", dataset=SAMPLE)
    message = str(raised.value)
    assert message.startswith(f"{folder}: ")
    assert message.endswith("Move that folder away and prepare it anew: keras-cifar data")
    assert "\n" not in message


@pytest.mark.timeout(60)
def test_a_pipe_in_the_place_of_records_is_not_waited_for(folder):
    path = folder / TFRECORD
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match=rf"split is damaged .*\({TFRECORD} is no file\)"):
        read_split(folder, split="test", dataset=SAMPLE)


def test_a_record_that_claims_to_be_longer_than_its_file_is_not_read(folder):
    """With 100 GB, TensorFlow ended the process."""
    path = folder / TFRECORD
    before = path.read_bytes()
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write((3 * 10**9).to_bytes(8, "little"))
    # A content and its checksum are as a length and its checksum.
    length = path.read_bytes()[12:]
    path.write_bytes(length + before[12:])
    with pytest.raises(OSError, match=rf"split is damaged .*\({TFRECORD} is cut off\)"):
        read_split(folder, split="test", dataset=SAMPLE)


def test_no_image_of_another_size_is_decoded(folder):
    path = str(folder / TFRECORD)
    records = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
    example = tf.train.Example.FromString(records[7])
    (png,) = example.features.feature["image"].bytes_list.value
    huge = (20_000).to_bytes(4, "big") * 2
    example.features.feature["image"].bytes_list.value[0] = png[:16] + huge + png[24:]
    records[7] = example.SerializeToString()
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    with pytest.raises(OSError, match=r"split is damaged .*not all its images are PNGs of 32x32"):
        read_split(folder, split="test", dataset=SAMPLE)


def test_the_other_split_still_reads(folder):
    cut_off(folder / TFRECORD)
    assert len(read_split(folder, split="train", dataset=SAMPLE).labels) == 2000


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("features.json", '"32",', '"16",'),
        ("features.json", '"dtype": "uint8"', '"dtype": ""'),
        ("features.json", '"numClasses"', '"numClass"'),
        ("dataset_info.json", '"500"', '"499"'),
        ("dataset_info.json", '"name": "test"', '"name": "exam"'),
        ("dataset_info.json", '"splits"', '"split"'),
    ],
)
def test_a_description_that_was_changed_is_noticed(folder, name, old, new):
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    with pytest.raises(OSError, match="split is damaged") as raised:
        read_split(folder, split="test", dataset=SAMPLE)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "other"),
    [("pythonClassName", "text"), ("python_class_name", "text"), ("type", "content")],
)
def test_no_module_that_a_folder_names_is_imported(folder, tmp_path, monkeypatch, key, other):
    (tmp_path / "trap.py").write_text("raise SystemExit('was run')")
    monkeypatch.syspath_prepend(tmp_path)
    (folder / "features.json").write_text(json.dumps({key: "trap.Feature", other: {}}))
    with pytest.raises(OSError, match=r"features\.json names trap\.Feature, which is not of TFDS"):
        read_split(folder, split="test", dataset=SAMPLE)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_description_nested_without_end_is_noticed(folder, name):
    (folder / name).write_text('{"a":' * 100_000)
    with pytest.raises(OSError, match="split is damaged"):
        read_split(folder, split="test", dataset=SAMPLE)


def test_the_folder_of_another_dataset_is_noticed(folder):
    other = SAMPLE._replace(test=SAMPLE.test._replace(sha256="0" * 64))
    with pytest.raises(OSError, match=r"got content with SHA-256 ecbce45.*, expected 000"):
        read_split(folder, split="test", dataset=other)


def test_a_folder_without_its_last_file_is_not_prepared(folder):
    assert is_prepared(folder)
    (folder / "dataset_info.json").unlink()
    assert not is_prepared(folder)
