"""What is in a folder, and what would be there after a power cut."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fault_suite.calls import Call

from keras_cifar.files import TEMPORARY

# What lies in a folder, by path in it: a file's content, or None for a folder.
State = dict[Path, bytes | None]
_SYNCING = {"fsync", "fdatasync"}
# What becomes of data that was not synced. File systems that do not tie data to names (XFS, ext4
# without its heuristics) leave an empty file under the new name; and a long one may be cut.
CONTENTS = ("kept", "lost", "cut")


class PowerCut(NamedTuple):
    """A state after a power cut, and what was lost in it, in words."""

    state: State
    lost: str


def read(folder: Path) -> State:
    """Returns what lies in a folder."""
    return {
        path.relative_to(folder): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def write(folder: Path, state: State) -> None:
    """Makes an empty folder hold a state."""
    for path, content in sorted(state.items()):
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)


def is_unfinished(path: Path) -> bool:
    """Tells whether a path is of what nobody takes for finished."""
    return any(part.startswith(TEMPORARY) for part in path.parts)


class Disk:
    """Follows a process's calls; tells what a power cut would leave.

    POSIX's promise and no more: `fsync` of a file keeps its content, of a folder the names in it.
    What happened since may have reached the disk or not: names of a folder in their order, those
    of two folders independently.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder.stat().st_ino
        self._folder = folder
        # By inode: a folder's names since it was last synced, oldest first; and files' contents.
        self._names: dict[int, list[dict[str, int]]] = {}
        self._contents: dict[int, bytes] = {}
        self._synced: dict[int, bytes] = {}
        self._held: dict[int, int] = {}
        self._read: dict[int, tuple[int, int]] = {}
        self._halves: dict[int, tuple[bytes, bytes]] = {}
        self._look()
        # What lay there before is safe.
        self._synced.update(self._contents)
        for names in self._names.values():
            del names[:-1]

    def close(self) -> None:
        """Lets go of the files."""
        for descriptor in self._held.values():
            os.close(descriptor)

    def cuts(self) -> Iterator[PowerCut]:
        """Yields what may be there if the power fails now, after the calls so far."""
        self._look()
        last = {inode: len(names) - 1 for inode, names in self._names.items()}
        choices = [("all names", last), ("synced names", dict.fromkeys(last, 0))]
        for inode, number in last.items():
            # One folder's names have got to the disk so far, the others' all, or none.
            for version in range(number + 1) if number else ():
                where = f"{version} of {number} changes of a folder's names"
                choices.append((f"{where}, all else", {**last, inode: version}))
                choices.append((where, {**dict.fromkeys(last, 0), inode: version}))
        for text, choice in choices:
            for content in CONTENTS:
                state = dict(self._state(self._root, Path(), choice, content))
                yield PowerCut(state, f"{text}; unsynced data {content}")

    def note(self, call: Call) -> None:
        """Takes a call that is about to happen into account."""
        if call.name not in _SYNCING:
            return
        self._look()
        inode = call.paths[0].stat().st_ino
        if inode in self._names:
            del self._names[inode][:-1]
        elif inode in self._contents:
            self._synced[inode] = self._contents[inode]

    def _look(self) -> None:
        """Reads what has changed in the folder."""
        for place in (self._folder, *filter(Path.is_dir, self._folder.rglob("*"))):
            names = {path.name: self._file(path) for path in place.iterdir()}
            versions = self._names.setdefault(place.stat().st_ino, [{}])  # no name is safe yet
            if versions[-1] != names:
                versions.append(names)

    def _file(self, path: Path) -> int:
        """Reads a file if it has changed; returns its inode, or a folder's."""
        found = path.stat()
        if found.st_ino not in self._held:
            # Held, so that no other file gets its number.
            self._held[found.st_ino] = os.open(path, os.O_PATH)
        changed = found.st_size, found.st_mtime_ns
        if not path.is_dir() and self._read.get(found.st_ino) != changed:
            self._read[found.st_ino] = changed
            self._contents[found.st_ino] = path.read_bytes()
        return found.st_ino

    def _state(
        self, inode: int, path: Path, choice: dict[int, int], content: str
    ) -> Iterator[tuple[Path, bytes | None]]:
        """Yields a folder's part of a state."""
        for name, child in self._names[inode][choice[inode]].items():
            if child in self._contents:
                yield path / name, self._content(child, content)
            else:
                yield path / name, None
                yield from self._state(child, path / name, choice, content)

    def _content(self, inode: int, content: str) -> bytes:
        now, synced = self._contents[inode], self._synced.get(inode, b"")
        if content == "kept" or now == synced:
            return now
        if content == "lost":
            return synced
        whole, half = self._halves.get(inode, (b"", b""))
        if whole is not now:  # the same object each time: what it is has been found out
            half = now[: len(now) // 2]
            self._halves[inode] = now, half
        return half


def emptied(folder: Path) -> Path:
    """Returns a folder that is there and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
