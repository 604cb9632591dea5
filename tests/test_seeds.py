"""A run for each of several seeds: each as if it were alone, whatever interrupts them."""

import csv
import dataclasses
import gc
import json
import os
import shutil
import signal
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from tensorflow.python.framework.func_graph import FuncGraph

from keras_cifar.cli import main
from keras_cifar.cli.seeds import in_words
from keras_cifar.files import locked
from keras_cifar.measure.intervals import mean_and_deviation
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir, RunGroup, newest_run, newest_to_resume, runs_at
from keras_cifar.train import resume_seeds, train, train_seeds

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def config(tiny):
    """Plain layers are traced sooner."""
    return TrainConfig(
        dataset="tiny", validation_fraction=0.5, epochs=2, batch_size=100, accelerate=False
    )


def give(*arguments):
    """Runs a command in this process, which has TensorFlow already."""
    handler = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    signal.signal(signal.SIGTERM, handler)
    return result


def as_kept(run):
    """What is to be the same to the bit: settings, history but for the seconds, weights."""
    with zipfile.ZipFile(run.model) as archive:
        weights = archive.read("model.weights.h5")
    rows = [line.rpartition(",")[0] for line in run.history.read_text().splitlines()]
    return run.config.read_text(), rows, weights


@pytest.fixture(scope="module")
def alone(config, tiny, tmp_path_factory):
    """The run that was killed and the one after it, each by itself."""
    group = RunGroup(tmp_path_factory.mktemp("alone"))
    for seed in SEEDS[1:]:
        train(dataclasses.replace(config, seed=seed), group.run(seed), data_dir=tiny.data_dir)
    return group


