"""A run that was stopped, however, ends as if it had not been: to the bit."""

import contextlib
import copy
import dataclasses
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_cifar.evaluate import evaluate
from keras_cifar.history import read_history
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir
from keras_cifar.train import checkpoint, resume, train
from keras_cifar.train.callbacks import RunFiles
from keras_cifar.train.compile import compile_model

KILL_AND_RESUME = Path(__file__).parents[1] / "scripts" / "kill_and_resume.py"


@pytest.fixture(scope="module")
def config(tiny):
    return TrainConfig(dataset="tiny", validation_fraction=0.5, epochs=3, batch_size=50)


def weights(run_dir):
    with zipfile.ZipFile(run_dir.model) as archive:
        return archive.read("model.weights.h5")


def rows_without_seconds(run_dir):
    return [line.rpartition(",")[0] for line in run_dir.history.read_text().splitlines()]


def assert_same_end(run_dir, unbroken):
    assert rows_without_seconds(run_dir) == rows_without_seconds(unbroken)
    assert weights(run_dir) == weights(unbroken)
    assert not run_dir.checkpoint.exists()


def in_code(run_dir):
    """Returns the expression of a run in the code of `in_a_process`."""
    return f"RunDir(pathlib.Path({str(run_dir.path)!r}))"


@pytest.fixture(scope="module")
def train_and_stop(in_a_process):
    """Trains until the checkpoint of `epoch` is there, in a process that then kills itself."""

    def run(run_dir, config, *, epoch, origin=None):
        result = in_a_process(
            "save = checkpoint.save",
            "def save_and_die(folder, *, model, progress):",
            "    save(folder, model=model, progress=progress)",
            f"    if progress.epoch == {epoch}: os.kill(os.getpid(), signal.SIGKILL)",
            "checkpoint.save = save_and_die",
            f"origin = {origin and str(origin)!r}",
            "origin = origin and pathlib.Path(origin)",
            f"train({config!r}, {in_code(run_dir)}, data_dir=data_dir, origin=origin)",
        )
        assert result.returncode == -9, result.stderr

    return run


@pytest.fixture(scope="module")
def unbroken(config, tiny, tmp_path_factory):
    run_dir = RunDir(tmp_path_factory.mktemp("unbroken") / "run")
    train(config, run_dir, data_dir=tiny.data_dir)
    return run_dir


@pytest.fixture(scope="module")
def stopped(config, train_and_stop, tmp_path_factory):
    """A run killed after its second epoch; the tests work on copies."""
    run_dir = RunDir(tmp_path_factory.mktemp("stopped") / "run")
    train_and_stop(run_dir, config, epoch=2)
    return run_dir


@pytest.fixture
def run_dir(stopped, tmp_path):
    return RunDir(shutil.copytree(stopped.path, tmp_path / "run"))


@pytest.fixture(scope="module")
def resumed(stopped, tmp_path_factory):
    """A copy that was resumed, with leftovers of the kill and on another device; what it said.

    The run itself knows where its data was.
    """
    run_dir = RunDir(shutil.copytree(stopped.path, tmp_path_factory.mktemp("resumed") / "run"))
    (run_dir.path / ".unfinished-abc.keras").write_text("half a model")
    (run_dir.checkpoint / ".unfinished-abc.ckpt").write_text("half a checkpoint")
    document = json.loads(run_dir.config.read_text())
    document["device"] = "Abacus,\x1b[2J 10 beads"
    document["choices"] |= {"oneDNN": "off (it has none)", "XLA": ""}
    run_dir.config.write_text(json.dumps(document))
    with contextlib.redirect_stderr(io.StringIO()) as said:
        resume(run_dir)
    return run_dir, said.getvalue()


def test_a_killed_run_ends_as_if_it_had_not_been(resumed, unbroken):
    run_dir, _ = resumed
    assert_same_end(run_dir, unbroken)


def test_a_torn_checkpoint_is_noticed_and_the_one_before_it_used(run_dir, unbroken, tiny, capsys):
    newest = run_dir.checkpoint / "epoch-00002.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    resume(run_dir, data_dir=tiny.data_dir)
    said = capsys.readouterr().err
    assert "epoch-00002.ckpt: torn or altered" in said
    assert "going on after epoch 1" in said
    assert_same_end(run_dir, unbroken)


