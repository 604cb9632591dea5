"""Several workers on one machine: what each gets, and how they end together."""

import itertools
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from keras_cifar.cli import main
from keras_cifar.launch import held_ports, run_workers, share_out
from keras_cifar.machine import package_versions, usable_cores
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir
from keras_cifar.run_record import RunRecord

# It has to start TensorFlow first, which leaves time to do something to it.
TRAIN = ("train", "--dataset", "sample", "--epochs", "100")


@contextmanager
def running(command, **options):
    """A process that does not outlive the block."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, *command], **pipes | options) as process:
        try:
            yield process
        finally:
            process.kill()


def launched(workers, *arguments, grace=3600.0, **options):
    """A process with workers, which has another patience."""
    program = (
        "import sys, keras_cifar.launch as launch, keras_cifar.launch.processes as workers\n"
        f"workers._GRACE_SECONDS, workers._TERMINATE_SECONDS = {grace}, 0.5\n"
        "workers._SECONDS_BEFORE_A_WORD, workers._OUTPUT_SECONDS = 0.1, 600\n"
        f"with launch.held_ports({workers}) as ports:\n"
        f"    ending = launch.run_workers({arguments!r}, launch.share_out(ports))\n"
        "print(ending.what, file=sys.stderr)\n"
        "sys.exit(ending.exit_code)\n"
    )
    return running(["-c", program], **options)


def children_of(process):
    """Returns the process ids of the workers in their order, of those that run keras-cifar."""
    command = ["pgrep", "-P", str(process.pid), "-f", "keras_cifar.cli"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return sorted(map(int, found))


def state_of(pid):
    """Returns what ps says of a process: "S", "T" for one that is stopped; "" for none."""
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def is_running(pid):
    state = state_of(pid)
    return bool(state) and not state.startswith("Z")


# What is refused


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--workers", "0", "--", *TRAIN), "'--workers': 0 is not in the range x>=1."),
        (("--", *TRAIN), "Missing option '--workers'."),
        (("--workers", "2"), "Missing argument '-- train [OPTIONS]'."),
        (
            ("--workers", "2", "--", "evaluate", "runs/RUN"),
            "after --: got 'evaluate', expected train and its options.",
        ),
        (
            ("--workers", "2", "--", *TRAIN, "--strategy", "single"),
            "--strategy: got 'single'; several workers train by multi-worker. Leave it out.",
        ),
        (
            ("--workers", "2", "--", *TRAIN, "--seeds", "0-4"),
            "--seeds: not with several workers. Train it in one process.",
        ),
        (
            ("--workers", "2", "--", *TRAIN, "--find-learning-rate"),
            "--find-learning-rate: not with several workers.",
        ),
        (
            ("--workers", "3", "--", *TRAIN, "--batch-size", "64"),
            "which 3 replicas cannot share equally. Take 66, say.",
        ),
        (
            # A multiple of 3, but 323 are left of it.
            ("--workers", "3", "--", *TRAIN, "--recipe", "fast94", "--batch-size", "504"),
            "of 504, 323 images are trained on in a step, which 3 replicas cannot share equally. "
            "Take 506, say.",
        ),
        (("--workers", "2", "train", "--epochs", "x"), "'x' is not a valid integer."),
    ],
)
def test_what_no_workers_can_run_is_wrong_usage(arguments, fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["launch", *arguments])
    assert result.exit_code == 2
    assert fault in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """Begins a run of a strategy, which has no checkpoint yet, as the newest one."""
    monkeypatch.chdir(tmp_path)

    def begin(strategy):
        run = RunDir(Path("runs") / strategy)
        run.checkpoint.mkdir(parents=True)
        config = TrainConfig(dataset="sample", strategy=strategy)
        run.write_record(RunRecord(config, package_versions(), "a device", {}))
        return run

    return begin


def test_a_run_that_one_process_began_is_not_for_several(begun):
    begun("single")
    result = CliRunner().invoke(main, ["launch", "--workers", "2", "--", "train", "--resume"])
    assert result.exit_code == 2
    fault = "runs/single was started with --strategy single. Go on with it: keras-cifar train --res"
    assert fault in result.stderr


def test_a_run_is_not_gone_on_with_by_other_settings(begun):
    begun("multi-worker")
    arguments = ["launch", "--workers", "2", "--", "train", "--resume", "--epochs", "3"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "runs/multi-worker was started with --epochs 20, not 3." in result.stderr


def test_a_run_is_not_gone_on_with_by_workers_that_cannot_share_its_batch(begun):
    begun("multi-worker")
    result = CliRunner().invoke(main, ["launch", "--workers", "3", "--", "train", "--resume"])
    assert result.exit_code == 1
    fault = "replicas cannot share equally. Resume the run with a number of workers or devices that"
    assert f"{fault} divides 128.\n" in result.stderr


@pytest.mark.parametrize(
    "options", [("--tensorboard",), ("--resume",), ("--resume", "--tensorboard")]
)
def test_tensorboard_is_missed_before_there_are_workers(options, begun, monkeypatch):
    run = begun("multi-worker")
    if options == ("--resume",):
        run.tensorboard.mkdir()
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    result = CliRunner().invoke(main, ["launch", "--workers", "2", "--", "train", *options])
    assert result.exit_code == 1
    assert "Error: TensorBoard is missing: pip install" in result.stderr


# What each worker gets


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_each_worker_gets_cores_of_its_own_where_there_are_enough(workers, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    available = getattr(os, "sched_getaffinity", lambda _: set())(0)
    shares = share_out(range(workers))
    if workers <= len(available):
        given = itertools.chain.from_iterable(share.cores for share in shares)
        assert sorted(given) == sorted(available)
        numbers = [len(share.cores) for share in shares]
        assert max(numbers) - min(numbers) <= 1
    else:
        assert {share.cores for share in shares} == {frozenset()}
    for share in shares:
        assert share.cores_used == max(1, usable_cores() // workers)
        assert share.environment["LOKY_MAX_CPU_COUNT"] == str(share.cores_used)


def test_each_worker_knows_all_and_which_one_it_is(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    configs = [json.loads(share.environment["TF_CONFIG"]) for share in share_out([5001, 5002])]
    cluster = {"worker": ["127.0.0.1:5001", "127.0.0.1:5002"]}
    assert [config["cluster"] for config in configs] == [cluster, cluster]
    assert [config["task"] for config in configs] == [
        {"type": "worker", "index": 0},
        {"type": "worker", "index": 1},
    ]


def test_the_ports_are_free_and_nobody_elses_until_the_workers_take_them():
    with held_ports(3) as ports:
        assert len(set(ports)) == 3
        for port in ports:
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port))
            with socket.socket() as worker:
                worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                worker.bind(("", port))
                worker.listen()
                with socket.create_connection(("127.0.0.1", port), timeout=60):
                    worker.accept()[0].close()


@pytest.fixture
def three_gpus(tmp_path, monkeypatch):
    """A stand-in for the driver's program, which lists GPUs in its form."""
    program = tmp_path / "nvidia-smi"
    uuid = "8a0ab3c1-6a52-4ba4-8a5f-5a1f2c3d4e5{0}"
    lines = [f"GPU {n}: NVIDIA H100 80GB HBM3 (UUID: GPU-{uuid.format(n)})" for n in range(3)]
    program.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return [f"GPU-{uuid.format(n)}" for n in range(3)]


