"""The two archives of the original, made here from the sample's images, and what may be wrong."""

import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from keras_cifar.cifar10 import SAMPLE
from keras_cifar.data.archive import read_archive
from keras_cifar.data.examples import Splits
from keras_cifar.data.prepare import load, prepare
from keras_cifar.data.read import read_split

BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
TEST_BATCH = "cifar-10-batches-py/test_batch"


@pytest.fixture(scope="module")
def splits(sample):
    return Splits(train=sample, test=load(SAMPLE, split="test", data_dir=None))


def batches(splits):
    parts = np.split(np.arange(len(splits.train.labels)), 5)
    return zip(BATCHES, [*map(splits.train.take, parts), splits.test], strict=True)


def planes(examples):
    return examples.images.transpose(0, 3, 1, 2).reshape(len(examples.labels), -1)


def binary_members(splits):
    def batch(examples):
        labels = examples.labels.astype(np.uint8)[:, None]
        return np.concatenate([labels, planes(examples)], axis=1).tobytes()

    return {f"cifar-10-batches-bin/{name}.bin": batch(part) for name, part in batches(splits)}


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 wrote its `str`, and NumPy's names as they were then."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, text):
        content = text.encode() if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    def save_name(self, named):
        module = "numpy.core.multiarray" if named.__name__ == "_reconstruct" else named.__module__
        self.write(pickle.GLOBAL + f"{module}\n{named.__name__}\n".encode())

    dispatch |= {bytes: save_string, str: save_string, type: save_name, type(len): save_name}
    dispatch[type(np.dtype)] = save_name


def python2_pickle(value):
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def python_batch(examples, **changed):
    names = [f"{number}.png" for number in range(len(examples.labels))]
    batch = {"labels": examples.labels.tolist(), "data": planes(examples), "filenames": names}
    return python2_pickle({**batch, **changed})


def python_members(splits):
    return {f"cifar-10-batches-py/{name}": python_batch(part) for name, part in batches(splits)}


def write_archive(path, members):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("members", [binary_members, python_members])
def test_both_archives_give_the_examples_in_their_order(splits, tmp_path, members):
    read = read_archive(write_archive(tmp_path / "any.tgz", members(splits)), dataset=SAMPLE)
    for got, expected in zip(read, splits, strict=True):
        np.testing.assert_array_equal(got.images, expected.images)
        np.testing.assert_array_equal(got.labels, expected.labels)


def test_an_archive_becomes_a_folder_and_stays_where_it_is(splits, tmp_path):
    path = write_archive(tmp_path / "cifar.tar.gz", binary_members(splits))
    folder = prepare(SAMPLE, data_dir=tmp_path / "data", archive=path)
    assert folder == tmp_path / "data" / "cifar10_sample" / "1.0.0"
    images = read_split(folder, split="test", dataset=SAMPLE).images
    np.testing.assert_array_equal(images, splits.test.images)
    assert path.exists()


def test_names_that_lead_elsewhere_write_nothing(splits, tmp_path):
    members = {"../escaped": b"x", str(tmp_path / "absolute"): b"x", **binary_members(splits)}
    path = write_archive(tmp_path / "a.tar.gz", members)
    read_archive(path, dataset=SAMPLE)
    assert list(tmp_path.iterdir()) == [path]
    assert not (tmp_path.parent / "escaped").exists()


class Malicious:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_pickle_that_calls_something_is_refused_and_not_run(splits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"data": Malicious()}, protocol=2)
    path = write_archive(tmp_path / "a.tar.gz", {TEST_BATCH: content})
    with pytest.raises(OSError, match=r"test_batch in it: it contains code \(posix\.system\)"):
        prepare(SAMPLE, data_dir=tmp_path / "data", archive=path)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "data" / SAMPLE.name).exists()


