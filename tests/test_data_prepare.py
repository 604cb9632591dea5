"""From a mirror on this machine to a TFDS folder, and all that may go wrong between."""

import functools
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_cifar import cifar10
from keras_cifar.cifar10 import CIFAR10, SAMPLE
from keras_cifar.data.prepare import default_data_dir, load, prepare
from keras_cifar.data.source import fetch
from keras_cifar.data.source.parquet import read_parquet
from keras_cifar.data.tfds_folder import dataset_folder, read_split
from keras_cifar.files import locked

TRAIN, TEST = fetch.PARQUET_FILES


def write_parquet(path, *, pngs, labels):
    images = [{"bytes": png, "path": None} for png in pngs]
    img = pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"img": img, "label": pa.array(labels, pa.int64())}), path)


def as_png(image):
    return tf.io.encode_png(image).numpy()


@pytest.fixture(scope="module")
def parquet_dir(tmp_path_factory):
    """The sample in the form of the Hugging Face hub."""
    folder = tmp_path_factory.mktemp("parquet")
    for name, split in ((TRAIN, "train"), (TEST, "test")):
        examples = load(SAMPLE, split=split, data_dir=None)
        pngs = [as_png(image) for image in examples.images]
        write_parquet(folder / name, pngs=pngs[::-1], labels=examples.labels[::-1])
    return folder


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *ignored):
        pass


