"""How much memory this process may use: the machine's, or what a container grants of it."""

from pathlib import Path
from typing import NamedTuple

# cgroups 2 and 1: the limit, what is taken, and the entry of memory.stat that can be given back.
_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        *("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
        "total_inactive_file",
    ),
)


class Memory(NamedTuple):
    """Bytes in all, and those that are available."""

    total: int
    available: int


def memory(cgroup: Path = Path("/sys/fs/cgroup")) -> Memory | None:
    """Returns what Linux tells of the machine and of the limit of a container; None elsewhere."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    kibibytes = _numbers(meminfo)
    machine = Memory(1024 * kibibytes["MemTotal"], 1024 * kibibytes["MemAvailable"])
    granted = _memory_of_cgroup(cgroup) or machine
    return Memory(*map(min, machine, granted))


def _memory_of_cgroup(folder: Path) -> Memory | None:
    """Returns what the limit leaves; None where there is none; cgroup 1 has a huge one then.

    What was read of files counts as taken, but for what has not been used for a while.
    """
    for limit, taken, stat, given_back in _CGROUPS:
        if (folder / limit).is_file() and (text := (folder / limit).read_text().strip()) != "max":
            used = int((folder / taken).read_text()) - _numbers(folder / stat).get(given_back, 0)
            return Memory(int(text), max(0, int(text) - used))
    return None


def _numbers(path: Path) -> dict[str, int]:
    """Returns the first number of each line of "name: number kB" or "name number"."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {name.rstrip(":"): int(number) for name, number, *_ in lines}