@pytest.fixture(scope="module")
def killed(config, in_a_process, tmp_path_factory):
    """A group of which the process was killed in the first epoch of the second run."""
    group = RunGroup(tmp_path_factory.mktemp("group") / "my group")
    ended = in_a_process(
        "from keras_cifar.run_dir import RunGroup",
        "from keras_cifar.train import train_seeds",
        "save = checkpoint.save",
        "def save_and_die(folder, *, model, progress):",
        "    save(folder, model=model, progress=progress)",
        "    if folder.parent.name == 'seed-1': os.kill(os.getpid(), signal.SIGKILL)",
        "checkpoint.save = save_and_die",
        f"group = RunGroup(pathlib.Path({str(group.path)!r}))",
        f"train_seeds({config!r}, group, seeds={SEEDS!r}, data_dir=data_dir)",
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return RunGroup(shutil.copytree(group.path, tmp_path_factory.mktemp("killed") / "group"))


@pytest.fixture(scope="module")
def resumed(killed, tmp_path_factory):
    """A copy that was resumed, interrupted by Ctrl-C in the third run, and resumed again."""
    group = RunGroup(shutil.copytree(killed.path, tmp_path_factory.mktemp("resumed") / "group"))

    write_record = RunDir.write_record

    def write_and_interrupt(run, record):
        write_record(run, record)
        if run.path == group.run(2).path:
            signal.raise_signal(signal.SIGINT)

    command = ("train", "--resume", "--run-dir", group.path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunDir, "write_record", write_and_interrupt)
        interrupted = give(*command)
    return group, interrupted, give(*command)


# To the bit


def test_a_group_that_was_killed_ends_as_its_runs_do_alone(resumed, alone):
    group, _, _ = resumed
    for seed in SEEDS[1:]:
        assert as_kept(group.run(seed)) == as_kept(alone.run(seed))
    assert all(run.has_ended for run in group.runs())


def test_what_is_said_of_a_group(resumed):
    group, interrupted, ended = resumed
    assert interrupted.exit_code == 130
    what, second, *_, third, _, _, last = interrupted.stderr.splitlines()
    assert what == (
        f"{group.path}: article recipe with sgd on 200 images of tiny, epochs 2, seeds 0-2"
    )
    assert second == f"seed 1 (2 of 3): {group.path}/seed-1"
    assert third == f"seed 2 (3 of 3): {group.path}/seed-2"
    assert last == f"Interrupted. Go on with: keras-cifar train --resume --run-dir {group.path}"
    assert ended.exit_code == 0, ended.stderr
    assert ended.stderr.splitlines()[-1] == f"Test them: keras-cifar evaluate {group.path}"
    assert "WARNING" not in interrupted.stderr + ended.stderr
    assert group.plot.read_bytes().startswith(b"\x89PNG")


def test_the_summary_is_that_of_the_histories(resumed):
    group, _, ended = resumed
    where, _, *rows, mean = ended.stdout.splitlines()
    assert where == f"{group.path}:"
    best = []
    for seed, row in zip(SEEDS, rows, strict=True):
        with group.run(seed).history.open() as file:
            accuracies = [float(line["val_accuracy"]) for line in csv.DictReader(file)]
        best.append(max(accuracies))
        expected = [str(seed), f"{max(accuracies):.4f}", str(1 + accuracies.index(max(accuracies)))]
        assert row.split()[:3] == expected
    assert mean.split() == ["mean", f"{np.mean(best):.4f}", "±", f"{np.std(best, ddof=1):.4f}"]


def test_the_deviation_is_the_samples_and_that_of_one_value_unknown():
    values = [0.9, 0.92, 0.97]
    mean, deviation = mean_and_deviation(values)
    assert mean == pytest.approx(np.mean(values))
    assert deviation == pytest.approx(np.std(values, ddof=1))
    assert mean_and_deviation([0.9]) == (0.9, None)


# Looking at a group


def test_evaluate_measures_each_run_and_gives_mean_and_deviation(resumed, tiny):
    group, _, _ = resumed
    result = give("evaluate", group.path, "--json", "--data-dir", tiny.data_dir)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    kept = [json.loads(group.run(seed).metrics.read_text()) for seed in SEEDS]
    assert document["runs"] == [{"seed": seed, **of} for seed, of in zip(SEEDS, kept, strict=True)]
    for name in ("accuracy", "loss"):
        values = [of[name] for of in kept]
        assert document[name]["mean"] == pytest.approx(np.mean(values))
        assert document[name]["deviation"] == pytest.approx(np.std(values, ddof=1))


def test_evaluate_prints_a_row_a_seed_and_leaves_out_what_has_not_ended(killed):
    result = give("evaluate", killed.path, "--split", "validation")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith(f"{killed.path}: left out, since not ended: seed 1, 2\n")
    what, header, row, mean = result.stdout.splitlines()
    assert what == "validation: 200 images"
    assert header.split() == ["seed", "accuracy", "loss"]
    assert row.split()[1:] == mean.split()[1:]  # of one seed there is no deviation


def test_plot_draws_the_runs_of_a_group(resumed, tmp_path):
    group, _, _ = resumed
    output = tmp_path / "curves.svg"
    assert give("plot", group.path, "--output", output).exit_code == 0
    assert all(f"<!-- seed-{seed}" in output.read_text() for seed in SEEDS)


@pytest.mark.parametrize(
    "command", [("export", "GROUP", "models"), ("predict", "x.png", "--model", "GROUP")]
)
def test_what_takes_one_run_names_one_of_a_group(resumed, command):
    group, _, _ = resumed
    result = give(*(str(group.path) if word == "GROUP" else word for word in command))
    assert result.exit_code == 1
    named = f"{group.path}: a group of runs. Name one of them: {group.path}/seed-0"
    assert named in result.stderr


def test_the_newest_is_a_group_and_what_can_be_resumed_is_found(
    killed, resumed, alone, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    shutil.copytree(killed.path, tmp_path / "runs" / "killed")
    shutil.copytree(resumed[0].path, tmp_path / "runs" / "ended")
    shutil.copytree(alone.run(1).path, tmp_path / "runs" / "run")
    names = ["killed", "run", "ended"]
    for age, name in enumerate(reversed(names), start=1):
        for path in (tmp_path / "runs" / name).rglob("*.json"):
            os.utime(path, (1e9 - age, 1e9 - age))
    assert newest_run().path.name == "ended"
    assert newest_to_resume().path.name == "killed"
    os.utime(tmp_path / "runs" / "killed" / "seed-0" / "config.json")
    assert newest_run().path.name == "killed"


# What is refused


@pytest.mark.parametrize(
    ("seeds", "fault"),
    [
        ("3-1", "got '3-1', expected the lower seed first."),
        ("a", "got 'a', expected seeds such as 0-4 or 0,3,7-9."),
        ("", "got '', expected seeds"),
        ("-1", "got '-1', expected seeds"),
        ("0,,2", "got '0,,2', expected seeds"),
        ("1,1", "got 1 twice, expected each once."),
        ("0-2,1", "got 1 twice, expected each once."),
        ("0-9999", "got 10,000 seeds, expected at most 1,000."),
        ("0-9999999999", "got 10,000,000,000 seeds, expected at most 1,000."),
        ("2147483648", "got 2147483648, expected whole numbers from 0 to 2147483647."),
        ("٣", "got '٣', expected seeds"),
    ],
)
def test_seeds_that_are_none_are_wrong_usage(seeds, fault, tmp_path):
    result = give("train", "--seeds", seeds, "--run-dir", tmp_path / "group")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"Error: Invalid value for '--seeds': {fault}")
    assert not list(tmp_path.iterdir())


def test_a_list_of_seeds_is_taken_as_it_is_said():
    context = main.commands["train"].make_context("train", ["--seeds", "7, 0-2,5"])
    assert context.params["seeds"] == (7, 0, 1, 2, 5)
    assert in_words(context.params["seeds"]) == "7,0-2,5"


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--seeds", "0-2", "--seed", "1"), "--seed is for one run, --seeds for several"),
        (("--resume", "--seed", "0"), "each of its own seed."),
        (("--resume", "--seeds", "0-3"), "was started with --seeds 0-2, not 0-3."),
        (("--resume", "--epochs", "3"), "was started with --epochs 2, not 3."),
    ],
)
def test_other_settings_than_a_groups_are_wrong_usage(killed, options, fault):
    result = give("train", "--run-dir", killed.path, *options)
    assert result.exit_code == 2
    assert fault in result.stderr
    assert not killed.run(2).path.exists()


