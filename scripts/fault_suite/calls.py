"""Stops a process at each system call that changes files in a folder.

The kernel asks this process what is to become of each such call of the other one (seccomp's user
notification, Linux 5.19, x86-64). So every call is seen, whichever library makes it: a preloaded
library would miss those that the C library makes itself, in `fwrite`, say, by which TensorFlow
writes. It needs no privileges and no compiler.
"""

import ctypes
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Number and arguments of the calls: "p" is a path, "a" a folder's descriptor and a path in it, "f"
# a file's descriptor, "-" something else.
_CALLS = {
    "write": (1, "f"),
    "open": (2, "p"),
    "pwrite64": (18, "f"),
    "writev": (20, "f"),
    "sendfile": (40, "f"),
    "fsync": (74, "f"),
    "fdatasync": (75, "f"),
    "truncate": (76, "p"),
    "ftruncate": (77, "f"),
    "rename": (82, "pp"),
    "mkdir": (83, "p"),
    "rmdir": (84, "p"),
    "creat": (85, "p"),
    "link": (86, "pp"),
    "unlink": (87, "p"),
    "symlink": (88, "-p"),
    "chmod": (90, "p"),
    "fchmod": (91, "f"),
    "openat": (257, "a"),
    "mkdirat": (258, "a"),
    "unlinkat": (263, "a"),
    "renameat": (264, "aa"),
    "linkat": (265, "aa"),
    "symlinkat": (266, "-a"),
    "fchmodat": (268, "a"),
    "fallocate": (285, "f"),
    "pwritev": (296, "f"),
    "renameat2": (316, "aa"),
    "copy_file_range": (326, "--f"),
    "fchmodat2": (452, "a"),
}
_NAMES = {number: name for name, (number, _) in _CALLS.items()}
# Which argument holds the flags of what opens a file; without one of these it only reads.
_FLAGS_ARGUMENT = {"open": 1, "openat": 2}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Of linux/seccomp.h, linux/audit.h and linux/filter.h.
_SECCOMP, _SET_FILTER = 317, 1
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_X86_64 = 0xC000003E
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTE = struct.Struct("=QIIiIQ6Q")  # id, thread, flags, call, architecture, instruction, arguments
_ANSWER = struct.Struct("=QqiI")  # id, value, error, flags
_CONTINUE = 1
_NO_NEW_PRIVILEGES = 38
_HERE = -100 & 0xFFFFFFFF  # AT_FDCWD
_LONGEST_PATH = 4096
# A process that makes no call for so long hangs. A busy machine takes minutes to trace a network.
HANG_SECONDS = 3600


class Call(NamedTuple):
    """A call that changes files of the folder, and has not happened yet.

    Attributes:
        number: counted from 1.
        name: of the system call.
        paths: of what it changes.
        pid: of the process.
    """

    number: int
    name: str
    paths: tuple[Path, ...]
    pid: int

    def __str__(self) -> str:
        return f"call {self.number}, {self.name} {' '.join(path.name for path in self.paths)}"


class Ended(NamedTuple):
    """How a process ended: its exit code, or minus a signal's number; and what it printed."""

    code: int
    output: str


# Told of a call, returns what becomes of it: GO_ON, KILL, or the number of an error to end with.
AtCall = Callable[[Call], int]
GO_ON, KILL = 0, -1


def is_possible() -> bool:
    """Tells whether this machine can do it."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def run(
    work: Callable[[], object], *, folder: Path, output: Path, at_call: AtCall | None = None
) -> Ended:
    """Has a copy of this process do `work` in `folder`, and stops it at each call.

    Args:
        work: what the copy does.
        folder: where it does so, and whose files are watched; without links in its path.
        output: gets what the copy prints.
        at_call: decides what becomes of each call; None to watch none.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = fork(work, folder=folder, output=output, watcher=theirs if at_call else None)
        theirs.close()
        if at_call:
            _, (listener, *_), _, _ = socket.recv_fds(ours, 1, 1)
            try:
                _watch(listener, pid, folder=folder, at_call=at_call)
            except BaseException:
                os.kill(pid, signal.SIGKILL)  # else it would wait for an answer for ever
                raise
            finally:
                os.close(listener)
    return wait(pid, output=output)


