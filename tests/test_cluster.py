"""Who the workers are, as TF_CONFIG and Slurm say it."""

import atexit
import json

import pytest
import tensorflow as tf
from click.testing import CliRunner

from keras_cifar.cli import main
from keras_cifar.cli.starting import saying_how_to_resume
from keras_cifar.distribute.cluster import (
    LAUNCHED,
    TF_CONFIG,
    Cluster,
    find_cluster,
    is_helper,
)
from keras_cifar.distribute.workers import Workers, _end_at_once, differences
from keras_cifar.machine import package_versions
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir
from keras_cifar.run_record import RunRecord
from keras_cifar.train import resume
from keras_cifar.train.conditions import settle

TWO = ["a:1", "b:2"]
SLURM = {
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NODELIST": "node[08-09]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_JOB_ID": "1230017",
}


@pytest.fixture
def tf_config(monkeypatch):
    def tell(document):
        text = document if isinstance(document, str) else json.dumps(document)
        monkeypatch.setenv(TF_CONFIG, text)

    return tell


@pytest.fixture
def slurm(monkeypatch):
    def tell(**changed):
        for name, value in (SLURM | changed).items():
            monkeypatch.setenv(name, value)

    return tell


def task(kind, index):
    return {"type": kind, "index": index}


# TF_CONFIG


@pytest.mark.parametrize(
    ("document", "addresses", "rank"),
    [
        ({"cluster": {"worker": TWO}, "task": task("worker", 1)}, TWO, 1),
        # Vertex AI and Kubeflow have a chief of its own, and tell more.
        (
            {"cluster": {"chief": ["c:3"], "worker": TWO}, "task": task("chief", 0), "job": {}},
            ["c:3", *TWO],
            0,
        ),
        (
            {"cluster": {"worker": TWO, "chief": ["c:3"]}, "task": task("worker", "1")},
            ["c:3", *TWO],
            2,
        ),
        (
            {"cluster": {"worker": TWO, "evaluator": ["e:4"]}, "task": task("worker", 0)},
            TWO,
            0,
        ),
    ],
)
def test_tf_config_names_workers_and_the_chief_is_the_first(document, addresses, rank, tf_config):
    tf_config(document)
    cluster = find_cluster()
    assert (cluster.source, list(cluster.addresses), cluster.rank) == (TF_CONFIG, addresses, rank)
    assert cluster.is_chief == (rank == 0)
    assert is_helper() == (rank != 0)


@pytest.mark.parametrize("document", ["", {}, {"cluster": {}}, {"task": task("worker", 0)}])
def test_without_a_cluster_a_process_is_by_itself(document, tf_config):
    tf_config(document)
    assert find_cluster() is None
    assert not is_helper()


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ("{", "TF_CONFIG: got '{', expected "),
        ("[1]", "expected "),
        ({"cluster": {"worker": TWO}}, "expected "),
        ({"cluster": {"worker": TWO}, "task": task("worker", "x")}, "expected "),
        (
            {"cluster": {"worker": TWO}, "task": task("worker", 2)},
            "this process is worker 2, but there are 2, counted from 0.",
        ),
        (
            {"cluster": {"worker": TWO}, "task": task("evaluator", 0)},
            "names this process 'evaluator'; ",
        ),
        ({"cluster": {"worker": TWO, "ps": ["p:1"]}, "task": task("worker", 0)}, "names a ps; "),
        ({"cluster": {"worker": ["a:1", "a:1"]}, "task": task("worker", 0)}, "twice: a:1, a:1."),
        (
            {"cluster": {"worker": ["a"]}, "task": task("worker", 0)},
            "names a worker 'a', expected host:port.",
        ),
        ({"cluster": {"worker": [1]}, "task": task("worker", 0)}, "names a worker 1, "),
        ({"cluster": {"worker": "a:1"}, "task": task("worker", 0)}, "expected "),
        ({"cluster": {"worker": {"0": "a:1"}}, "task": task("worker", 0)}, "expected "),
        (
            {"cluster": {"worker": None}, "task": task("worker", 0)},
            "this process is worker 0, but there are 0, counted from 0.",
        ),
        # Two processes must not take themselves for the same one.
        (
            {"cluster": {"chief": ["c:3"], "worker": TWO}, "task": task("chief", 1)},
            "this process is chief 1, but there are 1, counted from 0.",
        ),
        (
            {"cluster": {"chief": ["c:3"], "worker": TWO}, "task": task("worker", -1)},
            "this process is worker -1, but there are 2, counted from 0.",
        ),
        ({"cluster": {"worker": TWO}, "task": task("chief", 0)}, "this process is chief 0, "),
    ],
)
def test_what_is_no_cluster_of_workers_is_refused(document, fault, tf_config):
    tf_config(document)
    with pytest.raises(OSError, match="TF_CONFIG") as error:
        find_cluster()
    assert fault in str(error.value)
    assert "\n" not in str(error.value)


