"""scripts/faults.py: its short form, its parts, and that its mutations are of this code."""

import importlib
import importlib.util
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="Linux on x86-64 puts the faults in",
)


@pytest.fixture
def part(monkeypatch):
    """Imports a part of the script as the script does."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return lambda name: importlib.import_module(f"fault_suite.{name}")


def test_a_process_is_stopped_before_a_call_that_changes_its_folder(tmp_path):
    # In a process of its own: this one has threads, and Python 3.12 warns of a fork.
    code = f"""
import sys
sys.path.insert(0, {str(SCRIPTS)!r})
from pathlib import Path
from fault_suite import calls

folder = Path({str(tmp_path)!r}) / "folder"
folder.mkdir()

def work():
    Path("a").write_text("whole")
    Path("../elsewhere").write_text("not watched")
    Path("a").rename("b")

def at_call(call):
    print(call)
    return calls.KILL if call.name.startswith("rename") else calls.GO_ON

print(calls.run(work, folder=folder, output=folder.parent / "output", at_call=at_call).code)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [
        "call 1, openat a",
        "call 2, write a",
        "call 3, rename a b",
        "-9",
    ]
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a"]


def test_a_power_cut_takes_what_was_not_synced_and_nothing_else(part, tmp_path):
    disk, call = part("disk"), part("calls").Call
    file = Path("a")
    follower = disk.Disk(tmp_path)

    def states():
        return {cut.state.get(file) for cut in follower.cuts()}

    assert states() == {None}
    (tmp_path / file).write_text("whole")
    assert states() == {None, b"", b"wh", b"whole"}
    follower.note(call(1, "fsync", (tmp_path / file,), 0))
    assert states() == {None, b"whole"}
    follower.note(call(2, "fsync", (tmp_path,), 0))
    assert states() == {b"whole"}
    (tmp_path / file).unlink()
    assert states() == {None, b"whole"}
    follower.close()


def test_what_the_mutations_take_out_stands_in_the_code(part):
    for mutation in part("mutations").MUTATIONS:
        found = importlib.util.find_spec(mutation.module)
        assert Path(found.origin).read_text().count(mutation.old) == 1, mutation.name


@pytest.mark.slow
def test_a_few_faults_lose_nothing_and_a_mutation_is_noticed(tmp_path):
    command = [sys.executable, SCRIPTS / "faults.py", "--short", "--json", tmp_path / "found.json"]
    ended = subprocess.run(
        [*command, "--work-dir", tmp_path], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    faults = {result["fault"] for result in found["results"]}
    assert faults == {"power", "kill", "ENOSPC", "damage"}
    assert all(found["mutations"].values())
    assert "| all | |" in ended.stdout
