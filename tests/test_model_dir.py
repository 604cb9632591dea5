"""Versions appear whole, under numbers that nobody else took."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from keras_cifar.model_dir import (
    publish,
    refuse_existing,
    refuse_other_formats,
    unfinished_version,
    version_format,
    versions,
)


def new_version(model_dir, *, number=None, content="model"):
    with unfinished_version(model_dir) as folder:
        (folder / "saved_model.pb").write_text(content)
        return publish(folder, number=number)


def test_versions_are_what_tensorflow_serving_takes_for_them(tmp_path):
    for name in ("2", "10", "007", "1764000000", str(2**63 - 1)):
        (tmp_path / name).mkdir()
    for name in ("1.5", "-3", "v4", ".unfinished-5", str(2**63), "٣", "6 "):
        (tmp_path / name).mkdir()
    found = versions(tmp_path)
    assert list(found) == [2, 7, 10, 1764000000, 2**63 - 1]
    assert found[7] == tmp_path / "007"


def test_a_folder_that_is_not_there_has_no_versions(tmp_path):
    assert versions(tmp_path / "none") == {}


def test_numbers_follow_the_highest_one(tmp_path):
    assert new_version(tmp_path / "models").name == "1"
    assert new_version(tmp_path / "models").name == "2"
    assert new_version(tmp_path / "models", number=40).name == "40"
    assert new_version(tmp_path / "models").name == "41"


def test_a_version_is_seen_only_when_it_is_published(tmp_path):
    with unfinished_version(tmp_path) as folder:
        (folder / "saved_model.pb").write_text("model")
        assert versions(tmp_path) == {}
        publish(folder, number=None)
        assert list(versions(tmp_path)) == [1]
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "model"


def test_what_was_not_published_is_gone(tmp_path):
    with unfinished_version(tmp_path) as folder:
        (folder / "saved_model.pb").write_text("half")
    assert not folder.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_server_that_runs_as_another_user_can_read_a_version(tmp_path):
    old = os.umask(0o022)
    try:
        assert new_version(tmp_path).stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(old)


def test_a_version_that_exists_is_never_replaced(tmp_path):
    new_version(tmp_path, number=7, content="first")
    message = r"7: this version exists. Name another --version, or none"
    with pytest.raises(FileExistsError, match=message):
        refuse_existing(tmp_path, number=7)
    with pytest.raises(FileExistsError, match=message):
        new_version(tmp_path, number=7, content="second")
    assert (tmp_path / "7" / "saved_model.pb").read_text() == "first"
    assert not list(tmp_path.glob(".unfinished-*"))
    refuse_existing(tmp_path, number=8)
    refuse_existing(tmp_path, number=None)


def test_a_number_with_leading_zeros_is_taken_too(tmp_path):
    (tmp_path / "007").mkdir()
    with pytest.raises(FileExistsError, match="007: this version exists"):
        new_version(tmp_path, number=7)


def test_behind_the_highest_number_of_all_one_has_to_be_named(tmp_path):
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(FileExistsError, match=r"775807: no number is higher. Name a free one"):
        new_version(tmp_path)
    assert new_version(tmp_path, number=5).name == "5"


def test_exports_at_once_get_different_numbers(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: new_version(tmp_path, content=str(i)), range(64)))
    assert sorted(int(path.name) for path in found) == list(range(1, 65))
    for i, path in enumerate(found):
        assert (path / "saved_model.pb").read_text() == str(i)


KILLED = """
import os, pathlib, signal, sys
from keras_cifar.model_dir import unfinished_version
with unfinished_version(pathlib.Path(sys.argv[1])) as folder:
    (folder / "saved_model.pb").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_export_left_counts_for_nothing_and_goes_with_the_next(tmp_path):
    result = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert result.returncode == -signal.SIGKILL
    (left,) = tmp_path.glob(".unfinished-*")
    assert (left / "saved_model.pb").read_text() == "half"
    assert versions(tmp_path) == {}
    new_version(tmp_path)
    assert not left.exists()


def test_an_export_leaves_alone_what_another_one_is_writing(tmp_path):
    with unfinished_version(tmp_path) as folder:
        (folder / "saved_model.pb").write_text("slow")
        assert new_version(tmp_path).name == "1"
        assert publish(folder, number=None).name == "2"
    assert (tmp_path / "2" / "saved_model.pb").read_text() == "slow"


def test_one_folder_holds_one_format(tmp_path):
    version = new_version(tmp_path)
    (tmp_path / "2").mkdir()  # of what format, nobody knows
    assert version_format(version) == "saved_model"
    assert version_format(tmp_path / "2") is None
    refuse_other_formats(tmp_path, format="saved_model")
    with pytest.raises(FileExistsError, match=r"1: holds a model as saved_model\. Name another"):
        refuse_other_formats(tmp_path, format="onnx")