def fork(
    work: Callable[[], object], *, folder: Path, output: Path, watcher: socket.socket | None = None
) -> int:
    """Has a copy of this process do `work`, watched through `watcher`; returns its process id."""
    output.write_bytes(b"")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        log = os.open(output, os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        if watcher:
            _have_calls_watched(watcher)
        code = _exit_code(work)
    finally:
        os._exit(code)


def wait(pid: int, *, output: Path) -> Ended:
    """Waits until a process of `fork` has ended."""
    _, status = os.waitpid(pid, 0)
    return Ended(os.waitstatus_to_exitcode(status), output.read_text(errors="replace"))


def _exit_code(work: Callable[[], object]) -> int:
    """Does the work; returns the exit code that Python would end with."""
    code = 0
    try:
        work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _have_calls_watched(watcher: socket.socket) -> None:
    """Has the kernel ask the process at the other end of `watcher` about this one's calls."""
    program = b"".join(struct.pack("=HBBI", *line) for line in _filter())
    lines = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(lines))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    flags = _NEW_LISTENER | _WAIT_KILLABLE
    listener = libc.syscall(_SECCOMP, _SET_FILTER, flags, ctypes.c_char_p(header))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "the kernel does not let calls be watched (seccomp)")
    socket.send_fds(watcher, [b"x"], [listener])
    os.close(listener)


def _filter() -> list[tuple[int, int, int, int]]:
    """Returns the program by which the kernel tells the calls apart: code, then, else, value."""
    lines = [(_LOAD, 0, 0, 4), (_IF_EQUAL, 1, 0, _X86_64), (_RETURN, 0, 0, _ALLOW)]
    lines.append((_LOAD, 0, 0, 0))
    for name, (number, _) in _CALLS.items():
        if name in _FLAGS_ARGUMENT:
            lines += [
                (_IF_EQUAL, 0, 4, number),
                (_LOAD, 0, 0, 16 + 8 * _FLAGS_ARGUMENT[name]),
                (_IF_ANY_BIT, 0, 1, _WRITING),
                (_RETURN, 0, 0, _NOTIFY),
                (_RETURN, 0, 0, _ALLOW),
            ]
        else:
            lines += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _NOTIFY)]
    return [*lines, (_RETURN, 0, 0, _ALLOW)]


def _watch(listener: int, pid: int, *, folder: Path, at_call: AtCall) -> None:
    """Answers the kernel until the process has ended."""
    process = os.pidfd_open(pid)
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    waiting.register(process, select.POLLIN)
    number = 0
    try:
        while True:
            ready = dict(waiting.poll(HANG_SECONDS * 1000))
            if not ready:
                os.kill(pid, signal.SIGKILL)
                raise TimeoutError(f"process {pid} hangs")
            if process in ready:
                return
            note = bytearray(_NOTE.size)
            try:
                fcntl.ioctl(listener, _RECEIVE, note)
                key, thread, _, call, _, _, *arguments = _NOTE.unpack(note)
                name = _NAMES[call]
                paths = _paths(thread, name, arguments)
            except (FileNotFoundError, ProcessLookupError):  # it was killed meanwhile
                continue
            error = GO_ON
            if any(folder == path or folder in path.parents for path in paths):
                number += 1
                error = at_call(Call(number, name, paths, pid))
            if error == KILL:  # unanswered, the call never happens
                os.kill(pid, signal.SIGKILL)
                continue
            answer = _ANSWER.pack(key, 0, -error, 0 if error else _CONTINUE)
            try:
                fcntl.ioctl(listener, _SEND, answer)
            except FileNotFoundError:
                continue
    finally:
        os.close(process)


def _paths(thread: int, name: str, arguments: list[int]) -> tuple[Path, ...]:
    """Returns the paths of what a call changes."""
    found, position = [], 0
    for kind in _CALLS[name][1]:
        if kind == "f":
            found.append(_link(thread, f"fd/{arguments[position] & 0x7FFFFFFF}"))
        elif kind in "pa":
            descriptor = _HERE if kind == "p" else arguments[position] & 0xFFFFFFFF
            position += kind == "a"
            where = "cwd" if descriptor == _HERE else f"fd/{descriptor}"
            found.append(_link(thread, where) / _text(thread, arguments[position]))
        position += 1
    return tuple(Path(os.path.normpath(path)) for path in found)


def _link(thread: int, name: str) -> Path:
    return Path(f"/proc/{thread}/{name}").readlink()


def _text(thread: int, address: int) -> str:
    """Returns the text that ends with a zero at an address of another process."""
    if not address:
        return ""
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return os.fsdecode(memory.read(_LONGEST_PATH).split(b"\0", 1)[0])
