import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from keras_cifar.data.examples import Examples
from keras_cifar.history import read_history
from keras_cifar.plot import _history_figure, draw_grid, draw_history
from keras_cifar.run_dir import RunDir

HEADER = "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds\n"
THREE = (
    HEADER
    + "1,1.9,0.30,1.6,0.41,0.05,60.5\n2,1.4,0.50,1.2,0.58,0.03,60.1\n3,1.1,0.61,1.3,0.57,0.0,60.0\n"
)
UNVALIDATED = HEADER + "1,1.9,0.30,,,0.05,60.5\n2,1.4,0.50,,,0.03,60.1\n"


@pytest.fixture
def make_run(tmp_path):
    def make(history, *, name="run"):
        run = RunDir(tmp_path / name)
        run.path.mkdir(parents=True)
        run.history.write_text(history)
        return run

    return make


def curves(axes):
    """Style and data of every line that is drawn."""
    return [(line.get_linestyle(), *map(list, line.get_data())) for line in axes.lines]


def test_history_is_read_as_it_was_written(make_run):
    history = read_history(make_run(THREE).history)
    assert history.epoch == [1, 2, 3]
    assert history.val_accuracy == [0.41, 0.58, 0.57]
    assert history.best_position == 1


def test_training_is_dashed_validation_solid_and_the_best_epoch_marked(make_run):
    figure = _history_figure({"run": read_history(make_run(THREE).history)})
    loss, accuracy = figure.axes
    assert curves(loss) == [
        ("--", [1, 2, 3], [1.9, 1.4, 1.1]),
        ("-", [1, 2, 3], [1.6, 1.2, 1.3]),
        ("None", [2], [1.2]),
    ]
    assert curves(accuracy)[2] == ("None", [2], [0.58])
    assert [text.get_text() for text in figure.legends[0].texts] == ["run: 58.00% in epoch 2"]


def test_a_run_without_validation_has_its_training_curve_alone(make_run):
    figure = _history_figure({"run": read_history(make_run(UNVALIDATED).history)})
    assert curves(figure.axes[0]) == [("--", [1, 2], [1.9, 1.4])]
    assert [text.get_text() for text in figure.axes[0].get_legend().texts] == ["training"]


@pytest.mark.parametrize(
    "name",
    [
        r"$\a$",
        pytest.param(
            "no\udcff", marks=pytest.mark.skipif(sys.platform == "darwin", reason="Unicode alone")
        ),
    ],
)
def test_a_run_with_a_name_that_cannot_be_written_as_it_is_is_drawn(make_run, name):
    run = make_run(THREE, name=name)
    assert draw_history([run], path=run.plot).stat().st_size


def test_one_epoch_shows_as_points(make_run):
    one_epoch = "".join(THREE.splitlines(keepends=True)[:2])
    figure = _history_figure({"run": read_history(make_run(one_epoch).history)})
    assert [line.get_marker() for line in figure.axes[0].lines] == ["o", "o", "o"]
    assert list(figure.axes[0].get_xticks()) == [1]


@given(count=st.integers(1, 40))
def test_each_run_has_a_colour_of_its_own(count):
    history = _three_epochs()
    figure = _history_figure({f"run {i}": history for i in range(count)})
    colours = {line.get_color() for line in figure.axes[0].lines}
    assert len(colours) == count


def _three_epochs():
    from keras_cifar.history import History

    return History(
        epoch=[1, 2, 3],
        loss=[1.9, 1.4, 1.1],
        accuracy=[0.3, 0.5, 0.6],
        val_loss=[1.6, 1.2, 1.3],
        val_accuracy=[0.4, 0.6, 0.5],
        seconds=[9.0, 8.0, 8.5],
    )


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "PNG"])
def test_the_suffix_decides_the_format_and_the_same_run_gives_the_same_file(
    make_run, tmp_path, suffix
):
    runs = [make_run(THREE, name="sgd"), make_run(UNVALIDATED, name="adam")]
    once, again = (draw_history(runs, path=tmp_path / f"{i}.{suffix}") for i in range(2))
    assert once.read_bytes() == again.read_bytes()
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix.lower()]
    assert once.read_bytes().startswith(start)
    if suffix == "svg":
        assert b"sgd" in once.read_bytes()


