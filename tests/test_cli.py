"""The commands as a person at the terminal meets them, most of them in processes of their own."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.cli import main
from keras_cifar.run_dir import RunDir

# 200 images, so a step or a few an epoch.
TINY = ("train", "--dataset", "sample", "--validation-fraction", "0.9")
EPOCH_LINE = re.compile(
    r"epoch +\d+/\d+  accuracy 0\.\d{4}  loss \d\.\d{4}  val_accuracy 0\.\d{4}  val_loss \d\.\d{4}"
    r"  [\d,]+ images/s  \d+ s, .+ left"
)


@pytest.fixture
def in_process():
    """Runs a command in this process, which has TensorFlow already."""
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda *arguments: CliRunner().invoke(main, [str(a) for a in arguments])
    signal.signal(signal.SIGTERM, handler)


@contextmanager
def running(*arguments, **options):
    """A keras-cifar process that does not outlive the block."""
    command = [sys.executable, "-m", "keras_cifar", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def image(sample, tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "image.png"
    Image.fromarray(sample.images[0]).save(path)
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "models", "--poll"),
        ("serve", "models", "--models-config-poll"),
        ("serve", "models", "--timeout"),
        ("predict", "a.png", "--url", "http://localhost:8501", "--timeout"),
        ("predict", "a.png", "--url", "http://localhost:8501", "--wait"),
        ("evaluate", "run", "--tta", "--tta-share"),
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[-1]}",
)
@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e10"])
def test_a_number_without_a_bound_is_wrong_usage(in_process, arguments, number):
    result = in_process(*arguments, number)
    assert result.exit_code == 2
    fault = f"Error: Invalid value for '{arguments[-1]}': {float(number)} is not "
    assert result.stderr.splitlines()[-1].startswith(fault)


# Training


def test_train_prints_its_result_and_nothing_else_on_stdout(training, trained_run):
    assert training.stdout.count("\n") == 1
    assert re.fullmatch(
        re.escape(str(trained_run.path)) + r": val_accuracy 0\.\d{4}, epoch [12]\n", training.stdout
    )


def test_off_a_terminal_stderr_has_a_line_an_epoch_and_no_noise(training, trained_run):
    what, precision, onednn, *epochs, next_step = training.stderr.splitlines()
    assert what == (
        f"{trained_run.path}: article recipe with sgd on 1,600 images of sample, epochs 2, seed 0"
    )
    assert re.fullmatch(r"precision: (float32|bfloat16|float16) \(.+\)", precision)
    assert re.fullmatch(r"oneDNN: (on|off) \(.+\)", onednn)
    assert [line.split()[1] for line in epochs] == ["1/2", "2/2"]
    assert all(EPOCH_LINE.fullmatch(line) for line in epochs), epochs
    assert next_step == f"Test it: keras-cifar evaluate {trained_run.path}"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (
            ("--recipe", "fast94", "--optimizer", "adam"),
            "--optimizer: got 'adam', expected one of muon.",
        ),
        (
            ("--optimizer", "muon"),
            "--optimizer: got 'muon', expected one of sgd, adam.",
        ),
        (
            ("--recipe", "fast96", "--strategy", "mirrored"),
            "--strategy: got 'mirrored', expected one of auto, single.",
        ),
    ],
)
def test_what_a_recipe_cannot_do_is_wrong_usage(in_process, arguments, fault):
    result = in_process("train", "--dataset", "sample", *arguments)
    assert result.exit_code == 2
    assert fault in result.stderr


def test_train_draws_the_history_of_the_run(trained_run):
    assert trained_run.plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_on_a_terminal_a_bar_shows_how_it_goes_and_ctrl_c_ends_the_run(tmp_path, rest_of):
    run = tmp_path / "run"
    terminal, stderr = pty.openpty()
    options = ("--epochs", 100, "--batch-size", 50, "--run-dir", run)
    environment = {**os.environ, "COLUMNS": "80"}
    shown = b""
    with running(*TINY, *options, stderr=stderr, env=environment) as process:
        os.close(stderr)
        while b"images/s  " not in shown.partition(b"val_loss")[2]:
            shown += os.read(terminal, 1000)
        process.send_signal(signal.SIGINT)
        shown += rest_of(terminal)
        assert process.wait(timeout=600) == 130
        assert process.stdout.read() == b""
    lines = shown.decode().split("\r\n")
    bars = [bar for line in lines for bar in line.split("\r\x1b[K") if "[#" in bar]
    assert re.fullmatch(
        r"epoch +1/100  \[#+-*\]  loss \d\.\d{3}  accuracy 0\.\d{3}  [\d,]+ images/s  "
        r"\d+:\d\d:\d\d left",
        bars[0],
    )
    assert all(len(bar) < 80 for bar in bars)
    assert any(EPOCH_LINE.fullmatch(line.rpartition("\x1b[K")[2]) for line in lines)
    # Not behind the bar, and the cursor that a bar may hide was never hidden.
    assert lines[-2].endswith(
        f"\r\x1b[KInterrupted. Go on with: keras-cifar train --resume --run-dir {run}"
    )
    assert "\x1b[?25l" not in shown.decode()
    assert "Traceback" not in shown.decode()


@pytest.mark.slow
def test_a_run_replaces_another_when_told_to_has_one_process_and_ends_by_sigterm(
    tmp_path, in_process
):
    run = RunDir(tmp_path / "my run")
    run.path.mkdir()
    # The lock tells that it was a run, of which a kill left so much.
    for path in (run.model, run.metrics, run.path / ".lock", run.path / "notes.txt"):
        path.write_text("mine")
    options = ("--epochs", 1000, "--run-dir", run.path, "--overwrite")
    with running(*TINY, *options, stderr=subprocess.PIPE, text=True) as process:
        lines = iter(process.stderr.readline, "")
        assert any(EPOCH_LINE.fullmatch(line.rstrip()) for line in lines)
        second = in_process("train", "--resume", "--run-dir", run.path)
        assert process.poll() is None
        process.terminate()
        stdout, stderr = process.communicate(timeout=600)
    assert second.exit_code == 1
    assert f"Error: {run.path}: another process is training here." in second.output
    assert process.returncode == 143
    assert stdout == ""
    assert stderr.splitlines()[-1] == (
        f"Interrupted. Go on with: keras-cifar train --resume --run-dir '{run.path}'"
    )
    assert "Traceback" not in stderr
    assert not run.metrics.exists()
    assert (run.path / "notes.txt").read_text() == "mine"
    assert run.model.stat().st_size > 20e6
    assert list(run.checkpoint.iterdir())


# Looking at a run


def test_evaluate_prints_as_json_what_metrics_json_holds(command, trained_run):
    result = command("evaluate", trained_run.path, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document == json.loads(trained_run.metrics.read_text())
    assert (document["split"], document["examples"]) == ("test", 500)
    assert list(document["per_class"]) == list(CLASS_NAMES)


def test_evaluate_takes_the_newest_run_and_prints_a_table(
    in_process, trained_run, tmp_path, monkeypatch
):
    (tmp_path / "runs").symlink_to(trained_run.path.parent)
    monkeypatch.chdir(tmp_path)
    result = in_process("evaluate", "--split", "validation")
    assert result.exit_code == 0, result.output
    assert "validation: 400 images" in result.stdout
    assert "\ntruck " in result.stdout


def test_plot_draws_one_run_or_several_and_names_the_picture(in_process, trained_run, tmp_path):
    one = in_process("plot", trained_run.path)
    assert (one.exit_code, one.output) == (0, f"{trained_run.plot}\n")
    copy = RunDir(tmp_path / "copy")
    copy.path.mkdir()
    copy.history.write_bytes(trained_run.history.read_bytes())
    output = tmp_path / "both.svg"
    several = in_process("plot", trained_run.path, copy.path, "--output", output)
    assert (several.exit_code, several.output) == (0, f"{output}\n")
    assert "copy: " in re.sub("<!--|-->", "", output.read_text())


def test_predict_as_json_answers_the_readable_and_names_the_others(
    command, trained_run, image, tmp_path
):
    text = tmp_path / "text.png"
    text.write_text("no image")
    result = command("predict", image, text, image, "--model", trained_run.path, "--json")
    assert result.returncode == 1
    (failure,) = result.stderr.splitlines()
    assert failure.startswith(f"Error: {text}: ")
    first, refused, second = json.loads(result.stdout)
    assert [first["file"], refused["file"], second["file"]] == [str(image), str(text), str(image)]
    assert failure == f"Error: {text}: {refused['error']}"
    for answer in (first, second):
        assert set(answer) == {"file", "label", "probabilities"}
        assert set(answer["probabilities"]) == set(CLASS_NAMES)
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)


def test_predict_prints_as_many_classes_as_asked_for(in_process, trained_run, image):
    result = in_process("predict", image, "--model", trained_run.model, "--top", 2)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(
        re.escape(str(image)) + r": \w+ \d+\.\d%, \w+ \d+\.\d%", result.output.strip()
    )


def test_predict_prints_names_that_are_no_text(in_process, trained_run, image, tmp_path):
    odd = tmp_path / os.fsdecode(b"\xff.png")
    odd.write_bytes(image.read_bytes())
    result = in_process("predict", odd, "--model", trained_run.path)
    assert result.exit_code == 0, result.exception
    assert "\N{REPLACEMENT CHARACTER}.png: " in result.stdout


def test_on_a_terminal_a_name_is_shown_without_what_it_would_obey(image, trained_run, tmp_path):
    odd = tmp_path / "a\x1b[2J\nb.png"
    odd.write_bytes(image.read_bytes())
    (tmp_path / "\x1b[31m.png").touch()
    terminal, screen = pty.openpty()
    with running("predict", tmp_path, "--model", trained_run.path, stderr=screen) as process:
        os.close(screen)
        as_program = process.stdout.read().decode()
        shown = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert as_program.startswith(f"{tmp_path}/a\nb.png: ")  # click takes out what colours
    assert shown.startswith(rf"Error: {tmp_path}/\x1b[31m.png: ")


def test_a_picture_that_may_not_be_read_is_no_wrong_usage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    Path("closed.png").touch(mode=0)
    user = os.geteuid()
    if user == 0:  # which may read everything
        os.seteuid(65534)
    try:
        context = main.commands["predict"].make_context("predict", ["closed.png"])
    finally:
        os.seteuid(user)
    assert context.params["images"] == (Path("closed.png"),)


# Data and machine


def test_data_prints_the_split_and_draws_the_grid(command, tmp_path):
    grid = tmp_path / "grid.png"
    result = command("data", "--dataset", "sample", "--json", "--grid", grid)
    assert (result.returncode, result.stderr) == (0, f"wrote {grid}\n")
    assert json.loads(result.stdout) == split_table(train=1600, validation=400, test=500)
    with Image.open(grid) as picture:
        assert picture.width > 1000


def split_table(**examples):
    return {
        split: {"examples": count, "per_class": dict.fromkeys(CLASS_NAMES, count // 10)}
        for split, count in examples.items()
    }


@pytest.mark.slow
def test_the_full_data_is_split_80_to_20(command, full_data_dir):
    result = command("data", "--data-dir", full_data_dir, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == split_table(train=40_000, validation=10_000, test=10_000)


def test_data_prints_a_table_of_the_split_that_was_asked_for(in_process):
    result = in_process("data", "--dataset", "sample", "--validation-fraction", 0)
    assert result.exit_code == 0, result.output
    header, *_, total = result.output.splitlines()
    assert header.split() == ["train", "validation", "test"]
    assert total.split() == ["all", "2,000", "0", "500"]


def test_doctor_prints_json_and_no_noise(command, tmp_path):
    result = command("doctor", "--json", "--data-dir", tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document["versions"]["tensorflow"].startswith("2.")
    assert any(str(tmp_path) in problem["what"] for problem in document["problems"])


def test_stderr_may_be_closed_and_a_path_need_not_be_text(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    result = subprocess.run(
        [
            "sh",
            "-c",
            'exec "$0" -m keras_cifar doctor --data-dir "$1" 2>&-',
            sys.executable,
            folder,
        ],
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},  # as in the language of most
        stdout=subprocess.PIPE,
        check=False,
    )
    assert result.returncode == 0
    assert b"CIFAR-10 is not in " + folder in result.stdout
