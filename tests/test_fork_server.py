"""The forks in which other tests run commands are as fresh interpreters, but for their start."""

import os
import signal
import subprocess
import sys

import pytest
from fork_server import ForkServer

TOLD = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ["WHOSE"], sys.stdin.read())
print("to stderr", file=sys.stderr)
import atexit; atexit.register(print, "at exit")
sys.exit(7)
"""


@pytest.fixture
def forks(fork_server):
    if fork_server is None:
        pytest.skip("for Linux")
    return fork_server


def test_a_fork_is_told_and_tells_as_a_fresh_interpreter(forks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "WHOSE": "its own"}
    ended = forks.run(TOLD, ["a", "b c"], environment=environment, given="given")
    command = [sys.executable, "-c", TOLD, "a", "b c"]
    fresh = subprocess.run(
        command, env=environment, input="given", capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        fresh.returncode,
        fresh.stdout,
        fresh.stderr,
    )
    assert ended.stdout == f"['a', 'b c'] {tmp_path} its own given\nat exit\n"


def test_a_fork_has_tensorflow_already_and_has_computed_nothing(forks):
    code = """
import sys
from tensorflow.python.eager import context
print("tensorflow" in sys.modules, context.context()._initialized)
raise ValueError("with a traceback")
"""
    ended = forks.run(code, environment=os.environ)
    assert (ended.returncode, ended.stdout) == (1, "True False\n")
    assert ended.stderr.endswith("ValueError: with a traceback\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_fork_ends_by_a_signal(forks, number):
    read, write = os.pipe()
    code = "import time; print('here', flush=True); time.sleep(600)"
    fork = forks.start(code, [], environment=os.environ, streams=[0, write, 2])
    os.close(write)
    with os.fdopen(read) as stdout:
        assert stdout.readline() == "here\n"
        assert fork.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            fork.wait(timeout=0.01)
        fork.send_signal(number)
        assert fork.wait() == -number
        assert stdout.read() == ""


def test_what_is_read_at_the_start_needs_another_one(forks):
    assert forks.can_start({**os.environ, "HOME": "/elsewhere"})
    assert not forks.can_start({**os.environ, "TF_ENABLE_ONEDNN_OPTS": "banana"})


@pytest.mark.usefixtures("forks")
def test_a_server_that_cannot_start_says_why(tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no such library')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"the fork server failed:\n(.|\n)*no such library"):
        ForkServer()