@pytest.fixture
def serve_folder(monkeypatch):
    """Gives a function that serves a folder on this machine and returns its URL."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def start(folder):
        handler = functools.partial(QuietHandler, directory=folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def assert_same_content(folder, *, dataset=SAMPLE):
    for split in ("train", "test"):
        # Raises if the content is another.
        read_split(folder, split=split, dataset=dataset)


def test_the_sample_needs_no_network_and_writes_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "absent"))
    folder = prepare(SAMPLE, data_dir=None)
    assert folder == Path(cifar10.__file__).parent / "data/sample/cifar10_sample/1.0.0"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6_000_000
    assert not (tmp_path / "absent").exists()
    assert capfd.readouterr().out == ""


def test_the_sample_is_a_part_of_cifar10(full_data_dir):
    for split in ("train", "test"):
        full = load(CIFAR10, split=split, data_dir=full_data_dir)
        whole = {image.tobytes(): label for image, label in zip(*full, strict=True)}
        part = load(SAMPLE, split=split, data_dir=None)
        assert all(whole[image.tobytes()] == label for image, label in zip(*part, strict=True))


def test_a_mirror_becomes_a_folder_that_tfds_reads_itself(
    parquet_dir, serve_folder, tmp_path, capfd
):
    folder = prepare(SAMPLE, data_dir=tmp_path, mirror=serve_folder(parquet_dir))
    assert folder == tmp_path / "cifar10_sample" / "1.0.0"
    assert_same_content(folder)
    loaded = tfds.load("cifar10_sample", data_dir=tmp_path, split="test", as_supervised=True)
    image, label = next(iter(loaded))
    assert image.shape == (32, 32, 3)
    assert label.dtype == tf.int64
    # Neither downloads nor temporary files stay.
    assert {path.name for path in tmp_path.iterdir()} == {
        ".cifar10_sample.lock",
        "cifar10_sample",
        "downloads",
    }
    assert not list((tmp_path / "downloads").rglob("*.*"))
    out, err = capfd.readouterr()
    assert out == ""
    assert "Downloading cifar10_sample from http://127.0.0.1" in err


def test_what_is_prepared_is_used_and_nothing_else_read(parquet_dir, serve_folder, tmp_path, capfd):
    mirror = serve_folder(parquet_dir)
    folder = prepare(SAMPLE, data_dir=tmp_path, mirror=mirror)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    capfd.readouterr()
    assert prepare(SAMPLE, data_dir=tmp_path) == folder
    assert capfd.readouterr() == ("", "")
    for source in ({"mirror": "http://127.0.0.1:9"}, {"archive": tmp_path / "absent"}):
        assert prepare(SAMPLE, data_dir=tmp_path, **source) == folder
        (name,) = source.values()
        assert f"is prepared already, so {name} is not read" in capfd.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_the_next_source_is_tried_when_one_lies(parquet_dir, serve_folder, tmp_path, capsys):
    lies = tmp_path / "lies"
    lies.mkdir()
    (lies / TRAIN).write_bytes((parquet_dir / TEST).read_bytes())
    (lies / TEST).write_bytes((parquet_dir / TEST).read_bytes())
    sources = (serve_folder(lies), serve_folder(parquet_dir))
    (tmp_path / "downloads").mkdir()
    splits, _ = fetch.fetch_first(sources, dataset=SAMPLE, folder=tmp_path / "downloads")
    assert len(splits.train.labels) == 2000
    assert "has 500 rows instead of 2000). The download was removed" in capsys.readouterr().err
    assert len(list((tmp_path / "downloads").iterdir())) == 2


def test_no_source_is_one_error_with_three_ways_out(serve_folder, tmp_path):
    mirror = f"{serve_folder(tmp_path)}/cifar-10-binary.tar.gz"
    with pytest.raises(OSError, match="could not be downloaded") as raised:
        prepare(SAMPLE, data_dir=tmp_path / "data", mirror=mirror)
    message = str(raised.value)
    assert f"{mirror}: the server answers 404" in message
    assert all(way in message for way in ("--data-dir", "--archive", "--dataset sample"))
    assert "\n" not in message
    assert not (tmp_path / "data" / SAMPLE.name).exists()


@pytest.mark.parametrize("mirror", ["", "mirror.org/cifar", "file:///etc/passwd"])
def test_a_mirror_that_is_no_url_is_refused(tmp_path, mirror):
    with pytest.raises(ValueError, match=f"^mirror: got '{mirror}', expected a URL"):
        prepare(SAMPLE, data_dir=tmp_path, mirror=mirror)


def changed_parquet(parquet_dir, path, *, png=None, label=None, columns=("img", "label")):
    table = pq.read_table(parquet_dir / TEST)
    pngs = table["img"].combine_chunks().field("bytes").to_pylist()
    labels = table["label"].to_pylist()
    pngs[7], labels[7] = png or pngs[7], labels[7] if label is None else label
    write_parquet(path, pngs=pngs, labels=labels)
    pq.write_table(pq.read_table(path).rename_columns(list(columns)), path)
    return path


def test_a_parquet_file_that_is_not_right_is_one_line(parquet_dir, tmp_path):
    good = as_png(np.zeros((32, 32, 3), np.uint8))
    # Its header claims 50,000 x 50,000 pixels, which nobody must try to decode.
    huge = good[:16] + (50_000).to_bytes(4, "big") * 2 + good[24:]
    text = tmp_path / "text"
    text.write_text("<html>Sign in to the network</html>")
    cut = tmp_path / "cut"
    cut.write_bytes((parquet_dir / TEST).read_bytes()[:-1000])
    # The file claims 500 rows in place of 2,000 (in Thrift's protocol), its row group does not.
    longer = tmp_path / "longer"
    content = (parquet_dir / TRAIN).read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    rows = content.index(b"\x16\xa0\x1f", footer)
    longer.write_bytes(content[:rows] + b"\x16\xe8\x07" + content[rows + 3 :])
    change = functools.partial(changed_parquet, parquet_dir)
    wrong = {
        text: "",
        cut: "",
        tmp_path / "absent": "",
        parquet_dir / TRAIN: "has 2000 rows instead of 500",
        longer: "has more than the 500 rows that it claims",
        change(tmp_path / "a", png=huge): "not all its images are PNGs of 32x32 pixels",
        change(tmp_path / "b", png=b"GIF89a"): "not all its images are PNGs of 32x32 pixels",
        change(tmp_path / "c", png=good[:60]): "",
        change(tmp_path / "d", label=10): "its labels are not all 0 to 9",
        change(tmp_path / "e", columns=("image", "label")): "",
        change(tmp_path / "f", columns=("label", "img")): "",
        change(tmp_path / "g", png=good + bytes(10**5)): "one of its rows has 1000",
    }
    for path, reason in wrong.items():
        with pytest.raises(OSError, match=f"is no Parquet file of CIFAR-10.*{reason}") as raised:
            read_parquet(path, path, dataset=SAMPLE._replace(train=SAMPLE.test))
        assert "\n" not in str(raised.value)


def test_what_a_killed_process_left_is_removed(parquet_dir, serve_folder, tmp_path):
    leftover = tmp_path / f".unfinished-{SAMPLE.name}-abc" / SAMPLE.name
    leftover.mkdir(parents=True)
    other = tmp_path / ".unfinished-cifar10-abc"
    other.mkdir()
    prepare(SAMPLE, data_dir=tmp_path, mirror=serve_folder(parquet_dir))
    assert not leftover.parent.exists()
    assert other.exists()


def test_a_folder_in_the_way_is_left_alone(tmp_path):
    precious = dataset_folder(SAMPLE, data_dir=tmp_path) / "precious.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    with pytest.raises(FileExistsError, match="is in the way, and holds no prepared dataset"):
        prepare(SAMPLE, data_dir=tmp_path, mirror="http://127.0.0.1:9")
    assert precious.read_text() == "mine"


def test_a_data_dir_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(OSError, match=f"^{path}: cannot hold the data .File exists"):
        prepare(SAMPLE, data_dir=path, mirror="http://127.0.0.1:9")


def test_the_default_data_dir_is_that_of_tfds(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / "tensorflow_datasets"


PREPARE = """
import sys
from pathlib import Path
from keras_cifar.cifar10 import SAMPLE
from keras_cifar.data.prepare import prepare
print(prepare(SAMPLE, data_dir=Path(sys.argv[1]), mirror=sys.argv[2]))
"""


def test_two_processes_at_once_prepare_it_once(parquet_dir, serve_folder, tmp_path, eventually):
    data_dir, told = tmp_path / "data", [tmp_path / "first", tmp_path / "second"]
    command = [sys.executable, "-c", PREPARE, str(data_dir), serve_folder(parquet_dir)]
    data_dir.mkdir()
    # Until both wait for it: on a busy machine, one may be done before the other begins.
    with locked(data_dir / f".{SAMPLE.name}.lock", when_busy=pytest.fail):
        processes = []
        for path in told:
            with path.open("w") as stderr:
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
                processes.append(process)
        waiting = "Another process is preparing"
        eventually(lambda: all(waiting in path.read_text() for path in told), seconds=600)
    printed = [process.communicate(timeout=600)[0] for process in processes]
    folder = dataset_folder(SAMPLE, data_dir=data_dir)
    said = [path.read_text() for path in told]
    assert printed == [f"{folder}\n".encode()] * 2, said
    assert sum("Prepared" in text for text in said) == 1
    assert_same_content(folder)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB: room for the downloads, none for all that is made from them."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "filled", [4_000_000, 9_000_000], ids=["while writing", "while downloading"]
)
def test_a_disk_that_fills_is_one_line_and_leaves_nothing_half(
    parquet_dir, serve_folder, small_disk, filled
):
    (small_disk / "other").write_bytes(bytes(filled))
    with pytest.raises(OSError, match=r"No space left|RESOURCE_EXHAUSTED") as raised:
        prepare(SAMPLE, data_dir=small_disk, mirror=serve_folder(parquet_dir))
    assert "\n" not in str(raised.value)
    assert "Make room or give another folder with --data-dir" in str(raised.value)
    assert not list(small_disk.glob(".unfinished-*"))
    assert not list(small_disk.rglob("*.part"))
    assert not dataset_folder(SAMPLE, data_dir=small_disk).exists()


@pytest.mark.slow
def test_the_full_data_comes_through_a_mirror_unchanged(full_data_dir, serve_folder, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    original = dataset_folder(CIFAR10, data_dir=full_data_dir)
    builder = tfds.builder_from_directory(original)
    decoders = {"image": tfds.decode.SkipDecoding()}
    for name, split in ((TRAIN, "train"), (TEST, "test")):
        whole = builder.as_dataset(split=split, decoders=decoders, batch_size=-1)
        pngs, labels = whole["image"].numpy().tolist(), whole["label"].numpy().tolist()
        write_parquet(source / name, pngs=pngs, labels=labels)
    folder = prepare(CIFAR10, data_dir=tmp_path / "data", mirror=serve_folder(source))
    # Both compare all images and labels with the digest of CIFAR-10; this one, what was written.
    assert len(read_split(folder, split="train", dataset=CIFAR10).labels) == 50_000
    loaded, info = tfds.load("cifar10", data_dir=tmp_path / "data", with_info=True)
    assert info.features["label"].names == list(cifar10.CLASS_NAMES)
    assert next(iter(loaded["test"]))["image"].shape == (32, 32, 3)