def test_without_a_whole_checkpoint_the_run_starts_anew_to_the_same_end(
    run_dir, unbroken, tiny, capsys
):
    """So two runs that nothing breaks are the same to the bit."""
    for path in run_dir.checkpoint.iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    resume(run_dir, data_dir=tiny.data_dir)
    said = capsys.readouterr().err
    assert "epoch-00002.ckpt: torn or altered. Going back to the one before it." in said
    assert "epoch-00001.ckpt: torn or altered. Starting with the first epoch." in said
    assert_same_end(run_dir, unbroken)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\3\4", b"\x93NUMPY", b"\x93NUMPY\1\0\1\0(", pickle.dumps(print)],
)
def test_a_whole_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "epoch-00001.ckpt"
    path.write_bytes(hashlib.sha256(content).digest() + content)
    with pytest.raises(ValueError, match=r"epoch-00001\.ckpt: not a checkpoint \("):
        checkpoint.read(path)


def same_bytes_many_times(archive, **arrays):
    """Writes an .npz in which further entries lead to the array that is there."""
    np.savez(archive, **arrays)
    with zipfile.ZipFile(archive, "a") as entries:
        last = entries.filelist[-1]
        for number in range(1, 10):
            entry = copy.copy(last)
            entry.filename = f"variable_{number}.npy"
            entries.filelist.append(entry)
        entries._didModify = True


def test_a_checkpoint_takes_no_more_memory_than_its_file(tmp_path):
    progress = np.array(json.dumps(dataclasses.asdict(checkpoint.Progress())))
    path = tmp_path / "epoch-00001.ckpt"

    def write(save):
        archive = io.BytesIO()
        save(archive, progress=progress, variable_0=np.zeros(1000))
        # As long as before: NumPy fills its headers up with blanks.
        claimed = b"(1" + 15 * b"0" + b",), }"
        content = archive.getvalue().replace(b"(1000,), }".ljust(len(claimed)), claimed)
        path.write_bytes(hashlib.sha256(content).digest() + content)

    write(np.savez_compressed)
    with pytest.raises(ValueError, match="it is compressed"):
        checkpoint.read(path)
    write(same_bytes_many_times)
    with pytest.raises(ValueError, match="it unpacks to more than it holds"):
        checkpoint.read(path)
    write(np.savez)
    with pytest.raises(OSError, match=r"epoch-00001\.ckpt: cannot be read \(Unable to allocate"):
        checkpoint.read(path)


@pytest.mark.timeout(60)
def test_a_pipe_is_no_checkpoint_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "epoch-00009.ckpt")
    assert checkpoint.load_newest(tmp_path) is None


def test_damaged_checkpoints_do_not_crowd_out_what_is_saved_after_them(run_dir, config, tiny):
    damaged = sorted(run_dir.checkpoint.iterdir())
    for path in damaged:
        path.write_bytes(b"torn")
    assert checkpoint.load_newest(run_dir.checkpoint) is None
    config = dataclasses.replace(config, precision="float32")
    model = compile_model(config, examples=tiny.examples, steps=1)
    checkpoint.save(run_dir.checkpoint, model=model, progress=checkpoint.Progress(epoch=1))
    assert [path.name for path in run_dir.checkpoint.iterdir()] == ["epoch-00001.ckpt"]


def test_it_is_measured_on_the_data_that_it_had(unbroken):
    assert evaluate(unbroken, split="validation", data_dir=None).examples == 200


def test_leftovers_of_the_kill_are_cleaned_up(resumed):
    run_dir, _ = resumed
    assert not list(run_dir.path.rglob(".unfinished-*"))


def test_a_run_of_another_version_is_refused(run_dir):
    document = json.loads(run_dir.config.read_text())
    document["versions"]["keras"] = "3.0.0"
    run_dir.config.write_text(json.dumps(document))
    with pytest.raises(OSError, match=r"was started with keras 3.0.0 \(now 3"):
        resume(run_dir)
    assert read_history(run_dir.history).epoch == [1, 2]


def test_settings_that_changed_under_a_run_are_refused_and_told(run_dir, tiny):
    document = json.loads(run_dir.config.read_text())
    document["settings"]["seed"] ^= 1
    run_dir.config.write_text(json.dumps(document))
    with pytest.raises(
        OSError, match=r"config.json: is damaged, or was changed .*: seed 1 \(was 0"
    ):
        resume(run_dir, data_dir=tiny.data_dir)


