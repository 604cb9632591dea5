"""Training learns, and writes what it says it writes."""

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import zipfile
from dataclasses import asdict
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_cifar.cifar10 import CIFAR10
from keras_cifar.data.pipeline import train_batches
from keras_cifar.data.prepare import load
from keras_cifar.data.split import split_stratified
from keras_cifar.history import COLUMNS, read_history
from keras_cifar.machine import onednn, pick_precision
from keras_cifar.measure.sheets import augmented_sheet
from keras_cifar.model.load import load_model
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir
from keras_cifar.train import resume, train
from keras_cifar.train.compile import compile_model
from keras_cifar.train.conditions import out_of_memory_in_words
from keras_cifar.train.display import ProgressDisplay
from keras_cifar.train.fit import fit


@pytest.fixture(scope="module")
def config(tiny):
    """Four steps an epoch: the machinery, not the accuracy."""
    return TrainConfig(
        dataset="tiny", validation_fraction=0.5, epochs=3, batch_size=50, precision="float32"
    )


@pytest.fixture(scope="module")
def said():
    """What training said on stderr; `tiny_run` fills it."""
    return io.StringIO()


@pytest.fixture(scope="module")
def tiny_run(config, tiny, said, tmp_path_factory):
    run_dir = RunDir(tmp_path_factory.mktemp("tiny") / "run")
    with contextlib.redirect_stderr(said):
        return run_dir, train(config, run_dir, data_dir=tiny.data_dir)


def weights(run_dir):
    with zipfile.ZipFile(run_dir.model) as archive:
        return archive.read("model.weights.h5")


def test_a_run_leaves_its_settings_history_model_and_picture(tiny_run, config):
    run_dir, _ = tiny_run
    names = {path.name for path in run_dir.path.iterdir()}
    assert names == {"config.json", "history.csv", "history.png", "model.keras", ".lock"}
    document = json.loads(run_dir.config.read_text())
    assert document["settings"] == {**asdict(config), "strategy": "single"}
    assert set(document["versions"]) == {"python", "tensorflow", "keras", "numpy", "keras-cifar"}
    assert document["device"]


def test_history_has_a_row_an_epoch_and_its_columns(tiny_run):
    run_dir, _ = tiny_run
    header, *rows = run_dir.history.read_text().splitlines()
    assert tuple(header.split(",")) == COLUMNS
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3"]
    assert all(math.isfinite(float(cell)) for row in rows for cell in row.split(","))


def test_what_was_chosen_for_the_machine_is_said_and_kept(tiny_run, said):
    run_dir, _ = tiny_run
    choices = run_dir.read_record().choices
    best, reason = pick_precision()
    told = "the CPU" if best == "float32" else f"as told; {best} is faster here: {reason}"
    assert choices["precision"].startswith(f"float32 ({told}")
    assert choices["oneDNN"] == "{} ({})".format(*onednn())
    assert said.getvalue().startswith("".join(f"{name}: {choices[name]}\n" for name in choices))


def test_the_time_left_is_right_although_the_first_step_builds_the_graph(tiny_run, said):
    line = r"epoch 1/3 .* (\d+) s, 0:(\d\d):(\d\d) left"
    epoch, minutes, seconds = map(int, re.search(line, said.getvalue()).groups())
    assert 60 * minutes + seconds < 1.5 * epoch  # with the graph, twice that


def test_the_time_left_is_that_of_steps_like_the_others(monkeypatch, capsys):
    clock = SimpleNamespace(perf_counter=lambda: clock.now, now=0.0)
    monkeypatch.setattr("keras_cifar.train.display.time", clock)
    display = ProgressDisplay([1.0] * 3, steps_per_epoch=4, batch_size=50)
    display.on_epoch_begin(0)
    for step, clock.now in enumerate([30.0, 31.0, 32.0, 33.0]):
        display.on_train_batch_end(step)
    clock.now += 2  # of validation
    display.on_epoch_end(0, {})
    assert capsys.readouterr().err.endswith(" 35 s, 0:00:12 left\n")


