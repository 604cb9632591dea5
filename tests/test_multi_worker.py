"""Several workers on this machine: what they train, what Keras cannot, and how they fail."""

import os
import re
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fork_server import Fork, ForkServer

from keras_cifar.history import read_history
from keras_cifar.launch import held_ports, share_out
from keras_cifar.model import article
from keras_cifar.model.load import load_model
from keras_cifar.recipes import RECIPES, TrainConfig
from keras_cifar.recipes.article import ArticleRecipe
from keras_cifar.run_dir import RunDir
from keras_cifar.train import train

# A fork has the command line already, which does not know the dataset of the tests.
COMMAND = """
import sys
import click
from keras_cifar.cli import main
(dataset,) = (option for option in main.commands["train"].params if option.name == "dataset")
dataset.type = click.Choice(tuple(DATASETS))
main(sys.argv[1:])
"""
WITHOUT_DROPOUT = """
from keras_cifar.recipes import RECIPES
from keras_cifar.recipes.article import ArticleRecipe

class WithoutDropout(ArticleRecipe):
    def build_model(self, *, seed):
        from keras_cifar.model import article
        return article.build_model(seed=seed, dropout=0.0, channel_dropout=0.0)

RECIPES["article"] = WithoutDropout()
"""
# Each fault by itself: `fit` of Keras's own model, and of one that goes round the first alone.
KERAS_ALONE = """
import keras, numpy as np, tensorflow as tf
from keras_cifar.distribute.multi_worker import MultiWorkerFit
from keras_cifar.distribute.workers import workers_of_this_process

strategy = workers_of_this_process().strategy

class FirstMended(keras.Model):
    _maybe_symbolic_build = MultiWorkerFit._maybe_symbolic_build

def said_by_fit(kind):
    images, labels = np.zeros([4, 2], "float32"), np.zeros([4], "int64")
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    with strategy.scope():
        inputs = keras.Input([2])
        model = kind(inputs, keras.layers.Dense(3)(inputs))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer="sgd", loss=loss, metrics=["accuracy"])
    try:
        model.fit(batches, epochs=1, shuffle=False, verbose=0)
    except Exception as error:
        return str(error)
    return "trained"

print(said_by_fit(keras.Model))
print("--")
print(said_by_fit(FirstMended))
workers_of_this_process().end()
"""

TWO_RUNS = """
from keras_cifar.distribute.workers import workers_of_this_process

workers = workers_of_this_process()
for run in "first", "second":
    workers.agree({})
    print(workers.tell("name", run))
    workers.end()
"""