def test_a_checkpoint_of_another_network_is_refused(run_dir, tiny):
    """Its settings are the same: what was changed is the code."""
    path = run_dir.checkpoint / "epoch-00002.ckpt"
    with np.load(io.BytesIO(path.read_bytes()[32:])) as archive:
        arrays = {**archive, "variable_0": archive["variable_0"][:1]}
    content = io.BytesIO()
    np.savez(content, **arrays)
    path.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())
    with pytest.raises(OSError, match="The checkpoint of epoch 2 is of another network or opt"):
        resume(run_dir, data_dir=tiny.data_dir)


def test_a_folder_that_took_the_place_of_the_runs_is_not_written_into(tmp_path):
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    run_dir.config.write_text("of this run")
    files = RunFiles(run_dir, chosen=None, progress=checkpoint.Progress(), started=0.0)
    run_dir.path.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="moved or removed"):
        files.on_epoch_end(0, {})
    run_dir.path.mkdir()
    run_dir.config.write_text("of another")
    with pytest.raises(FileNotFoundError, match="moved or removed"):
        files.on_epoch_end(0, {})
    assert list(run_dir.path.iterdir()) == [run_dir.config]


def test_a_clock_that_no_file_of_a_run_can_be_of_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(0))
    with pytest.raises(OSError, match="The clock of this machine says 1970"):
        train(config, RunDir(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_what_a_kill_at_the_end_of_a_run_left_is_removed(tmp_path, unbroken):
    run_dir = RunDir(shutil.copytree(unbroken.path, tmp_path / "run"))
    (run_dir.path / ".unfinished-checkpoint").mkdir()
    with pytest.raises(FileExistsError, match="this run has ended"):
        resume(run_dir)
    assert not list(run_dir.path.glob(".unfinished-*"))


def test_another_device_is_said_aloud(resumed):
    _, said = resumed
    assert r"was started on Abacus,\x1b[2J 10 beads" in said
    assert "was started with oneDNN off (it has none); with oneDNN o" in said


def test_two_checkpoints_are_kept(stopped):
    names = sorted(path.name for path in stopped.checkpoint.iterdir())
    assert names == ["epoch-00001.ckpt", "epoch-00002.ckpt"]


def test_a_checkpoint_holds_the_dropout_generators_and_the_optimizer(stopped):
    saved = checkpoint.read(stopped.checkpoint / "epoch-00002.ckpt")
    # [seed, steps drawn]: 2 epochs of 4 steps, in each of the 3 dropout layers.
    generators = [array for array in saved.variables if array.shape == (2,)]
    assert [int(array[1]) for array in generators] == [8, 8, 8]
    assert sum(array.shape == (4096, 1024) for array in saved.variables) == 2


class Tracker(keras.callbacks.Callback):
    """A user's own: notes what it sees, and fails at the end of an epoch if told to."""

    def __init__(self, *, fail_at=None):
        super().__init__()
        self.fail_at, self.seen = fail_at, []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((epoch, sorted(logs), self.model.stop_training))
        logs.clear()
        if epoch == self.fail_at:
            raise ConnectionError("the tracker's server is gone")


def test_a_users_callback_that_fails_costs_no_epoch_and_changes_nothing(
    config, tiny, unbroken, tmp_path
):
    run_dir, names = RunDir(tmp_path / "run"), ["accuracy", "loss", "val_accuracy", "val_loss"]
    failing, tracker = Tracker(fail_at=1), Tracker()
    with pytest.raises(ConnectionError, match="the tracker's server is gone"):
        train(config, run_dir, data_dir=tiny.data_dir, callbacks=[failing])
    assert read_history(run_dir.history).epoch == [1, 2]
    resume(run_dir, callbacks=[tracker])
    assert_same_end(run_dir, unbroken)
    assert failing.seen + tracker.seen == [(epoch, names, False) for epoch in range(3)]


@pytest.fixture(scope="module")
def warm(config, unbroken, tiny, train_and_stop, tmp_path_factory):
    """Two runs from the weights of another: one that ended, and one killed after an epoch."""
    folder = tmp_path_factory.mktemp("warm")
    config = dataclasses.replace(config, epochs=2)
    origin = RunDir(shutil.copytree(unbroken.path, folder / "origin"))
    ended, killed = RunDir(folder / "ended"), RunDir(folder / "killed")
    train(config, ended, data_dir=tiny.data_dir, origin=origin.model)
    train_and_stop(killed, config, epoch=1, origin=origin.path)
    return origin, ended, killed


def test_a_run_from_another_starts_where_that_one_ended_and_says_so(warm):
    origin, ended, _ = warm
    losses = [read_history(run_dir.history).loss for run_dir in (origin, ended)]
    assert losses[1][0] < losses[0][0]
    digest = hashlib.sha256(origin.model.read_bytes()).hexdigest()
    assert ended.read_record().origin == (origin.model, digest)


def test_a_killed_run_from_another_ends_as_if_it_had_not_been(warm, tmp_path):
    """Even when no checkpoint is whole: what it started from is read again, if it is the same."""
    origin, ended, killed = warm
    for path in killed.checkpoint.iterdir():
        path.write_bytes(b"torn")
    copy = RunDir(shutil.copytree(killed.path, tmp_path / "copy"))
    resume(killed)
    assert_same_end(killed, ended)
    origin.model.write_bytes(ended.model.read_bytes())
    with pytest.raises(OSError, match=r"origin/model\.keras: is gone or was changed"):
        resume(copy)


@pytest.mark.parametrize("recipe", ["article", "fast94"])
def test_a_checkpoint_in_float16_is_that_of_its_network(recipe, tiny, tmp_path):
    config = TrainConfig.of(recipe, dataset="tiny", batch_size=50, precision="float16")
    saved, restored = (compile_model(config, examples=tiny.examples, steps=8) for _ in range(2))
    saved.optimizer.iterations.assign(3)
    checkpoint.save(tmp_path, model=saved, progress=checkpoint.Progress(1))
    checkpoint.restore(checkpoint.load_newest(tmp_path), model=restored)
    assert int(restored.optimizer.iterations) == 3


@pytest.mark.slow
def test_a_checkpoint_of_adam_in_float16_has_all_that_the_next_steps_need(in_a_process, tmp_path):
    """Three steps and two more end as five do. Only float16 scales the loss: state as well."""
    code = f"""
import keras
from keras_cifar.data.pipeline import train_batches
from keras_cifar.data.prepare import load
from keras_cifar.train.compile import compile_in_strategy

examples = load(DATASETS["tiny"], split="train", data_dir=data_dir).take(range(40))
config = TrainConfig.of(
    optimizer="adam", dataset="tiny", batch_size=8, precision="float16", strategy="single"
)
batches = list(train_batches(examples, batch_size=8, seed=0, epochs=range(1)))

def compiled():
    keras.utils.clear_session()
    return compile_in_strategy(config, training=examples)

def trained(model, batches):
    for batch in batches:
        model.train_on_batch(*batch)
    return model

folder = pathlib.Path({str(tmp_path)!r})
unbroken = trained(compiled(), batches)
checkpoint.save(folder, model=trained(compiled(), batches[:3]), progress=checkpoint.Progress(1))
resumed = compiled()
checkpoint.restore(checkpoint.load_newest(folder), model=resumed)
trained(resumed, batches[3:])
pairs = zip(unbroken.variables, resumed.variables, strict=True)
assert all((one.numpy() == other.numpy()).all() for one, other in pairs)
assert type(resumed.optimizer) is keras.optimizers.LossScaleOptimizer
"""
    # On a CPU with AVX512-FP16, oneDNN takes 80 s for a step in float16 that takes 2 s without it
    # (TensorFlow 2.21, November 2026).
    result = in_a_process(code, env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"})
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_killed_run_of_fast94_ends_as_if_it_had_not_been(tiny, train_and_stop, tmp_path):
    """Killed and resumed when the whitening layer is not trained any more."""
    config = TrainConfig.of(
        "fast94", dataset="tiny", validation_fraction=0.5, epochs=4, batch_size=50
    )
    unbroken, killed = RunDir(tmp_path / "unbroken"), RunDir(tmp_path / "killed")
    train(config, unbroken, data_dir=tiny.data_dir)
    train_and_stop(killed, config, epoch=3)
    resume(killed, data_dir=tiny.data_dir)
    assert_same_end(killed, unbroken)


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_as_the_unbroken_one(tmp_path):
    command = [sys.executable, KILL_AND_RESUME, "--kills", "1", "--seed", "40"]
    # Of the recipes, the one that validates soonest; a seed that kills in the middle of the run.
    options = ["--recipe", "fast94", "--epochs", "2", "--batch-size", "50"]
    result = subprocess.run(
        [*command, "--work-dir", tmp_path, *options, "--validation-fraction", "0.9"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "every end identical" in result.stdout