# Slurm


def test_slurm_names_a_worker_for_each_task_on_ports_of_its_job(slurm):
    slurm()
    cluster = find_cluster()
    addresses = ("node08:20340", "node08:20341", "node09:20340")
    assert (cluster.source, cluster.addresses, cluster.rank) == ("Slurm", addresses, 2)


@pytest.mark.parametrize("other", [{"SLURM_JOB_ID": "1230018"}, {"SLURM_STEP_ID": "1"}])
def test_of_slurms_steps_on_a_node_each_has_ports_of_its_own(other, slurm):
    slurm()
    ports = {address.rpartition(":")[2] for address in find_cluster().addresses}
    slurm(**other)
    others = {address.rpartition(":")[2] for address in find_cluster().addresses}
    assert (len(ports), len(others), ports & others) == (2, 2, set())


def test_machines_have_slurms_order(slurm):
    slurm(SLURM_STEP_NODELIST="node[9-10]")
    assert find_cluster().addresses == ("node9:20340", "node9:20341", "node10:20340")


def test_tf_config_is_asked_first(slurm, tf_config):
    slurm()
    tf_config({"cluster": {"worker": TWO}, "task": task("worker", 1)})
    assert find_cluster().source == TF_CONFIG


def test_a_step_of_one_task_is_no_cluster(slurm):
    slurm(SLURM_STEP_NUM_TASKS="1")
    assert find_cluster() is None


@pytest.mark.parametrize(
    "changed",
    [
        {"SLURM_STEP_NODELIST": "node[08"},
        {"SLURM_STEP_TASKS_PER_NODE": "many"},
        {"SLURM_STEP_TASKS_PER_NODE": "1"},
        {"SLURM_PROCID": "two"},
        {"SLURM_PROCID": "3"},
        {"SLURM_STEP_ID": "batch"},
    ],
)
def test_variables_that_make_no_sense_are_refused(changed, slurm):
    slurm(**changed)
    with pytest.raises(OSError, match=r"Slurm: .*srun"):
        find_cluster()


# What comes of it


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "Graph execution error:\n\nDetected at node step defined at (most recent call last):\n"
            "<stack traces unavailable>\nGPU sync failed\n\t [[{{node step}}]] [Op:__inference_1]",
            "cannot go on: GPU sync failed. See what the others said last; then go on from",
        ),
        (
            "Connection reset by remote target /job:worker/replica:0/task:1 while calling",
            "worker 1 (b:2) does not answer any more. See what it said last; then go on from",
        ),
    ],
)
def test_of_a_failure_no_other_worker_is_blamed_that_is_not_named(text, told):
    workers = Workers(Cluster(TF_CONFIG, tuple(TWO), 0), None)
    with pytest.raises(ConnectionError) as error, workers.failures_in_words():
        raise tf.errors.InternalError(None, None, text)
    atexit.unregister(_end_at_once)  # of the tests' process
    assert str(error.value).startswith(f"worker 0 (a:1): {told}")


