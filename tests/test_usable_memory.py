"""What a container may take counts, not what the machine has."""

from pathlib import Path

import pytest

from keras_cifar.usable_memory import Memory, memory


def test_this_machine_has_memory():
    total, available = memory()
    machine = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < available <= total <= machine


@pytest.mark.parametrize(
    ("limit", "taken", "stat", "given_back"),
    [
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            *("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
            *("memory/memory.stat", "total_inactive_file"),
        ),
    ],
)
def test_a_container_has_what_it_is_granted(tmp_path, limit, taken, stat, given_back):
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text("20000000\n")
    (tmp_path / taken).write_text("17000000\n")
    (tmp_path / stat).write_text(f"anon 6000000\n{given_back} 11000000\n")
    assert memory(tmp_path) == Memory(20_000_000, 14_000_000)


def test_without_a_limit_the_machine_counts(tmp_path):
    machine = memory(tmp_path).total
    (tmp_path / "memory.max").write_text("max\n")
    assert memory(tmp_path).total == machine > 100_000_000
