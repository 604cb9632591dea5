"""`predict` of folders and of long lists: answers as they are made, and none lost."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from keras_cifar.client import Failure, Prediction, find_images, stream_predictions
from keras_cifar.client.folders import read_list


@pytest.fixture(scope="module")
def photos(sample, tmp_path_factory):
    """A folder with a subfolder, and much in them that is no picture."""
    folder = tmp_path_factory.mktemp("pictures") / "photos"
    for name in ("b.PNG", "a.jpg", "2024/c.webp", ".thumbnails/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.images[0]).save(folder / name)
    for name in ("notes.txt", "2024/c.mov", "._a.jpg"):
        (folder / name).write_text("no picture")
    (folder / "nothing").mkdir()
    return folder


def found_in(*paths):
    return list(find_images(paths))


# What a folder stands for


def test_a_folder_stands_for_the_pictures_in_it_and_in_its_subfolders(photos):
    expected = [photos / "a.jpg", photos / "b.PNG", photos / "2024" / "c.webp"]
    assert sorted(found_in(photos)) == sorted(expected)
    assert found_in(photos / "a.jpg", photos)[0] == photos / "a.jpg"


def test_pictures_that_cannot_be_read_are_found_all_the_same(tmp_path):
    names = sorted(["a.heic", "b.TIFF", "c.avif", "d.jxl"])
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in found_in(tmp_path)] == names


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    (tmp_path / "c.png").symlink_to("nowhere")
    failure = Failure(tmp_path / "a.png", "is no file")
    assert found_in(tmp_path) == [failure, tmp_path / "b.png", tmp_path / "c.png"]


def test_a_link_that_leads_round_ends(photos, tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "round").symlink_to(tmp_path)
    assert found_in(tmp_path) == [tmp_path / "a.png"]


def test_a_folder_without_pictures_is_a_failure(photos):
    (failure,) = found_in(photos / "nothing")
    assert failure == Failure(
        photos / "nothing", "no pictures in this folder; expected PNG, JPEG, BMP, GIF, WebP"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_costs_no_other_its_pictures(photos, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    (tmp_path / "a.png").touch()
    expected = [tmp_path / "a.png", Failure(closed, "Permission denied")]
    assert found_in(tmp_path) == expected
    assert found_in(closed) == expected[1:]


def test_a_model_is_not_taken_for_pictures(trained_run, exported):
    models = [trained_run.path, exported.version, exported.version.parent, trained_run.model]
    for path, failure in zip(models, found_in(*models), strict=True):
        assert failure == Failure(path, f"is a model, not a picture. To ask it: --model {path}")


def test_folders_named_as_versions_are_hold_pictures(sample, tmp_path):
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "a.png").touch()
    assert found_in(tmp_path) == [tmp_path / "2024" / "a.png"]


# Lists


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a.png\nb c.png\n", ["a.png", "b c.png"]),
        (b"a.png\r\n\r\n\nb.png", ["a.png", "b.png"]),
        (b"a\n.png\0\xff\0", ["a\n.png", os.fsdecode(b"\xff")]),
        (b"", []),
    ],
)
def test_a_list_has_a_path_a_line_or_nul_between_them(content, expected):
    assert list(read_list(io.BufferedReader(io.BytesIO(content)))) == [*map(Path, expected)]


def test_paths_longer_than_a_chunk_are_put_together(monkeypatch):
    monkeypatch.setattr("keras_cifar.client.folders._CHUNK_BYTES", 3)
    content = b"first.png\nsecond.png\nthird"
    found = list(read_list(io.BufferedReader(io.BytesIO(content), 4)))
    assert found == [Path("first.png"), Path("second.png"), Path("third")]


# Answers as they are made


def test_a_million_paths_are_read_as_answers_are_asked_for(trained_run, photos):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield photos / "a.jpg"

    results = stream_predictions(endless(), model=trained_run.path)
    assert [type(next(results)) for _ in range(3)] == [Prediction] * 3
    assert taken <= 501


def test_failures_are_passed_on_in_their_places(trained_run, photos):
    failure = Failure(Path("x"), "because")
    paths = [photos / "a.jpg", failure, Path("a\0b"), photos / "b.PNG"]
    first, second, third, fourth = stream_predictions(paths, model=trained_run.path)
    assert second == failure
    assert third == Failure(Path("a\0b"), "embedded null byte")
    assert [first.file, fourth.file] == [photos / "a.jpg", photos / "b.PNG"]


# The command


def test_predict_of_folders_and_a_list_tells_of_each_file(command, server, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    listed = [tmp_path / "photo.heic", tmp_path / "none.png", photos / "2024"]
    given = "\n".join(map(str, listed))
    arguments = ["predict", photos, tmp_path / "empty", "--files-from", "-", "--url", server.url]
    result = command(*arguments, "--json", input=given)
    documents = json.loads(result.stdout)
    assert [Path(document["file"]).name for document in documents] == [
        *("a.jpg", "b.PNG", "c.webp", "empty", "photo.heic", "none.png", "c.webp")
    ]
    errors = {Path(d["file"]).name: d["error"] for d in documents if "error" in d}
    assert errors == {
        "empty": "no pictures in this folder; expected PNG, JPEG, BMP, GIF, WebP",
        "photo.heic": "an image in HEIC, which cannot be read. Save it as PNG or JPEG",
        "none.png": "No such file or directory",
    }
    for document in documents:
        assert set(document) in ({"file", "error"}, {"file", "label", "probabilities"})
    assert result.returncode == 1
    assert [re.match(r"Error: \S+/(\S+): ", line)[1] for line in result.stderr.splitlines()] == [
        *errors
    ]
    text = command(*arguments, input=given)
    assert (text.returncode, text.stderr) == (1, result.stderr)
    assert len(text.stdout.splitlines()) == 4


@contextmanager
def asked_for_501(server, photo, **options):
    """Predict, which knows of 501 paths and waits for more, and the 500 lines that it printed."""
    arguments = ["predict", "--files-from", "-", "--url", server.url, "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "keras_cifar", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        process.stdin.write(f"{photo}\n" * 501)
        process.stdin.flush()
        yield process, [process.stdout.readline() for _ in range(500)]


def test_predict_answers_while_the_list_is_not_yet_complete(server, photos):
    """Of 500 paths, as many as are asked about together, the answers come before the 501st path."""
    with asked_for_501(server, photos / "a.jpg") as (process, lines):
        process.send_signal(signal.SIGINT)
        lines += process.stdout
        assert process.wait() == 130
    assert len(json.loads("".join(lines))) == 500


def test_a_server_that_goes_away_costs_no_answer_that_it_gave(serving, exported, photos, tmp_path):
    with (
        serving(tmp_path, exported.version.parent, "--access-log", "off") as server,
        asked_for_501(server, photos / "a.jpg", stderr=subprocess.PIPE) as (process, lines),
    ):
        server.process.terminate()
        server.process.wait()
        rest, errors = process.communicate()
    assert len(json.loads("".join(lines) + rest)) == 500
    assert process.returncode == 1
    assert errors.startswith(f"Error: {server.url}: cannot be asked now (")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "Error: {}: No such file or directory."), ("", "Error: --files-from: no paths in t")],
)
def test_a_list_that_is_missing_or_empty_is_one_line(command, server, tmp_path, content, message):
    path = tmp_path / "list"
    if content is not None:
        path.write_text(content)
    result = command("predict", "--files-from", path, "--url", server.url)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(message.format(path))