@pytest.mark.parametrize("broken", [{"SLURM_PROCID": "two"}, {"TF_CONFIG": "{"}])
def test_one_process_by_itself_takes_no_notice_of_a_cluster(broken, slurm, tmp_path):
    slurm(**broken)
    options = ["--strategy", "single", "--run-dir", tmp_path / "run", "--from", tmp_path / "none"]
    result = CliRunner().invoke(main, ["train", *map(str, options)])
    assert f"Error: {tmp_path / 'none'}: no such model file." in result.stderr


def begun_run(path, *, strategy):
    run = RunDir(path)
    run.checkpoint.mkdir()
    run.write_record(RunRecord(TrainConfig.of(strategy=strategy), package_versions(), "", {}))
    return run


def test_a_run_of_one_process_is_not_resumed_by_several(tf_config, tmp_path):
    run = begun_run(tmp_path, strategy="single")
    tf_config({"cluster": {"worker": TWO}, "task": task("worker", 0)})
    with pytest.raises(
        OSError, match=r"2 workers\. Resume it by one process, with TF_CONFIG unset"
    ):
        resume(run)


@pytest.mark.parametrize(
    ("strategy", "where"),
    [("multi-worker", ", on all workers"), ("single", ", with TF_CONFIG unset")],
)
def test_who_is_interrupted_is_told_how_to_go_on(
    strategy, where, tf_config, tmp_path, capsys, monkeypatch
):
    run = begun_run(tmp_path, strategy=strategy)
    tf_config({"cluster": {"worker": TWO}, "task": task("worker", 0)})

    def interrupted():
        with pytest.raises(KeyboardInterrupt), saying_how_to_resume(run):
            raise KeyboardInterrupt
        return capsys.readouterr().err

    again = f"keras-cifar train --resume --run-dir {tmp_path}"
    assert interrupted() == f"Interrupted. Go on with: {again}{where}\n"
    monkeypatch.setenv(LAUNCHED, "1")
    assert interrupted() == ""  # `launch` says how


def test_several_workers_train_together_by_themselves(tf_config):
    tf_config({"cluster": {"worker": TWO}, "task": task("worker", 1)})
    config, choices = settle(TrainConfig.of())
    assert config.strategy == "multi-worker"
    assert choices["workers"] == "2 (as TF_CONFIG says)"
    assert settle(TrainConfig.of(strategy="single"))[0].strategy == "single"


def test_one_worker_is_as_none(tf_config):
    tf_config({"cluster": {"worker": TWO[:1]}, "task": task("worker", 0)})
    assert settle(TrainConfig.of())[0].strategy == "single"


def test_a_batch_that_they_cannot_share_equally_is_refused(tf_config):
    tf_config({"cluster": {"worker": [*TWO, "c:3"]}, "task": task("worker", 1)})
    settle(TrainConfig.of(batch_size=129))
    with pytest.raises(OSError, match=r"128 images .* 3 replicas cannot share .* Take 129, say"):
        settle(TrainConfig.of(batch_size=128))


def test_a_recipe_that_several_cannot_train_is_refused(tf_config):
    tf_config({"cluster": {"worker": TWO}, "task": task("worker", 1)})
    with pytest.raises(OSError, match="TF_CONFIG names 2 workers, but fast96 trains on a single"):
        settle(TrainConfig.of("fast96"))


def test_of_a_worker_that_resumes_beside_a_chief_that_begins_one_difference_is_told():
    """A worker that resumes has no settings of its own."""
    chiefs = {"command": "train", "seed": 0, "epochs": 20, "keras": "3.15"}
    theirs = {"command": "train --resume", "keras": "3.15"}
    assert differences(theirs, chiefs=chiefs) == ["command train --resume (the chief: train)"]
    assert differences({**chiefs, "seed": 3}, chiefs=chiefs) == ["seed 3 (the chief: 0)"]


@pytest.mark.parametrize("rank", [0, 1])
def test_seeds_are_refused_by_each_worker_without_waiting_for_others(
    rank, tf_config, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    tf_config({"cluster": {"worker": TWO}, "task": task("worker", rank)})
    result = CliRunner().invoke(main, ["train", "--seeds", "0-1", "--dataset", "sample"])
    assert result.exit_code == 1
    assert "Error: --seeds: is for one process; several workers train a run." in result.stderr
