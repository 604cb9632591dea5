"""Files appear whole or not at all, and a folder has one owner at a time."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keras_cifar.files import locked, make_folder, naming, remove_unfinished, replacing


def test_a_file_is_replaced_when_the_block_ends_well(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208 (names alone)


def write_half_and_fail(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError


def test_the_old_file_stays_when_the_block_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half_and_fail(path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_without_a_name_gets_one_and_a_message_stays_as_it_is(tmp_path):
    for error, expected in (
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("it cannot be read"), "it cannot be read"),
    ):
        with pytest.raises(OSError, match=expected) as raised, naming(tmp_path):
            raise error
        assert raised.value.filename == (str(tmp_path) if error.errno else None)


def test_a_new_file_has_the_permissions_that_the_user_set(tmp_path):
    old = os.umask(0o027)
    try:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_the_name_of_each_new_folder_is_written_to_the_disk(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append(os.fstat(file).st_ino) or fsync(file)
    )
    assert make_folder(tmp_path / "a" / "b" / "c")
    assert synced == [(tmp_path / name).stat().st_ino for name in (".", "a", "a/b")]
    assert not make_folder(tmp_path / "a" / "b" / "c")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "link" / "a")


def test_what_a_killed_process_left_is_removed(tmp_path):
    code = (
        "import os, pathlib, signal\n"
        "from keras_cifar.files import replacing\n"
        f"with replacing(pathlib.Path({str(tmp_path)!r}) / 'a.txt') as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], check=False)
    assert result.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    assert not (tmp_path / "a.txt").exists()
    (tmp_path / "kept.txt").write_text("mine")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def holding(path: Path) -> "subprocess.Popen[str]":
    """A process that holds the lock until its stdin closes."""
    code = (
        "import pathlib, sys\n"
        "from keras_cifar.files import locked\n"
        f"with locked(pathlib.Path({str(path)!r}), when_busy=sys.exit):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_that_a_process_holds_is_busy_until_it_is_killed(tmp_path):
    path = tmp_path / "lock"

    def refuse():
        raise BlockingIOError("busy")

    with holding(path) as process:
        with pytest.raises(BlockingIOError, match="busy"), locked(path, when_busy=refuse):
            pass
        process.kill()
        process.wait()
        with locked(path, when_busy=refuse):
            pass


def test_a_busy_lock_can_be_waited_for(tmp_path):
    path = tmp_path / "lock"
    with holding(path) as process, locked(path, when_busy=process.stdin.close):
        assert process.wait(timeout=300) == 0
