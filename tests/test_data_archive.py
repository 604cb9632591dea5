"""The two archives of the original, made here from the sample's images, and what may be wrong."""

import hashlib
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from keras_cifar.cifar10 import SAMPLE
from keras_cifar.data.examples import Splits
from keras_cifar.data.prepare import load, prepare
from keras_cifar.data.source.archive import read_archive
from keras_cifar.data.tfds_folder import read_split

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


def digests(members):
    """The table of digests that lets `read_archive` open these pickles."""
    return {name.split("/")[-1]: hashlib.md5(each).hexdigest() for name, each in members.items()}


def write_archive(path, members):
    mode = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_folder(path, members):
    for name, content in members.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def write_inner_folder(path, members):
    (folder,) = write_folder(path, members).iterdir()
    return folder


@pytest.mark.parametrize("members", [binary_members, python_members])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("any.tgz", write_archive),
        ("unpacked by a browser.tar", write_archive),
        ("folder", write_folder),
        ("folder", write_inner_folder),
    ],
    ids=["gzipped", "tar", "folder", "inner folder"],
)
def test_both_archives_give_the_examples_in_their_order(splits, tmp_path, members, name, write):
    files = members(splits)
    path = write(tmp_path / name, files)
    read = read_archive(path, dataset=SAMPLE, pickles=digests(files))
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


@pytest.mark.parametrize(("name", "write"), [("a.tar.gz", write_archive), ("a", write_folder)])
def test_a_pickle_that_calls_something_is_refused_and_not_run(tmp_path, monkeypatch, name, write):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"data": Malicious()}, protocol=2)
    path = write(tmp_path / name, {TEST_BATCH: content})
    with pytest.raises(OSError, match="test_batch in it: it is not the published file, and no"):
        prepare(SAMPLE, data_dir=tmp_path / "data", archive=path)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "data" / SAMPLE.name).exists()


def test_a_pickle_that_calls_something_is_not_run_even_if_its_digest_is_right(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    files = {TEST_BATCH: pickle.dumps({"data": Malicious()}, protocol=2)}
    path = write_archive(tmp_path / "a.tar.gz", files)
    with pytest.raises(OSError, match=r"test_batch in it: it contains code \(posix\.system\)"):
        read_archive(path, dataset=SAMPLE, pickles=digests(files))
    assert not (tmp_path / "ran").exists()


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
    with pytest.raises(OSError, match="test_batch in it: it is not the published file") as raised:
        read_archive(path, dataset=SAMPLE)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"{path}: ")


def test_the_published_digests_open_no_batch_of_other_images(splits, tmp_path):
    path = write_archive(tmp_path / "a.tar.gz", python_members(splits))
    with pytest.raises(OSError, match="data_batch_1 in it: it is not the published file"):
        read_archive(path, dataset=SAMPLE)


def test_a_batch_under_the_name_of_another_is_refused(splits, tmp_path):
    files = python_members(splits)
    table = digests(files)
    first, second = (f"cifar-10-batches-py/data_batch_{number}" for number in (1, 2))
    files[first], files[second] = files[second], files[first]
    path = write_archive(tmp_path / "a.tar.gz", files)
    with pytest.raises(OSError, match="data_batch_1 in it: it is not the published file"):
        read_archive(path, dataset=SAMPLE, pickles=table)


@pytest.mark.parametrize(
    ("folder", "changed"),
    [("bin", None), ("py", {"labels": [10] * 500}), ("py", {"labels": ["cat"] * 500})],
    ids=["a byte", "a number", "text"],
)
def test_labels_that_are_no_classes_are_refused(splits, tmp_path, folder, changed):
    if changed is None:
        content = np.full((500, 3073), 10, np.uint8).tobytes()
        files = {"cifar-10-batches-bin/test_batch.bin": content}
    else:
        files = {TEST_BATCH: python_batch(splits.test, **changed)}
    path = write_archive(tmp_path / "a.tar.gz", files)
    with pytest.raises(OSError, match="its labels are not all 0 to 9"):
        read_archive(path, dataset=SAMPLE, pickles=digests(files))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar"])
def test_a_cut_off_archive_is_one_line_and_leaves_nothing(splits, tmp_path, name):
    path = write_archive(tmp_path / name, binary_members(splits))
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(OSError, match=r"it is cut off.*Expected cifar-10-binary"):
        prepare(SAMPLE, data_dir=tmp_path / "data", archive=path)
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == [".cifar10_sample.lock"]


def test_files_that_are_no_archive_say_what_is_wrong(splits, tmp_path):
    members = binary_members(splits)
    del members["cifar-10-batches-bin/data_batch_3.bin"]
    short = {"cifar-10-batches-bin/test_batch.bin": b"\0" * 3073}
    wrong = {
        "data_batch_3 is missing from it": write_archive(tmp_path / "a", members),
        "3073 bytes instead of 1536500": write_archive(tmp_path / "b", short),
        "it is no tar archive": tmp_path / "c",
        "data_batch_1 is missing from it": tmp_path,
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


def test_an_end_that_never_comes_is_not_waited_for(tmp_path):
    member = tarfile.TarInfo("passed over")
    member.size = 2**60
    path = tmp_path / "a.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(OSError, match="passed over in it unpacks to more than CIFAR-10"):
        read_archive(path, dataset=SAMPLE)


@pytest.mark.parametrize("kind", ["a sparse map", "a number", "a chain"])
def test_a_header_that_is_nonsense_is_refused(tmp_path, kind):
    ends_in_a_map = tarfile.TarInfo("a")
    ends_in_a_map.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(ends_in_a_map.tobuf(tarfile.GNU_FORMAT))
    header[482] = 1  # the map of what is in the file goes on in the next block
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))  # checksum
    record = tarfile.TarInfo("a")
    record.type, record.size = tarfile.XHDTYPE, tarfile.BLOCKSIZE
    number = record.tobuf() + b"99999999999999999999 path=a\n".ljust(tarfile.BLOCKSIZE, b"\0")
    record.size = 0
    contents = {
        "a sparse map": bytes(header),
        "a number": number,
        "a chain": record.tobuf() * 5000,  # each is about the next
    }
    path = tmp_path / "a.tar"
    ordinary = tarfile.TarInfo("ordinary").tobuf()
    path.write_bytes(ordinary + contents[kind])
    # Newer Pythons take the number for the archive's end.
    with pytest.raises(OSError, match=r"one of its headers is nonsense|data_batch_1 is missing"):
        read_archive(path, dataset=SAMPLE)
    path.write_bytes(contents[kind])
    with pytest.raises(OSError, match="it is no tar archive"):
        read_archive(path, dataset=SAMPLE)
