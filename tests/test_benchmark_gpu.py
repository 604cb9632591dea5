"""scripts/benchmark_gpu.py: its short form, on the CPU."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark_gpu.py"


def run(*arguments):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_part_has_figures_or_a_reason(tmp_path):
    ended = run(tmp_path / "new", "--short")
    assert ended.returncode == 0, ended.stderr
    results = json.loads((tmp_path / "new" / "gpu.json").read_text())
    missing = {
        part: figures["skipped"] for part, figures in results.items() if "skipped" in figures
    }
    missing.pop("torch", None)  # where PyTorch is not installed
    left_out = "ValueError: not in the short form"
    assert missing == {"resume": left_out, "fast96": left_out}
    assert list(results["article"]) == ["float32, with XLA", "float32, without XLA"]
    assert all(rate > 0 for rate in results["article"].values())
    assert list(results["export"]) == ["batch 1", "batch 64", "batch 1,024"]
    (accuracy,) = results["fast94"]["six views"]
    assert 0 < accuracy < 1
    table = (tmp_path / "new" / "gpu.md").read_text()
    assert f"| fast94 | six views | {accuracy:.4g} |\n" in table


def test_what_is_not_done_in_time_is_left_and_named(tmp_path):
    ended = run(tmp_path, "--short", "--minutes", "0.02")
    assert ended.returncode == 0, ended.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    # A busy machine has used up some of the 1.2 s before.
    reason = results.pop("device")["skipped"]
    assert re.fullmatch(r"not done within the [01] s that were left", reason)
    assert {figures["skipped"] for figures in results.values()} == {"no time left"}


def test_it_needs_a_folder():
    ended = run()
    assert ended.returncode == 2
    assert "FOLDER: name one for gpu.json and gpu.md." in ended.stderr