def test_a_group_that_is_there_is_kept_and_one_that_has_ended_not_resumed(resumed, alone):
    group, _, _ = resumed
    before = as_kept(group.run(0))
    again = give("train", "--seeds", "0", "--dataset", "sample", "--run-dir", group.path)
    assert again.exit_code == 1
    assert f"{group.path}: holds a group of runs already. Go on" in again.stderr
    single = give("train", "--dataset", "sample", "--overwrite", "--run-dir", group.path)
    assert single.exit_code == 1
    assert f"{group.path}: holds a group of runs. Name another --run-dir." in single.stderr
    run = alone.run(1)
    of_a_run = give("train", "--seeds", "0", "--dataset", "sample", "--run-dir", run.path)
    assert f"{run.path}: holds a run, no group. Name another" in of_a_run.stderr
    ended = give("train", "--resume", "--run-dir", group.path)
    assert f"{group.path}: all 3 runs have ended; there is nothing to resume." in ended.stderr
    assert as_kept(group.run(0)) == before


def test_a_group_has_one_process(killed):
    with locked(killed.path / ".lock", when_busy=pytest.fail):
        result = give("train", "--resume", "--run-dir", killed.path)
    assert result.exit_code == 1
    assert f"{killed.path}: another process is training here." in result.stderr


def test_runs_of_other_settings_or_versions_are_not_added_to(killed, tmp_path):
    group = RunGroup(shutil.copytree(killed.path, tmp_path / "group"))
    for path, section, name in (
        (group.run(0).config, "settings", "epochs"),
        (group.config, "versions", "keras"),
    ):
        document = json.loads(path.read_text())
        document[section][name] = 7
        path.write_text(json.dumps(document))
        fault = "has other settings than" if section == "settings" else "was started with keras 7"
        with pytest.raises(OSError, match=fault):
            resume_seeds(group)
    assert not group.run(2).path.exists()


def test_a_run_that_has_lost_a_file_is_told_with_the_way_out(killed, tmp_path):
    group = RunGroup(shutil.copytree(killed.path, tmp_path / "group"))
    again = f"its seed is trained again by keras-cifar train --resume --run-dir {group.path}"
    for lost in (group.run(0).model, group.run(1).config):
        content = lost.read_bytes()
        lost.unlink()
        with pytest.raises(OSError, match=rf"{lost.name} is missing\. Move .*; then {again}$"):
            resume_seeds(group)
        lost.write_bytes(content)
    assert not group.run(2).path.exists()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"seeds": [0]}', '{"seeds": ["0"]}', '{"seeds": 1}']
)
def test_a_damaged_seeds_json_is_told_in_one_line(content, killed, tmp_path):
    group = RunGroup(tmp_path)
    group.config.write_text(content)
    for command in (("evaluate", tmp_path), ("train", "--resume", "--run-dir", tmp_path)):
        result = give(*command)
        assert result.exit_code == 1
        assert f"{group.config}: not the seeds.json of a group (" in result.stderr


@pytest.mark.slow
def test_overwrite_replaces_the_runs_of_a_group_and_nothing_else(killed, config, tiny, tmp_path):
    group = RunGroup(shutil.copytree(killed.path, tmp_path / "group"))
    (group.run(1).path / "notes.txt").write_text("mine")
    group.run(0).config.unlink()  # by an --overwrite that was killed
    group.suspects.touch()
    before = graphs_in_memory()
    # The faster layers have gradients of their own, which TensorFlow would keep.
    config = dataclasses.replace(config, epochs=1, validation_fraction=0.0, accelerate=True)
    outcome = train_seeds(config, group, seeds=[7], data_dir=tiny.data_dir, existing="replace")
    assert [run.path.name for run in runs_at(group.path)] == ["seed-7"]
    assert not list(group.path.glob("seed-[01]/[!.n]*"))
    assert not group.suspects.exists()
    assert (group.run(1).path / "notes.txt").read_text() == "mine"
    # Without validation it is the accuracy on the training images; of one seed there is no error.
    assert (outcome.measure, outcome.deviation) == ("accuracy", None)
    assert outcome.outcomes[7].epoch == 1
    assert RunDir(group.run(7).path).has_ended
    assert graphs_in_memory() <= before


def graphs_in_memory():
    gc.collect()
    graphs = [one for one in gc.get_objects() if isinstance(one, FuncGraph)]
    return sum("step_on_data" in graph.name for graph in graphs)
