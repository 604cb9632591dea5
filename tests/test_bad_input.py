"""What the commands cannot do is refused in one line that says what to do, and nothing is lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile

import click
import keras
import pytest
from click.testing import CliRunner
from PIL import Image

from keras_cifar.cli import main
from keras_cifar.cli.exits import Group
from keras_cifar.files import locked
from keras_cifar.run_dir import RunDir
from keras_cifar.train import checkpoint
from keras_cifar.train.folder import clear

NUMBERS = ("epochs", "learning_rate", "weight_decay", "validation_fraction", "seed", "batch_size")
# 200 images and one step an epoch.
TINY = ("train", "--dataset", "sample", "--validation-fraction", "0.9")


@pytest.fixture
def refused():
    """Runs a command in this process; returns its one line of error and its exit code."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        # Anything else is a bug, and would be a traceback.
        assert isinstance(result.exception, SystemExit), result.exception
        (line,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
        assert result.output.endswith(f"{line}\n")
        return line.removeprefix("Error: "), result.exit_code

    yield run
    signal.signal(signal.SIGTERM, handler)


def contents(folder):
    """Every file below `folder` and what is in it."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def mounted(tmp_path):
    """Makes a file system of so many megabytes."""
    disk = tmp_path / "disk"

    def mount(*, megabytes):
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)]
        if (
            os.geteuid() != 0
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip("needs the right to mount a file system")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


def test_too_little_memory_is_said_and_not_an_empty_line():
    """As an error of Python's has no text; NumPy's says how much it was that was not to be had."""

    def fill():
        raise MemoryError

    result = CliRunner().invoke(
        Group(commands={"fill": click.Command("fill", callback=fill)}), "fill"
    )
    assert result.exit_code == 1
    assert result.output.startswith("Error: Not enough memory. End what else uses it, or allow")


# Options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--momentum", "1"], "No such option"),
        (["train", "--optimizer", "sdg"], "'sdg' is not one of 'sgd', 'adam'"),
        (["train", "--epochs", "many"], "'many' is not a valid integer"),
        (["train", "a-folder"], "unexpected extra argument"),
        (["train", "--run-dir", ""], "'--run-dir': '' is no path."),
        (["train", "--epochs", "0"], "--epochs: got 0, expected 1 to 100000."),
        (["train", "--seed", "-1"], "--seed: got -1, expected 0 to 2147483647."),
        (
            ["train", "--batch-size", "40001"],
            "--batch-size: got 40001, expected 1 to 40000, the number of training images.",
        ),
        (["evaluate", "--tta-share", "0.5"], "--tta-share: is the share of the images for --tta;"),
        (["evaluate", "--tta", "--tta-share", "0"], "0.0 is not in the range 0<x<=1"),
        (["train", "--batch-size", "0"], "--batch-size: got 0, expected 1 to 40000"),
        (
            ["train", "--validation-fraction", "1"],
            "--validation-fraction: got 1.0, expected 0 (train on all images) or more, and below",
        ),
        (["train", "--validation-fraction", "-0.1"], "--validation-fraction: got -0.1"),
        (["train", "--validation-fraction", "nan"], "--validation-fraction: got nan"),
        (["train", "--validation-fraction", "0.99999"], "leaves no image to train on"),
        (["data", "--validation-fraction", "2"], "--validation-fraction: got 2.0"),
        (["train", "--learning-rate", "-1"], "--learning-rate: got -1.0, expected a number above"),
        (["train", "--learning-rate", "nan"], "--learning-rate: got nan"),
        (["train", "--epochs", "1000000000000"], "got 1000000000000, expected 1 to 100000."),
        (["train", "--learning-rate", "inf"], "--learning-rate: got inf"),
        (["train", "--weight-decay", "nan"], "--weight-decay: got nan, expected 0 or more."),
        (["train", "--resume", "--overwrite"], "give one of them"),
        (["data", "--archive", "a", "--mirror", "http://b"], "give one of them"),
        (["data", "--dataset", "sample", "--archive", "a"], "comes with the package: leave out"),
        (["data", "--mirror", "ftp://b"], "--mirror: got 'ftp://b'"),
        (["data", "--mirror", "http://["], "--mirror: got 'http://['"),
        (
            ["serve", "m", "--host", "\udcff"],
            "--host: got '\\udcff', expected a name or an address",
        ),
        (["serve", "m", "--max-body-bytes", str(2**31)], "is not in the range 1<=x<=2147483647"),
        (["data", "--dataset", "sample", "--grid", "a.txt"], "--grid: got 'a.txt', expected a"),
        (["plot", "some-run", "--output", "a.gif"], "--output: got 'a.gif', expected a name that"),
        (["predict"], "Missing argument"),
        (["predict", "a.png", "--top", "11"], "1<=x<=10"),
        (["evaluate", "--split", "tset"], "'tset' is not one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_named_as_the_user_wrote_it(refused, arguments, message):
    line, code = refused(*arguments)
    assert message in line
    assert code == 2


def test_two_runs_of_one_path_are_wrong_usage(refused, trained_run):
    line, code = refused("plot", trained_run.path, trained_run.path, "--output", "a.png")
    assert (code, line.startswith("RUN: got ")) == (2, True)


def test_a_missing_folder_for_the_grid_is_found_before_the_work(refused, tmp_path):
    line, code = refused("data", "--data-dir", tmp_path, "--grid", tmp_path / "a" / "b.png")
    assert (line, code) == (
        f"{tmp_path / 'a'}: no such folder. Make it, or name another file.",
        1,
    )


# Run folders


def test_a_run_folder_that_is_a_file_is_refused(refused, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "below"):
        line, code = refused(*TINY, "--run-dir", path)
        assert (line, code) == (f"{file}: is not a folder. Name another --run-dir.", 1)
    assert file.read_text() == "mine"


def test_a_run_folder_that_cannot_be_made_is_refused(refused):
    # Root may write everywhere else.
    line, code = refused(*TINY, "--run-dir", "/proc/keras-cifar/run")
    assert code == 1
    assert line.startswith("/proc")


def test_a_run_is_not_overwritten(refused, trained_run):
    before = contents(trained_run.path)
    line, code = refused(*TINY, "--run-dir", trained_run.path)
    assert code == 1
    assert line.startswith(f"{trained_run.path}: holds a run already (config.json, history.csv, ")
    assert "--resume" in line
    assert "--overwrite" in line
    assert contents(trained_run.path) == before


@pytest.mark.parametrize("seeds", [(), ("--seeds", "0-1")], ids=["run", "group"])
@pytest.mark.parametrize("config", [None, b'{"mine": true}'], ids=["none", "another"])
def test_what_only_has_the_names_of_a_run_is_not_replaced(refused, tmp_path, seeds, config):
    project = tmp_path / "project"
    (project / "seed-1" / "checkpoint").mkdir(parents=True)
    for name in ("report.html", "seed-1/report.html", "seed-1/checkpoint/weights"):
        (project / name).write_text("mine")
    if config:
        (project / ("seeds.json" if seeds else "config.json")).write_bytes(config)
    before = contents(project)
    for _ in range(2):
        line, code = refused(*TINY, "--overwrite", *seeds, "--run-dir", project)
        kind = "group" if seeds else "run"
        start = f"{project}: holds no {kind}, so --overwrite leaves alone what is there ("
        assert (code, line[: len(start)]) == (1, start)
        assert "report.html" in line
    assert contents(project) == before


def test_of_a_run_that_is_replaced_a_link_goes_and_not_what_it_leads_to(trained_run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "logs").write_text("mine")
    run = RunDir(shutil.copytree(trained_run.path, tmp_path / "run"))
    for link in (run.tensorboard, run.checkpoint, run.path / ".unfinished-0"):
        link.symlink_to(elsewhere)
    clear(run)
    assert [path.name for path in run.path.iterdir() if path.name != ".lock"] == []
    run.checkpoint.symlink_to(elsewhere)
    checkpoint.remove(run.checkpoint)
    assert not run.checkpoint.is_symlink()
    assert (elsewhere / "logs").read_text() == "mine"


@pytest.fixture
def unfinished(trained_run, tmp_path):
    """What a run has before its first epoch has ended."""
    run = RunDir(tmp_path / "unfinished")
    run.checkpoint.mkdir(parents=True)
    shutil.copy(trained_run.config, run.config)
    return run


def test_a_run_is_not_resumed_with_other_settings(refused, unfinished):
    before = contents(unfinished.path)
    for option, value in (("--batch-size", "64"), ("--learning-rate", "0.1"), ("--epochs", "9")):
        line, code = refused("train", "--resume", "--run-dir", unfinished.path, option, value)
        assert code == 2
        assert f"was started with {option} " in line
        assert f", not {value}. Resume it without that option" in line
    assert contents(unfinished.path) == before


def test_a_finished_run_is_not_resumed(refused, trained_run):
    before = contents(trained_run.path)
    line, code = refused("train", "--resume", "--run-dir", trained_run.path)
    assert (code, "this run has ended; there is nothing to resume" in line) == (1, True)
    assert "start another run with --from this folder" in line
    assert contents(trained_run.path) == before


@pytest.mark.parametrize(
    "option", ["--resume", "--overwrite", "--tensorboard", "--seeds=0-1"], ids=str
)
def test_a_range_test_takes_no_option_of_a_run(refused, option):
    line, code = refused("train", "--find-learning-rate", option)
    name = option.partition("=")[0]
    assert (code, line) == (2, f"--find-learning-rate makes no run: leave out {name}.")


def test_a_run_from_another_is_refused_where_it_cannot_start(refused, trained_run, tmp_path):
    new = ("--dataset", "sample", "--run-dir", tmp_path / "run")
    again = ("--overwrite", "--dataset", "sample", "--run-dir", trained_run.path)
    model = trained_run.model
    other = (
        f"{model}: its network is not that of the fast94 recipe: weight 1 is kernel (3, 3, 3, 32), "
        "expected kernel (2, 2, 3, 24). Give the --recipe that it is of."
    )
    for origin, arguments, code, message in (
        (trained_run.path, (*new, "--recipe", "fast94"), 1, other),
        (tmp_path, new, 1, f"{tmp_path}: no trained model; expected model.keras in it."),
        (tmp_path / "no.keras", new, 1, f"{tmp_path / 'no.keras'}: no such model file. Name the"),
        (trained_run.history, new, 1, f"{trained_run.history}: not a Keras model"),
        (model, again, 1, f"{model}: is in the folder of the run that is to start from it."),
        (model, ("--resume",), 2, "--resume knows where the run started from: leave out --from."),
        (model, ("--seeds", "0-1"), 2, "--seeds: with each seed, other images validate, which"),
    ):
        line, found = refused("train", "--from", origin, *arguments)
        assert (found, line[: len(message)]) == (code, message)
    assert not (tmp_path / "run").exists()
    assert model.is_file()


@pytest.mark.parametrize(
    ("versions", "message"),
    [({"keras": "3.0.0"}, "was started with keras 3.0.0 (now 3."), ({}, "tensorflow None (now 2.")],
    ids=["another", "unknown"],
)
def test_a_run_of_another_version_is_not_resumed(refused, unfinished, versions, message):
    document = json.loads(unfinished.config.read_text())
    known = document.pop("versions")
    if versions:
        document["versions"] = {**known, **versions}
    unfinished.config.write_text(json.dumps(document))
    line, code = refused("train", "--resume", "--run-dir", unfinished.path)
    assert (code, message in line) == (1, True), line


def test_a_run_in_use_is_neither_resumed_nor_replaced(refused, unfinished):
    with locked(unfinished.path / ".lock", when_busy=pytest.fail):
        before = contents(unfinished.path)
        for option in ("--resume", "--overwrite"):
            dataset = ("--dataset", "sample")
            line, code = refused("train", option, *dataset, "--run-dir", unfinished.path)
            assert (code, "another process is training here" in line) == (1, True), line
        assert contents(unfinished.path) == before


def test_without_a_run_there_is_nothing_to_resume_measure_or_draw(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hint = "Train one: keras-cifar train"
    for arguments in (["train", "--resume"], ["evaluate"], ["plot"], ["predict", "a.png"]):
        assert refused(*arguments) == (f"runs: no run here. {hint}", 1)
    (tmp_path / "empty").mkdir()
    no_run = f"empty: no run here; expected config.json in it. {hint} --run-dir empty"
    assert refused("train", "--resume", "--run-dir", "empty") == (no_run, 1)
    assert refused("evaluate", "empty") == (no_run, 1)
    line, code = refused("plot", "empty")
    assert (code, line.startswith("empty/history.csv: no history here.")) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    "content",
    [
        *("", "{}", "[1]", "{", '{"settings": {"epochs": 0}}', '{"settings": {"a": 1}}'),
        *(f'{{"settings": {{"{name}": 1{400 * "0"}}}}}' for name in NUMBERS),
        *('{"settings": {}, "versions": []}', '{"settings": {}, "choices": "XLA"}'),
        pytest.param("[" * 100_000, id="nested without end"),
    ],
)
def test_a_config_that_train_did_not_write_is_refused(refused, tmp_path, content):
    run = RunDir(tmp_path)
    run.config.write_text(content)
    line, code = refused("train", "--resume", "--run-dir", tmp_path)
    assert code == 1
    assert line.startswith(f"{run.config}: not the config.json of a run (")


def test_a_name_in_a_file_of_others_does_not_reach_the_terminal_as_it_is(refused, tmp_path):
    member = tarfile.TarInfo("\x1b[2J\n/data_batch_1.bin")
    member.type = tarfile.SYMTYPE
    archive = tmp_path / "a.tar"
    archive.write_bytes(member.tobuf(tarfile.USTAR_FORMAT))
    arguments = ("--archive", archive, "--data-dir", tmp_path / "data")
    line, code = refused("data", *arguments)
    assert (code, r"(\x1b[2J\n/data_batch_1.bin in it is not an ordinary file)" in line) == (
        1,
        True,
    )


# Models and splits


def test_a_run_without_model_is_not_measured(refused, unfinished):
    line, code = refused("evaluate", unfinished.path)
    assert (code, f"{unfinished.path}: no trained model" in line) == (1, True)
    assert not unfinished.metrics.exists()


def test_a_model_file_that_is_none_is_named(refused, unfinished, tmp_path):
    unfinished.model.write_text("no model")
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    for arguments in (
        ["evaluate", unfinished.path],
        ["predict", tmp_path / "a.png", "--model", unfinished.path],
        ["predict", tmp_path / "a.png", "--model", unfinished.model],
    ):
        line, code = refused(*arguments)
        assert (code, line.startswith(f"{unfinished.model}: not a Keras model")) == (1, True)
    assert not unfinished.metrics.exists()


def test_a_run_on_all_images_has_no_validation_split(refused, unfinished):
    document = json.loads(unfinished.config.read_text())
    document["settings"]["validation_fraction"] = 0
    unfinished.config.write_text(json.dumps(document))
    line, code = refused("evaluate", unfinished.path, "--split", "validation")
    assert code == 2
    assert line.startswith("--split: got 'validation', expected test or train")


# Exports and deployment

NO_VERSION = "no version of a model here. Export one: keras-cifar export"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export"], "Missing argument '[RUN] MODEL_DIR'"),
        (["export", "a", "b", "c"], "Expected [RUN] MODEL_DIR, got 3 paths."),
        (["export", "b", "--format", "h5"], "'h5' is not one of 'saved_model', 'onnx', 'litert'"),
        (["export", "b", "--version", "0"], "0 is not in the range"),
        (["export", "b", "--precision", "int8"], "'int8' is not one of 'float32', 'bfloat16'"),
        (["deploy", "a"], "Missing argument 'OUT_DIR'"),
        (["deploy", "a", "b", "--device", "tpu"], "'tpu' is not one of 'cpu', 'gpu'"),
        (["deploy", "a", "b", "--model-name", "a/b"], "--model-name: got 'a/b', expected at most"),
        (["deploy", "a", "b", "--image", "a b"], "--image: got 'a b', expected a name such as"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_of_export_and_deploy(refused, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    line, code = refused(*arguments)
    assert message in line
    assert code == (1 if "no run" in message else 2)
    assert not list(tmp_path.iterdir())


def test_bfloat16_is_wrong_usage_with_another_format(refused, trained_run, tmp_path):
    options = ("--format", "onnx", "--precision", "bfloat16")
    line, code = refused("export", trained_run.path, tmp_path / "models", *options)
    assert line == "--precision: got 'bfloat16', expected float32 with format onnx."
    assert code == 2


def test_a_run_without_model_is_not_exported(refused, unfinished, tmp_path, monkeypatch):
    no_model = f"{unfinished.path}: no trained model; expected model.keras in it. "
    line, code = refused("export", unfinished.path, tmp_path / "models")
    assert (line.removeprefix(no_model), code) == (
        "Wait for the end of the first epoch, or go on with the run: "
        f"keras-cifar train --resume --run-dir {unfinished.path}",
        1,
    )
    shutil.rmtree(unfinished.checkpoint)
    line, code = refused("export", unfinished.path, tmp_path / "models")
    assert line == f"{no_model}The run had one. Move the folder away, and train again."
    monkeypatch.chdir(tmp_path)
    no_run = "runs: no run here. Train one: keras-cifar train"
    assert refused("export", "models") == (no_run, 1)
    assert not (tmp_path / "models").exists()


def test_a_model_of_another_project_is_not_exported(refused, unfinished, tmp_path):
    image = keras.Input((28, 28, 1), name="image")
    keras.Model(image, keras.layers.Flatten()(image)).save(unfinished.model)
    line, code = refused("export", unfinished.path, tmp_path / "models")
    assert code == 1
    assert line.startswith(f"{unfinished.model}: the model takes (None, 28, 28, 1) and gives")
    unfinished.model.write_text("no model")
    line, code = refused("export", unfinished.path, tmp_path / "models")
    assert (code, line.startswith(f"{unfinished.model}: not a Keras model")) == (1, True)
    assert not (tmp_path / "models").exists()


def test_a_model_directory_that_is_a_file_or_not_writable_is_refused(
    refused, trained_run, tmp_path
):
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "below"):
        line, code = refused("export", trained_run.path, path)
        assert (line, code) == (f"{file}: is not a folder. Name another MODEL_DIR.", 1)
    assert file.read_text() == "mine"
    line, code = refused("export", trained_run.path, "/proc/keras-cifar")
    assert (code, line.startswith("/proc")) == (1, True)


def test_a_run_is_no_model_directory(refused, trained_run):
    before = contents(trained_run.path)
    line, code = refused("export", trained_run.path, trained_run.path)
    assert (line, code) == (
        f"{trained_run.path}: is the folder of a run. Name where to export it to as well: "
        f"keras-cifar export {trained_run.path} MODEL_DIR",
        1,
    )
    assert contents(trained_run.path) == before


def test_a_version_that_exists_is_not_exported_again(refused, exported, trained_run):
    before = contents(exported.version.parent)
    line, code = refused("export", trained_run.path, exported.version.parent, "--version", 1)
    assert (line, code) == (
        f"{exported.version}: this version exists. Name another --version, or none for the next "
        "number.",
        1,
    )
    assert contents(exported.version.parent) == before


def test_formats_are_not_mixed(refused, exported, trained_run):
    line, code = refused("export", trained_run.path, exported.version.parent, "--format", "onnx")
    assert code == 1
    assert line == (
        f"{exported.version}: holds a model as saved_model. Name another MODEL_DIR for one as onnx."
    )


@pytest.mark.parametrize("format_", ["onnx", "litert"])
def test_a_format_whose_extra_is_missing_names_it(trained_run, tmp_path, format_):
    """In an interpreter to which the extra's modules are hidden."""
    code = (
        "import importlib.util, sys\n"
        "hidden = {'tf2onnx', 'onnxruntime', 'ai_edge_litert'}\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name in hidden else find(name)\n"
        "from keras_cifar.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    arguments = ["export", str(trained_run.path), str(tmp_path / "m"), "--format", format_]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    expected = f"Error: --format {format_} needs more: pip install 'keras-cifar[{format_}]'\n"
    assert result.stderr == expected
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_a_disk_that_fills_half_way_costs_the_export_and_nothing_else(
    command, mounted, exported, trained_run
):
    disk = mounted(megabytes=40)
    model_dir = disk / "models"
    first = command("export", trained_run.path, model_dir)
    assert first.returncode == 0, first.stderr
    before = contents(model_dir)
    result = command("export", trained_run.path, model_dir)
    assert result.returncode == 1
    assert result.stdout == ""
    error = result.stderr.splitlines()[-1]
    assert error == f"Error: {model_dir}: No space left on device."
    assert "Traceback" not in result.stderr
    assert contents(model_dir) == before
    assert sorted(path.name for path in model_dir.iterdir()) == [".lock", "1"]


def test_a_model_directory_without_a_saved_model_is_not_deployed(refused, tmp_path):
    models, kit = tmp_path / "models", tmp_path / "kit"
    assert refused("deploy", models, kit) == (f"{models}: {NO_VERSION} {models}", 1)
    (models / "1").mkdir(parents=True)
    (models / "1" / "model.onnx").touch()
    line, code = refused("deploy", models, kit)
    assert code == 1
    assert line.startswith(f"{models / '1'}: no SavedModel, which is what TensorFlow Serving takes")
    assert not kit.exists()


def test_a_kit_is_not_overwritten(refused, exported, tmp_path):
    (tmp_path / "docker-compose.yml").write_text("mine")
    line, code = refused("deploy", exported.version.parent, tmp_path)
    assert (line, code) == (
        f"{tmp_path}: has docker-compose.yml already. Replace them by --overwrite, "
        "or name another OUT_DIR.",
        1,
    )
    assert contents(tmp_path) == {tmp_path / "docker-compose.yml": b"mine"}
    file = tmp_path / "file"
    file.write_text("mine")
    line, code = refused("deploy", exported.version.parent, file)
    assert (line, code) == (f"{file}: is not a folder. Name another OUT_DIR.", 1)


# The world


def test_a_learning_rate_that_diverges_ends_the_run_in_one_line(command, tmp_path):
    run = RunDir(tmp_path / "run")
    result = command(*TINY, "--epochs", 1, "--learning-rate", 1e38, "--run-dir", run.path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(
        r"Error: Training diverged: the loss is (nan|inf) in epoch 1, .+\. "
        r"Try a lower --learning-rate; it was 1e\+38\.",
        result.stderr.splitlines()[-1],
    )
    assert "Traceback" not in result.stderr
    assert not run.model.exists()


@pytest.mark.slow
def test_without_network_the_error_names_the_ways_out(command, tmp_path):
    # A proxy that is not there: no way to anywhere, on every machine.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    run = tmp_path / "run"
    options = ("--data-dir", tmp_path / "data", "--run-dir", run)
    result = command("train", *options, env={**environment, **nowhere})
    assert result.returncode == 1
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    for way_out in ("--data-dir", "--archive", "--dataset sample"):
        assert way_out in error
    assert "Traceback" not in result.stderr
    assert not run.exists()


@pytest.mark.slow
def test_a_disk_that_fills_costs_one_epoch_and_the_run_goes_on_when_there_is_room(command, mounted):
    # Room for the files of a run, not for a second checkpoint.
    small_disk = mounted(megabytes=100)
    run = RunDir(small_disk / "run")
    result = command(*TINY, "--epochs", 2, "--run-dir", run.path)
    assert result.returncode == 1
    again, error = result.stderr.splitlines()[-2:]
    assert again == f"Interrupted. Go on with: keras-cifar train --resume --run-dir {run.path}"
    assert error == f"Error: {run.checkpoint}/epoch-00002.ckpt: No space left on device."
    assert "Traceback" not in result.stderr
    assert [path.name for path in run.checkpoint.iterdir()] == ["epoch-00001.ckpt"]
    first_epoch = run.history.read_text().splitlines()[1]
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    result = command("train", "--resume", "--run-dir", run.path)
    assert result.returncode == 0, result.stderr
    assert f"{run.path}: going on after epoch 1\n" in result.stderr
    assert len(run.history.read_text().splitlines()) == 3
    assert run.history.read_text().splitlines()[1] == first_epoch
    assert not run.checkpoint.exists()
    assert run.model.is_file()
