"""Runs Python as forks of a process that has imported TensorFlow, which takes 4 s of CPU.

A fork has a pid, streams, an environment and an end of its own, as a fresh interpreter has. What it
has not is a start of its own: a test that asks for one, or sets what is read there, starts Python.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

# What begins so is read when modules are imported. XLA_FLAGS is read when XLA first compiles.
_READ_AT_START = ("CUDA_", "KERAS_", "LD_", "MPL", "NVIDIA_", "OMP_", "PYTHON", "TF_")
_READ_LATER = "TF_CONFIG"


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_AT_START) and name != _READ_LATER
    }


class Fork:
    """A process, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, ending: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ending = ending

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._ending.settimeout(timeout)
            try:
                self.returncode = int(self._ending.recv(100))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0) from None
            self._ending.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(timeout=0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and who waits for it tells so later
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that forks. It ends with the one that started it.

    Args:
        environment: in which it imports TensorFlow.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = _read_at_start(environment)
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (`close` closes it)
        with other:
            command = [sys.executable, __file__, str(other.fileno())]
            self._process = subprocess.Popen(
                command, env=environment, stderr=self._said, pass_fds=[other.fileno()]
            )
        self._receive(self._control)

    def _receive(self, channel: socket.socket) -> bytes:
        if not (message := channel.recv(100)):
            self._said.seek(0)
            said = self._said.read()
            self.close()
            raise RuntimeError(f"the fork server failed:\n{said}")
        return message

    def can_start(self, environment: Mapping[str, str]) -> bool:
        """Tells whether a process in this environment would import the same."""
        return _read_at_start(environment) == self._environment

    def start(
        self,
        code: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        streams: Sequence[int],
    ) -> Fork:
        """Starts `python -c code arguments`.

        Args:
            code: what it does.
            arguments: become `sys.argv[1:]`.
            environment: for which `can_start` holds.
            streams: descriptors of what becomes its stdin, stdout and stderr.
        """
        request = [code, list(arguments), str(Path.cwd()), dict(environment)]
        ending, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            message = json.dumps(request).encode()
            socket.send_fds(self._control, [message], [*streams, other.fileno()])
        return Fork(int(self._receive(ending)), ending)

    def run(
        self,
        code: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str],
        given: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Starts it, gives it its stdin, waits for its end and returns what it printed."""
        with (
            tempfile.TemporaryFile("w+") as stdin,
            tempfile.TemporaryFile("w+") as stdout,
            tempfile.TemporaryFile("w+") as stderr,
        ):
            stdin.write(given)
            stdin.seek(0)
            streams = [file.fileno() for file in (stdin, stdout, stderr)]
            fork = self.start(code, arguments, environment=environment, streams=streams)
            code_at_end = fork.wait()
            stdout.seek(0)
            stderr.seek(0)
            return subprocess.CompletedProcess(
                ["-c", *arguments], code_at_end, stdout.read(), stderr.read()
            )

    def close(self) -> None:
        self._control.close()
        self._said.close()
        self._process.wait()


def _serve(control: socket.socket) -> list[Any]:
    """Forks for each request; returns in the fork, which has its streams, with the request."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 4)
        if not message:
            sys.exit()
        if not _fork():
            break
        for descriptor in descriptors:
            os.close(descriptor)
    control.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, ending = descriptors
    if pid := _fork():
        _tell_how_it_ends(pid, streams, socket.socket(fileno=ending))
    os.close(ending)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    request: list[Any] = json.loads(message)
    return request


def _fork() -> int:
    with warnings.catch_warnings():  # of threads, OpenBLAS's: it takes care of forks itself
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _tell_how_it_ends(pid: int, streams: Sequence[int], ending: socket.socket) -> None:
    for descriptor in (0, 1, 2, *streams):  # whoever reads them waits for their last owner
        os.close(descriptor)
    ending.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    ending.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["-c", *arguments]
    sys.path[0] = ""
    sys.stdin = open(0)  # noqa: SIM115
    sys.stdout = open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115


if __name__ == "__main__":
    control = socket.socket(fileno=int(sys.argv[1]))
    # Nothing is computed here: a fork has none of the threads of its parent.
    import keras_cifar.cli
    import keras_cifar.evaluate
    import keras_cifar.export
    import keras_cifar.serve.lifecycle
    import keras_cifar.train  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control.send(b"ready")
    code, *rest = _serve(control)
    _become(*rest)
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