def environment_of(share):
    """As `train` sets it for a worker, and a shell does not: TensorFlow says less."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **share.environment}


@pytest.fixture(scope="module")
def forks(fork_server):
    """Forks of a process that has imported TensorFlow as a worker does."""
    if fork_server is None:
        yield None
        return
    server = ForkServer(environment_of(share_out([0, 0])[0]))
    yield server
    server.close()


@dataclass
class Worker:
    """A process, and the files that take what it says."""

    process: Fork | subprocess.Popen
    stdout: Path
    stderr: Path

    def ending(self, *, seconds=600):
        """Returns stderr, stdout and exit code, when it has ended."""
        code = self.process.wait(timeout=seconds)
        return self.stderr.read_text(), self.stdout.read_text(), code


@pytest.fixture
def workers(tiny, tmp_path, forks, start_python):
    """Starts two workers, each with a folder of its own; none outlives the block."""

    @contextmanager
    def start(*lines, arguments=((), ())):
        with ExitStack() as stack:
            ports = stack.enter_context(held_ports(2))
            started = []
            for rank, share in enumerate(share_out(ports)):
                folder = tmp_path / f"machine-{rank}"
                folder.mkdir(exist_ok=True)
                program = "\n".join((f"import os; os.chdir({str(folder)!r})", tiny.code, *lines))
                environment = environment_of(share) | {"TFDS_DATA_DIR": str(tiny.data_dir)}
                paths = [tmp_path / f"{rank}.{name}" for name in ("stdout", "stderr")]
                words = list(map(str, arguments[rank]))
                with paths[0].open("w") as stdout, paths[1].open("w") as stderr:
                    process = start_python(
                        forks,
                        program,
                        words,
                        stdout=stdout.fileno(),
                        stderr=stderr.fileno(),
                        environment=environment,
                    )
                started.append(Worker(process, *paths))
                stack.callback(started[-1].process.wait)
                stack.callback(started[-1].process.kill)
            yield started

    return start


def endings(workers):
    return [worker.ending() for worker in workers]


def weights_of(run):
    return load_model(run.require_model()).get_weights()


def test_two_workers_train_as_one_process_does(workers, tiny, tmp_path, monkeypatch):
    """But for sums in another order: without dropout, with the moments of the whole batch.

    At a low rate, since training makes any difference grow.
    """

    class WithoutDropout(ArticleRecipe):
        def build_model(self, *, seed):
            return article.build_model(seed=seed, dropout=0.0, channel_dropout=0.0)

    monkeypatch.setitem(RECIPES, "article", WithoutDropout())
    settings = {"dataset": "tiny", "epochs": 1, "batch_size": 40, "learning_rate": 1e-3}
    alone = RunDir(tmp_path / "alone")
    config = TrainConfig(**settings, precision="float32", strategy="single")
    train(config, alone, data_dir=tiny.data_dir)
    command = ["train", "--run-dir", "run", "--sync-batch-norm", "--precision", "float32"]
    for name, value in settings.items():
        command += [f"--{name.replace('_', '-')}", value]
    with workers(WITHOUT_DROPOUT, COMMAND, arguments=(command, command)) as processes:
        (said, printed, code), helpers = endings(processes)
    assert code == 0, said
    assert "workers: 2 (as TF_CONFIG says)\n" in said
    assert printed.startswith("run: val_accuracy ")
    # The chief alone writes and speaks.
    assert helpers == ("", "", 0)
    assert not list((tmp_path / "machine-1").iterdir())
    run = RunDir(tmp_path / "machine-0" / "run")
    ours, theirs = (np.concatenate([w.ravel() for w in weights_of(r)]) for r in (alone, run))
    start = np.concatenate(
        [w.ravel() for w in RECIPES["article"].build_model(seed=0).get_weights()]
    )
    assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(ours - start)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        ours, theirs = (getattr(read_history(r.history), name) for r in (alone, run))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_keras_by_itself_cannot_fit_on_several_workers(workers):
    """If this fails, Keras is mended: see what multi_worker.py says, and do without it."""
    with workers(KERAS_ALONE) as processes:
        for said, printed, code in endings(processes):
            assert code == 0, said
            first, second = printed.split("--\n")
            assert "Attempt to convert a value (PerReplica" in first
            assert "Invalid reduction dimension 0 for input with 0 dimensions" in second


def test_workers_meet_past_a_proxy_and_may_train_one_run_after_another(workers, monkeypatch):
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:9")  # leads nowhere
    with workers(TWO_RUNS) as processes:
        for said, printed, code in endings(processes):
            assert (printed, code) == ("first\nsecond\n", 0), said


def test_a_worker_that_was_started_with_something_else_is_named_by_all(workers):
    command = ["train", "--dataset", "tiny", "--batch-size", 40, "--run-dir", "run"]
    with workers(COMMAND, arguments=(command, [*command, "--seed", 3])) as processes:
        for said, printed, code in endings(processes):
            fault = r"Error: worker 1 \(\S+\) was started with seed 3 \(the chief: 0\)\. Start all"
            assert re.search(fault, said)
            assert (printed, code) == ("", 1)


def test_who_waits_for_a_worker_that_does_not_come_can_be_ended(workers, eventually):
    """TensorFlow waits for minutes, in which Python's handlers have no turn."""
    command = ["train", "--dataset", "tiny", "--batch-size", 40, "--run-dir", "run"]
    with workers(COMMAND, arguments=(command, ["--version"])) as (chief, _):
        eventually(lambda: "Waiting for 2 workers, " in chief.stderr.read_text())
        time.sleep(1)  # TensorFlow takes SIGTERM for itself a moment later
        chief.process.send_signal(signal.SIGINT)
        assert chief.process.wait(timeout=60) == -signal.SIGINT


def test_when_a_worker_hangs_the_other_says_so_and_both_go_on_to_the_same_bits(
    workers, tmp_path, eventually
):
    def command(name):
        settings = ["--dataset", "tiny", "--batch-size", 80, "--epochs", 4, "--run-dir", name]
        return ["train", *settings]

    chiefs = tmp_path / "machine-0"
    left_alone, run = RunDir(chiefs / "left-alone"), RunDir(chiefs / "run")
    with workers(COMMAND, arguments=(command("left-alone"),) * 2) as processes:
        assert [code for _, _, code in endings(processes)] == [0, 0]
    with workers(COMMAND, arguments=(command("run"),) * 2) as (chief, worker):
        eventually(lambda: list(run.checkpoint.glob("epoch-00001.ckpt")), seconds=600)
        worker.process.send_signal(signal.SIGSTOP)
        # Within a minute, and what a busy machine needs.
        said, printed, code = chief.ending(seconds=120)
        assert (code, printed) == (1, "")
        assert re.search(
            r"\nError: worker 0 \(\S+\): worker 1 \(\S+\) does not answer any more\. .*--resume",
            said,
        )
        assert "Traceback" not in said
    resume = ["train", "--resume", "--run-dir", "run"]
    with workers(COMMAND, arguments=(resume, resume)) as processes:
        (said, _, code), helpers = endings(processes)
    assert code == 0, said
    assert "going on after epoch " in said
    assert helpers == ("", "", 0)
    assert all(map(np.array_equal, weights_of(left_alone), weights_of(run)))
    ours, theirs = (read_history(each.history)._replace(seconds=[]) for each in (left_alone, run))
    assert ours == theirs
