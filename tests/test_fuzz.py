"""scripts/fuzz.py in short: every parser, on its seeds and on some changes of them."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCRIPTS = Path(__file__).parents[1] / "scripts"
# Those that read a model or a data set anew for each input take the fewest.
CHANGES = {"tfds": 8, "keras": 8, "parquet": 30, "grpc": 60}
sys.path.insert(0, str(SCRIPTS))
NAMES = importlib.import_module("fuzz").NAMES
sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def fuzzing():
    """The modules of the script, imported as it imports them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield lambda name: importlib.import_module(f"fuzzing.{name}")


def test_every_target_can_be_named(fuzzing):
    assert tuple(fuzzing("table").TARGETS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_parser_refuses_what_is_wrong_and_no_more(fuzzing, tmp_path, name):
    target = fuzzing("table").TARGETS[name](tmp_path)
    # Of 3 s, the first image takes 1 s on a fast CPU, for all that TensorFlow does but once.
    patient = target._replace(seconds=max(10.0, target.seconds))
    check, mutated = fuzzing("target").bounded(patient), fuzzing("mutations").mutated
    for seed in target.seeds:
        check(seed)

    @settings(
        max_examples=CHANGES.get(name, 150),
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.sampled_from(target.seeds), random=st.randoms(use_true_random=False))
    def changed(seed, random):
        check(mutated(seed, random))

    changed()


def test_too_much_time_is_a_finding(fuzzing):
    target = fuzzing("target")
    slow = target.Target(lambda content: sum(range(10**7)), [], seconds=0.01)
    with pytest.raises(target.ExcessError, match="s of CPU for 3 bytes"):
        target.bounded(slow)(b"abc")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process cannot be reset")
def test_too_much_memory_is_a_finding_each_time(fuzzing):
    target = fuzzing("target")
    check = target.bounded(target.Target(lambda content: bytearray(int(content)), []))
    check(b"400000000")
    for _ in range(2):
        # Twice what it may, as the system may take other memory of this process away meanwhile.
        with pytest.raises(target.ExcessError, match="MB of memory for 10 bytes"):
            check(b"1100000000")


def test_the_script_counts_inputs_and_keeps_what_it_found(tmp_path):
    pytest.importorskip("atheris", reason="has no wheel for this Python or machine")
    command = [sys.executable, SCRIPTS / "fuzz.py", "--target", "run", "--seconds", "2"]
    ended = subprocess.run(
        [*command, "--corpus", tmp_path], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "inputs in" in ended.stdout
    assert any((tmp_path / "run" / "inputs").iterdir())
