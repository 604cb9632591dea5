"""scripts/soak_serve.py: what it finds fault with, and a short one on a real server."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
SECONDS = 300
# An hour or a night, for whoever has one.
MINUTES = os.environ.get("KERAS_CIFAR_SOAK_MINUTES", "0.5")


@pytest.fixture
def soak(monkeypatch):
    """The script, imported as it imports its neighbours."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("soak_serve")


def samples(soak, *, megabytes=lambda at: 800, files=lambda at: 40, threads=lambda at: 30):
    """A sample a second."""
    return [soak.Sample(at, megabytes(at), files(at), threads(at)) for at in range(SECONDS)]


def latencies(took=lambda at: 0.01):
    return [(at / 10, took(at / 10)) for at in range(10 * SECONDS)]


def test_a_server_that_stays_as_it_was_is_let_pass(soak):
    assert soak.growth(samples(soak), latencies(), seconds=SECONDS) == []


def test_what_happens_before_the_second_fifth_does_not_count(soak):
    warming = samples(soak, megabytes=lambda at: 2000 if at < 60 else 800)
    slow = latencies(lambda at: 5.0 if at < 60 else 0.01)
    assert soak.growth(warming, slow, seconds=SECONDS) == []


@pytest.mark.parametrize(
    ("figure", "leak", "line"),
    [
        ("megabytes", lambda at: 800 + 10 * at, r"memory, MB: 3,495 in the last fifth, 1,695"),
        ("files", lambda at: 40 + at, r"open files: 310 in the last fifth, 130 in the second"),
        ("threads", lambda at: 30 + at, r"threads: 300 in the last fifth, 120 in the second"),
    ],
)
def test_what_keeps_growing_is_named(soak, figure, leak, line):
    (found,) = soak.growth(samples(soak, **{figure: leak}), latencies(), seconds=SECONDS)
    assert found.startswith(line)


def test_a_server_that_becomes_slow_is_named(soak):
    # One request in 50, which no median would show.
    slow = latencies(lambda at: 1.0 if at > 240 and round(10 * at) % 50 == 0 else 0.01)
    (found,) = soak.growth(samples(soak), slow, seconds=SECONDS)
    assert found.startswith("p99, ms: 1,000 in the last fifth, 10 in the second; expected at most")


def test_of_a_short_soak_latency_tells_nothing(soak):
    slow = latencies(lambda at: 1.0 if at > 24 else 0.01)
    assert soak.growth(samples(soak), slow, seconds=30) == []


def test_a_process_that_has_ended_is_noticed(soak):
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(RuntimeError, match="the server has ended"):
            soak.read_sample(process.pid, at=0)


def test_an_answer_that_is_not_the_expected_one_ends_it(soak):
    connections = importlib.import_module("shared.serve_connections")
    question = soak.Question(b"GET /", 200, b"cat")
    soak.expect(question, connections.Answer(200, b"a cat"))
    for wrong in (connections.Answer(503, b"a cat"), connections.Answer(200, b"a dog")):
        with pytest.raises(RuntimeError, match=r"b'GET /': got Answer.*expected 200, b'cat'"):
            soak.expect(question, wrong)


@pytest.mark.slow
@pytest.mark.timeout(60 * float(MINUTES) + 300)
def test_a_server_under_load_stays_as_it_was(exported):
    command = [sys.executable, SCRIPTS / "soak_serve.py", exported.version.parent]
    result = subprocess.run(
        [*command, "--minutes", MINUTES], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "as at the beginning" in result.stdout