def test_the_first_loss_is_near_that_of_guessing(tiny_run):
    run_dir, _ = tiny_run
    assert read_history(run_dir.history).loss[0] == pytest.approx(math.log(10), abs=0.3)


def test_the_chosen_model_is_that_of_the_best_validation_accuracy(tiny_run, tiny):
    run_dir, outcome = tiny_run
    history = read_history(run_dir.history)
    assert history.val_accuracy[outcome.epoch - 1] == max(history.val_accuracy)
    assert outcome.val_accuracy == pytest.approx(max(history.val_accuracy), abs=1e-6)
    _, validation = split_stratified(tiny.examples, validation_fraction=0.5, seed=0)
    logits = load_model(run_dir.model).predict(validation.images, batch_size=500, verbose=0)
    accuracy = (logits.argmax(axis=1) == validation.labels).mean()
    assert accuracy == pytest.approx(outcome.val_accuracy, abs=1e-6)


def test_the_chosen_model_is_a_float32_model_for_inference(tiny_run):
    run_dir, _ = tiny_run
    model = keras.models.load_model(run_dir.model)
    assert not model.compiled
    assert model.count_params() == 5_852_170 + 2 * (32 + 128 + 256)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


def test_without_validation_the_last_model_is_kept(config, tiny, tmp_path):
    config = dataclasses.replace(config, validation_fraction=0.0, epochs=1, batch_size=400)
    run_dir = RunDir(tmp_path / "run")
    outcome = train(config, run_dir, data_dir=tiny.data_dir)
    assert (outcome.epoch, outcome.val_accuracy) == (1, None)
    assert run_dir.model.is_file()
    assert run_dir.history.read_text().splitlines()[1].split(",")[3:5] == ["", ""]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_16_images_can_be_learned_by_heart(optimizer, sample):
    steps = 40
    config = TrainConfig.of(optimizer=optimizer, precision="float32")
    few = sample.take(np.arange(16))
    model = compile_model(config, examples=few, steps=steps)
    traced, train_step = [], model.train_step
    model.train_step = lambda batch: traced.append(batch) or train_step(batch)
    batches = train_batches(few, batch_size=16, seed=0, epochs=range(steps))
    model.fit(batches, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
    assert (model.predict(few.images, verbose=0).argmax(axis=1) == few.labels).mean() > 0.9
    assert len(traced) == 1  # traced again, a run begins 2 s later


def test_a_loss_that_is_not_finite_ends_the_run_with_a_clear_word(config, tiny, tmp_path):
    config = dataclasses.replace(config, learning_rate=1e30, strategy="single")
    run_dir = RunDir(tmp_path / "run")
    with pytest.raises(FloatingPointError, match="lower --learning-rate; it was 1e"):
        train(config, run_dir, data_dir=tiny.data_dir)
    assert not run_dir.model.exists() or run_dir.checkpoint.exists()


@pytest.fixture(scope="module")
def watched_run(config, tiny, tmp_path_factory):
    """The same run, with TensorBoard's logs."""
    run_dir = RunDir(tmp_path_factory.mktemp("watched") / "run")
    train(config, run_dir, data_dir=tiny.data_dir, tensorboard=run_dir.tensorboard)
    return run_dir


def logged(run_dir, name):
    """Returns what TensorBoard reads from one of its folders: a function from a tag to points."""
    events = EventAccumulator(str(run_dir.tensorboard / name)).Reload()
    return lambda tag: [(p.step, tf.make_ndarray(p.tensor_proto)) for p in events.Tensors(tag)]


def test_tensorboard_gets_the_curves_and_changes_nothing(tiny_run, watched_run):
    run_dir, _ = tiny_run
    names = {path.name for path in watched_run.tensorboard.iterdir()}
    assert names == {"images", "live", "train", "validation"}
    assert weights(watched_run) == weights(run_dir)
    assert read_history(watched_run.history)[:-1] == read_history(run_dir.history)[:-1]


def test_tensorboard_gets_live_figures_by_step(watched_run):
    points, history = logged(watched_run, "live"), read_history(watched_run.history)
    steps, losses = zip(*points("live/loss"), strict=True)
    # Each point is the mean of its steps: together they make the epochs' means of four steps.
    assert steps[-1] == 12
    assert np.dot(np.diff(steps, prepend=0), losses) == pytest.approx(4 * sum(history.loss))
    for name, most in (("accuracy", 1), ("images_per_second", 1e5), ("process_memory_mb", 1e5)):
        assert all(0 <= value <= most for _, value in points(f"live/{name}"))


def test_tensorboard_gets_sheets_of_the_first_and_the_last_epoch(watched_run, tiny):
    points, config = logged(watched_run, "images"), watched_run.read_record().settings
    trained, answered = (points(f"{name} images") for name in ("training", "validation"))
    assert [step for step, _ in trained] == [step for step, _ in answered] == [0, 2]
    training, _ = split_stratified(tiny.examples, validation_fraction=0.5, seed=0)
    for epoch, (_, _, png) in trained:
        sheet = augmented_sheet(config, examples=training, epoch=epoch)
        np.testing.assert_array_equal(tf.io.decode_png(png), sheet)


def test_a_run_that_is_there_is_not_overwritten_unless_told_to(config, tiny, tmp_path):
    run_dir = RunDir(tmp_path)
    run_dir.model.write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds a run already \(model.keras\)"):
        train(config, run_dir, data_dir=tiny.data_dir)
    assert run_dir.model.read_text() == "mine"
    once = dataclasses.replace(config, epochs=1)
    with pytest.raises(FileExistsError, match=r"holds no run, so --overwrite leaves alone what"):
        train(once, run_dir, data_dir=tiny.data_dir, existing="replace")
    assert run_dir.model.read_text() == "mine"
    (tmp_path / ".lock").touch()  # as of a run that was killed in between
    train(once, run_dir, data_dir=tiny.data_dir, existing="replace")
    assert load_model(run_dir.model)


def test_a_finished_run_is_not_resumed(tiny_run):
    run_dir, _ = tiny_run
    with pytest.raises(FileExistsError, match="has ended"):
        resume(run_dir)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_and_keeps_float32(precision, config, in_a_process, tmp_path):
    run_dir = RunDir(tmp_path / "run")
    config = dataclasses.replace(config, epochs=1, precision=precision)
    # On a CPU with AVX512-FP16, oneDNN takes 80 s for a step in float16 that takes 2 s without it
    # (TensorFlow 2.21, November 2026).
    variables = {"float16": {"TF_ENABLE_ONEDNN_OPTS": "0"}}.get(precision, {})
    result = in_a_process(
        f"train({config!r}, RunDir(pathlib.Path({str(run_dir.path)!r})), data_dir=data_dir)",
        env={**os.environ, **variables},
    )
    assert result.returncode == 0, result.stderr
    assert read_history(run_dir.history).loss[0] == pytest.approx(math.log(10), abs=0.15)
    assert {layer.dtype_policy.name for layer in load_model(run_dir.model).layers} == {"float32"}


@pytest.mark.slow
def test_a_part_of_the_real_data_is_learned(full_data_dir, tmp_path):
    """2,000 of the 50,000 images, 3 epochs: well above the 10 % of guessing."""
    examples = load(CIFAR10, split="train", data_dir=full_data_dir).take(np.arange(2000))
    precision, _ = pick_precision()
    config = TrainConfig(epochs=3, precision=precision, batch_size=64)
    run_dir = RunDir(tmp_path)
    run_dir.checkpoint.mkdir()
    outcome = fit(config, run_dir, examples=examples, start=None, tensorboard=None)
    assert outcome.val_accuracy > 0.25


def test_too_little_memory_names_the_batch_size(config):
    with (
        pytest.raises(MemoryError, match=r"^--batch-size: 50 images at a time need more memory"),
        out_of_memory_in_words(config),
    ):
        tf.fill([2**45], 0.0)