def test_runs_of_one_name_are_told_apart_by_their_paths(make_run, tmp_path):
    runs = [make_run(THREE, name="a/run"), make_run(THREE, name="b/run")]
    svg = draw_history(runs, path=tmp_path / "both.svg").read_text()
    assert str(runs[0].path) in svg
    assert str(runs[1].path) in svg
    with pytest.raises(ValueError, match=r"run_dirs: got .*expected each run once"):
        draw_history([runs[0], runs[0]], path=tmp_path / "twice.svg")


def test_a_picture_is_replaced_only_by_a_whole_one(make_run, tmp_path):
    path = draw_history([make_run(THREE)], path=tmp_path / "history.png")
    with pytest.raises(FileNotFoundError):
        draw_history([RunDir(tmp_path / "none")], path=path)
    with Image.open(path) as picture:
        assert picture.size == (2000, 910)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["history.png", "run"]


@pytest.mark.parametrize("name", ["history.jpg", "history", "history.txt"])
def test_other_suffixes_are_refused(make_run, tmp_path, name):
    message = rf"path: got '{name}', expected a name that ends in \.png, \.svg, \.pdf"
    with pytest.raises(ValueError, match=message):
        draw_history([make_run(THREE)], path=tmp_path / name)


def test_a_missing_folder_is_named(make_run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"figures: no such folder\. Make it, or"):
        draw_history([make_run(THREE)], path=tmp_path / "figures" / "history.png")


def test_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="run_dirs: got none, expected at least one run"):
        draw_history([], path=tmp_path / "history.png")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not the history of a run .no column epoch"),
        (HEADER, "no epoch in it yet"),
        ("epoch,loss\n1,2.0\n", "no column accuracy, val_loss"),
        (THREE.replace("0.58", "much"), "could not convert string to float"),
        (THREE.replace("1.4,0.50,1.2", ""), "too few or too many values"),
        (THREE[:-15], "too few or too many values"),
        (THREE.replace("\n2,", "\n7,"), "epochs that do not count 1, 2, 3"),
        (THREE.replace("0.58", ""), "could not convert string to float"),
        (THREE.replace("0.58", "5.8"), "an accuracy that is not from 0 to 1"),
        (THREE.replace("60.1", "1e308"), "an epoch of no possible time"),
        (THREE.replace("60.1", "-1"), "an epoch of no possible time"),
        ("\x00\x01\x02", "no column|line contains NUL"),
    ],
)
def test_a_malformed_history_is_refused_in_one_line(make_run, tmp_path, content, reason):
    run = make_run(content)
    with pytest.raises(OSError, match=reason) as refused:
        draw_history([run], path=tmp_path / "history.png")
    assert str(refused.value).startswith(f"{run.history}: ")
    assert "\n" not in str(refused.value)


def test_a_history_that_is_no_text_is_refused(make_run, tmp_path):
    run = make_run(THREE)
    run.history.write_bytes(b"\xff\xfe" + bytes(range(256)))
    with pytest.raises(OSError, match="not the history of a run"):
        draw_history([run], path=tmp_path / "history.png")


def test_a_missing_history_says_who_writes_one(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"history\.csv: no history here.*keras-cifar train"
    ):
        draw_history([RunDir(tmp_path)], path=tmp_path / "history.png")


def test_the_grid_shows_ten_images_of_each_class_unblurred(sample, tmp_path):
    path = draw_grid(sample, path=tmp_path / "grid.png", seed=0)
    with Image.open(path) as file:
        picture = np.asarray(file.convert("RGB"))
    top, left = 20, picture.shape[1] - 20 - 4 * 347  # a margin of 20 dots, and 4 dots a pixel
    mosaic = picture[top : top + 4 * 347 : 4, left : left + 4 * 347 : 4]
    rows = [mosaic[35 * row : 35 * row + 32] for row in range(10)]
    known = {image.tobytes(): label for image, label in zip(*sample, strict=True)}
    shown = [
        [known[row[:, 35 * column : 35 * column + 32].tobytes()] for column in range(10)]
        for row in rows
    ]
    assert shown == [[label] * 10 for label in range(10)]


def test_the_seed_decides_the_grid(sample, tmp_path):
    first, again, other = (
        draw_grid(sample, path=tmp_path / f"{i}.png", seed=seed).read_bytes()
        for i, seed in enumerate([1, 1, 2])
    )
    assert first == again
    assert first != other


def test_too_few_images_of_a_class_are_refused(sample, tmp_path):
    few = Examples(sample.images[:50], sample.labels[:50])
    with pytest.raises(ValueError, match=r"examples: got \d of \w+, expected at least 10"):
        draw_grid(few, path=tmp_path / "grid.png", seed=0)