# PROTO 5, BYTEARRAY8 of 2**40 bytes, which Python would take from memory before it reads them.
MEMORY_BOMB = b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"."
WRONG_PICKLES = {
    "no pickle": b"GIF89a",
    "empty": b"",
    "memory bomb": MEMORY_BOMB,
    "a list": python2_pickle([1, 2]),
    "no array": python2_pickle({"data": "text", "labels": []}),
    "dictionary with a list as key": b"\x80\x02}]Ns.",
}


@pytest.mark.parametrize("content", WRONG_PICKLES.values(), ids=WRONG_PICKLES.keys())
def test_a_wrong_pickle_is_one_line(tmp_path, content):
    path = write_archive(tmp_path / "a.tar.gz", {TEST_BATCH: content})
    with pytest.raises(OSError, match="test_batch in it: it is no pickle") as raised:
        read_archive(path, dataset=SAMPLE)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"{path}: ")


def test_arrays_and_labels_of_other_shapes_are_refused(splits, tmp_path):
    test = splits.test
    wrong = {
        "not uint8": python_batch(test, data=planes(test).view(np.int8)),
        "not uint8 ": python_batch(test, data=planes(test)[:-1]),
        "500 labels": python_batch(test, labels=[1]),
        "labels are not all 0": python_batch(test, labels=[10] * 500),
        "labels are not all": python_batch(test, labels=["cat"] * 500),
    }
    for reason, content in wrong.items():
        path = write_archive(tmp_path / "a.tar.gz", {TEST_BATCH: content})
        with pytest.raises(OSError, match=reason.strip()):
            read_archive(path, dataset=SAMPLE)


def test_a_cut_off_archive_is_one_line_and_leaves_nothing(splits, tmp_path):
    path = write_archive(tmp_path / "a.tar.gz", binary_members(splits))
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(OSError, match=r"cut off.*Expected cifar-10-binary"):
        prepare(SAMPLE, data_dir=tmp_path / "data", archive=path)
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == [".cifar10_sample.lock"]


def test_files_that_are_no_archive_say_what_is_wrong(splits, tmp_path):
    members = binary_members(splits)
    del members["cifar-10-batches-bin/data_batch_3.bin"]
    short = {"cifar-10-batches-bin/test_batch.bin": b"\0" * 3073}
    wrong = {
        "data_batch_3 is missing from it": write_archive(tmp_path / "a", members),
        "3073 bytes instead of 1536500": write_archive(tmp_path / "b", short),
        "Not a gzipped file": tmp_path / "c",
        "Is a directory": tmp_path,
        "no such file": tmp_path / "absent",
    }
    (tmp_path / "c").write_text("hello")
    for reason, path in wrong.items():
        with pytest.raises(OSError, match=reason):
            read_archive(path, dataset=SAMPLE)


def test_an_archive_of_other_images_is_refused(splits, tmp_path):
    splits.train.images[7, 7, 7, 0] ^= 1
    members = binary_members(splits)
    splits.train.images[7, 7, 7, 0] ^= 1
    path = write_archive(tmp_path / "a.tar.gz", members)
    with pytest.raises(OSError, match="its train split is not cifar10_sample's"):
        prepare(SAMPLE, data_dir=tmp_path / "data", archive=path)


@pytest.mark.parametrize(
    "kind", ["a bomb", "a long header", "a large batch", "a sparse file", "a link"]
)
def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, kind):
    path = tmp_path / "a.tar.gz"
    member = tarfile.TarInfo("padding" if kind == "a bomb" else TEST_BATCH)
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        if kind == "a bomb":
            member.size = 30_000_000
        elif kind == "a large batch":
            member.size = 3_000_000
        elif kind == "a long header":
            member.pax_headers = {"comment": "x" * 30_000_000}
        elif kind == "a sparse file":
            member.size = 512
            member.pax_headers = {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": TEST_BATCH,
                "GNU.sparse.realsize": str(10**15),
            }
        else:
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member, io.BytesIO(b"0\n" + bytes(member.size)))
    with pytest.raises(OSError, match=r"unpacks to more|bytes are too many|not an ordinary file"):
        read_archive(path, dataset=SAMPLE)