def visible(shares):
    return [share.environment["CUDA_VISIBLE_DEVICES"].split(",") for share in shares]


def test_gpus_are_shared_out_equally_and_suffice_for_all_workers(three_gpus, monkeypatch, capsys):
    first, second, third = three_gpus
    assert visible(share_out(range(3))) == [[first], [second], [third]]
    assert visible(share_out(range(1))) == [three_gpus]
    assert capsys.readouterr().err == ""
    # TensorFlow wants as many in each worker.
    assert visible(share_out(range(2))) == [[first], [second]]
    assert capsys.readouterr().err == "GPUs: 3, of which 1 stays idle: all workers get as many\n"
    with pytest.raises(
        OSError, match=r"^--workers: got 4, but each needs a GPU, and there are 3\."
    ):
        share_out(range(4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0,-1,1")
    assert visible(share_out(range(2))) == [["2"], ["0"]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert all("CUDA_VISIBLE_DEVICES" not in share.environment for share in share_out(range(4)))


# How they run and end


@pytest.mark.slow
def test_two_workers_train_an_ordinary_run_and_show_one_progress(tmp_path):
    options = ("--validation-fraction", "0.9", "--batch-size", "100", "--epochs", "1")
    train = ("train", "--dataset", "sample", *options)
    command = ["-m", "keras_cifar", "launch", "--workers", "2", "--", *train]
    # The tests' own TensorFlow was told to warn.
    environment = {name: os.environ[name] for name in os.environ if name != "TF_CPP_MIN_LOG_LEVEL"}
    with running(command, cwd=tmp_path, env=environment) as process:
        stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    (path,) = (tmp_path / "runs").iterdir()
    run = RunDir(path)
    assert run.has_ended
    assert re.fullmatch(rf"runs/{path.name}: val_accuracy 0\.\d{{4}}, epoch 1\n", stdout)
    begin, *_, end = stderr.splitlines()
    assert begin.startswith(f"runs/{path.name}: 2 workers, ")
    assert end == f"Test it: keras-cifar evaluate runs/{path.name}"
    assert len(re.findall(r"^epoch 1/1 ", stderr, re.MULTILINE)) == 1
    assert "[worker 1]" not in stderr


def test_who_interrupts_it_is_told_how_to_go_on(begun, eventually):
    """Also while TensorFlow waits for a worker, when it takes SIGTERM for itself."""
    begun("multi-worker")
    program = (
        "import runpy, keras_cifar.launch.processes as workers\n"
        "workers._GRACE_SECONDS = 3600\n"  # for the chief, should it go on waiting
        "runpy.run_module('keras_cifar', run_name='__main__', alter_sys=True)\n"
    )
    with running(["-c", program, "launch", "--workers", "2", "--", "train", "--resume"]) as process:
        late = eventually(lambda: len(found := children_of(process)) == 2 and found)[1]
        os.kill(late, signal.SIGSTOP)
        assert any(line.startswith("Waiting for 2 workers, ") for line in process.stderr)
        time.sleep(1)
        process.terminate()
        process.terminate()  # as `timeout` does
        os.kill(late, signal.SIGCONT)
        _, stderr = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM
    assert stderr.splitlines()[-1] == (
        "Interrupted. Go on with: keras-cifar launch --workers 2 -- train --resume "
        "--run-dir runs/multi-worker"
    )


def test_the_lines_of_worker_0_are_as_they_are_and_the_others_marked():
    with launched(2, "train", "--epochs", "x") as process:
        stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 2
    assert stdout == ""
    fault = "Error: Invalid value for '--epochs': 'x' is not a valid integer."
    assert {fault, f"[worker 1] {fault}"} <= set(stderr.splitlines())
    assert re.search(r"^Worker [01] ended with exit code 2$", stderr, re.MULTILINE)


def test_a_file_of_the_users_takes_the_place_of_no_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "click.py").write_text("raise ImportError('of the user')\n")
    with held_ports(1) as ports:
        ending = run_workers(("train", "--epochs", "x"), share_out(ports))
    assert ending.exit_code == 2  # by click, which has read the option


def test_on_a_terminal_a_marked_line_takes_the_place_of_the_bar(rest_of):
    terminal, stderr = pty.openpty()
    with launched(2, "train", "--epochs", "x", stderr=stderr):
        os.close(stderr)
        shown = rest_of(terminal)
    assert b"\r\x1b[K[worker 1] Error: Invalid value for '--epochs'" in shown
    assert b"[KError" not in shown


def test_when_a_worker_is_killed_the_others_end_even_one_that_hangs(eventually):
    with launched(3, *TRAIN, grace=0.5) as process:
        workers = eventually(lambda: len(found := children_of(process)) == 3 and found)
        os.kill(workers[1], signal.SIGSTOP)
        os.kill(workers[2], signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGKILL
    assert "Worker 2 was ended by SIGKILL. Waiting for 2 of 3 workers to end, for up to" in stderr
    assert stderr.splitlines()[-1] == "Worker 2 was ended by SIGKILL"
    assert stdout == ""
    assert not any(map(is_running, workers))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_the_exit_code_tells_of_it(eventually, number):
    with launched(2, *TRAIN) as process:
        workers = eventually(lambda: len(found := children_of(process)) == 2 and found)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=600)
    assert process.returncode == 128 + number
    assert stderr.splitlines()[-1] == "Interrupted"
    assert not any(map(is_running, workers))


def test_a_signal_before_the_first_worker_is_started_is_not_lost():
    def shares():
        os.kill(os.getpid(), signal.SIGINT)
        yield from share_out([5001])

    assert run_workers(["--version"], shares()) == (128 + signal.SIGINT, "Interrupted")


def test_a_worker_that_is_still_importing_ends_without_a_traceback(tmp_path, monkeypatch, capfd):
    (tmp_path / "click.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    monkeypatch.syspath_prepend(tmp_path)
    assert run_workers(["--version"], share_out([5001])).exit_code == 128 + signal.SIGINT
    assert "Traceback" not in capfd.readouterr().err


def test_a_second_ctrl_c_kills_them(eventually):
    with launched(2, *TRAIN) as process:
        workers = eventually(lambda: len(found := children_of(process)) == 2 and found)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        # Of two signals that wait for a busy core, a process takes SIGINT first.
        eventually(lambda: all(state_of(worker).startswith("T") for worker in workers))
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == (
            "SIGINT passed on. Waiting for 2 of 2 workers to end, for up to 3600 s; "
            "a second one kills them.\n"
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=600) == 128 + signal.SIGINT
    assert not any(map(is_running, workers))


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_nobody_is_left_behind_by_a_launcher_that_is_killed(eventually):
    with launched(2, *TRAIN) as process:
        workers = eventually(lambda: len(found := children_of(process)) == 2 and found)
        process.kill()
        process.wait()
        eventually(lambda: not any(map(is_running, workers)))
