"""A run that was stopped, however, ends as if it had not been: to the bit."""

import dataclasses
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from keras_cifar.history import read_history
from keras_cifar.recipes import TrainConfig
from keras_cifar.recipes.config import settings_dict
from keras_cifar.run_dir import RunDir
from keras_cifar.train import checkpoint, resume, train
from keras_cifar.train.fit import compile_model

KILL_AND_RESUME = Path(__file__).parents[1] / "scripts" / "kill_and_resume.py"
TINY = TrainConfig(dataset="sample", validation_fraction=0.9, epochs=4, batch_size=50)


def weights(run_dir):
    with zipfile.ZipFile(run_dir.model) as archive:
        return archive.read("model.weights.h5")


def rows_without_seconds(run_dir):
    return [line.rpartition(",")[0] for line in run_dir.history.read_text().splitlines()]


def assert_same_end(run_dir, unbroken):
    assert rows_without_seconds(run_dir) == rows_without_seconds(unbroken)
    assert weights(run_dir) == weights(unbroken)
    assert not run_dir.checkpoint.exists()


def train_and_stop(run_dir, config, *, epoch):
    """Trains until the checkpoint of `epoch` is there, in a process that then kills itself."""
    code = (
        "import os, pathlib, signal, keras_cifar.machine\n"
        "keras_cifar.machine.start_tensorflow()\n"
        "from keras_cifar.recipes import TrainConfig\n"
        "from keras_cifar.run_dir import RunDir\n"
        "from keras_cifar.train import checkpoint, train\n"
        "save = checkpoint.save\n"
        "def save_and_die(folder, *, model, progress):\n"
        "    save(folder, model=model, progress=progress)\n"
        f"    if progress.epoch == {epoch}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint.save = save_and_die\n"
        f"train({config!r}, RunDir(pathlib.Path({str(run_dir.path)!r})))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == -9, result.stderr


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    run_dir = RunDir(tmp_path_factory.mktemp("unbroken") / "run")
    train(TINY, run_dir)
    return run_dir


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run killed after its third epoch; the tests work on copies."""
    run_dir = RunDir(tmp_path_factory.mktemp("stopped") / "run")
    train_and_stop(run_dir, TINY, epoch=3)
    return run_dir


@pytest.fixture
def run_dir(stopped, tmp_path):
    return RunDir(shutil.copytree(stopped.path, tmp_path / "run"))


def test_two_runs_are_the_same_to_the_bit(unbroken, tmp_path):
    again = RunDir(tmp_path / "again")
    train(TINY, again)
    assert_same_end(again, unbroken)


def test_a_killed_run_ends_as_if_it_had_not_been(run_dir, unbroken):
    resume(run_dir)
    assert_same_end(run_dir, unbroken)


def test_a_torn_checkpoint_is_noticed_and_the_one_before_it_used(run_dir, unbroken, capsys):
    newest = run_dir.checkpoint / "epoch-00003.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    resume(run_dir)
    said = capsys.readouterr().err
    assert "epoch-00003.ckpt: torn or altered" in said
    assert "going on after epoch 2" in said
    assert_same_end(run_dir, unbroken)


def test_without_a_whole_checkpoint_the_run_starts_anew_to_the_same_end(run_dir, unbroken, capsys):
    for path in run_dir.checkpoint.iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    resume(run_dir)
    assert capsys.readouterr().err.count("torn or altered") == 2
    assert_same_end(run_dir, unbroken)


def test_damaged_checkpoints_do_not_crowd_out_what_is_saved_after_them(run_dir, sample):
    damaged = sorted(run_dir.checkpoint.iterdir())
    for path in damaged:
        path.write_bytes(b"torn")
    assert checkpoint.load_newest(run_dir.checkpoint) is None
    config = dataclasses.replace(TINY, precision="float32")
    model = compile_model(config, examples=sample, steps=1)
    checkpoint.save(run_dir.checkpoint, model=model, progress=checkpoint.Progress(epoch=1))
    assert [path.name for path in run_dir.checkpoint.iterdir()] == ["epoch-00001.ckpt"]


def test_leftovers_of_the_kill_are_cleaned_up(run_dir):
    (run_dir.path / ".unfinished-abc.keras").write_text("half a model")
    (run_dir.checkpoint / ".unfinished-abc.ckpt").write_text("half a checkpoint")
    resume(run_dir)
    assert not list(run_dir.path.rglob(".unfinished-*"))


def test_a_run_of_another_version_is_refused(run_dir):
    document = json.loads(run_dir.config.read_text())
    document["versions"]["keras"] = "3.0.0"
    run_dir.config.write_text(json.dumps(document))
    with pytest.raises(OSError, match=r"was started with keras 3.0.0 \(now 3"):
        resume(run_dir)
    assert read_history(run_dir.history).epoch == [1, 2, 3]


def test_another_device_is_said_aloud(run_dir, capsys):
    document = json.loads(run_dir.config.read_text())
    document["device"] = "Abacus, 10 beads"
    run_dir.config.write_text(json.dumps(document))
    resume(run_dir)
    assert "was started on Abacus, 10 beads" in capsys.readouterr().err


def test_two_checkpoints_are_kept(stopped):
    names = sorted(path.name for path in stopped.checkpoint.iterdir())
    assert names == ["epoch-00002.ckpt", "epoch-00003.ckpt"]


def test_a_checkpoint_holds_the_dropout_generators_and_the_optimizer(stopped):
    saved = checkpoint.read(stopped.checkpoint / "epoch-00003.ckpt")
    # [seed, steps drawn]: 3 epochs of 4 steps, in each of the 3 dropout layers.
    generators = [array for array in saved.variables if array.shape == (2,)]
    assert [int(array[1]) for array in generators] == [12, 12, 12]
    assert sum(array.shape == (4096, 1024) for array in saved.variables) == 2


@pytest.mark.slow
def test_a_killed_run_with_adam_ends_as_if_it_had_not_been(half_precision, command, tmp_path):
    config = dataclasses.replace(
        TINY, optimizer="adam", learning_rate=1e-3, epochs=2, precision=half_precision
    )
    unbroken, killed = RunDir(tmp_path / "unbroken"), RunDir(tmp_path / "killed")
    options = settings_dict(config)
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    result = command("train", *arguments, "--run-dir", unbroken.path)
    assert result.returncode == 0, result.stderr
    train_and_stop(killed, config, epoch=1)
    result = command("train", "--resume", "--run-dir", killed.path)
    assert result.returncode == 0, result.stderr
    assert_same_end(killed, unbroken)


@pytest.mark.slow
def test_a_killed_run_of_fast94_ends_as_if_it_had_not_been(tmp_path):
    """Killed and resumed when the whitening layer is not trained any more."""
    config = dataclasses.replace(
        TrainConfig.of("fast94"),
        **{"dataset": "sample", "validation_fraction": 0.9, "epochs": 5, "batch_size": 50},
    )
    unbroken, killed = RunDir(tmp_path / "unbroken"), RunDir(tmp_path / "killed")
    train(config, unbroken)
    train_and_stop(killed, config, epoch=4)
    resume(killed)
    assert_same_end(killed, unbroken)


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_as_the_unbroken_one(tmp_path):
    command = [sys.executable, str(KILL_AND_RESUME), "--kills", "3", "--epochs", "3"]
    result = subprocess.run(
        [*command, "--work-dir", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "every end identical" in result.stdout
