"""Handing over to TensorFlow Serving: a program of its name says what it was started with."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Prints its arguments and the files that they name, then waits as a server does.
PEER = f"""#!{sys.executable}
import pathlib, sys, time
if sys.argv[1:] == ["info"]:
    sys.exit()
print(*sys.argv[1:], sep="\\n")
for argument in sys.argv[1:]:
    path = pathlib.Path(argument.partition("=")[2].removesuffix(":/config:ro"))
    for file in sorted(path.iterdir()) if path.name.startswith("keras-cifar-kit-") else [path]:
        if file.suffix in (".txt", ".config") and file.is_file():
            print(file.read_text())
print("ready", flush=True)
time.sleep(600)
"""


# The program cannot be told where to listen.
ANYWHERE = ("--host", "0.0.0.0")


def peer(folder, name):
    path = folder / name
    path.write_text(PEER)
    path.chmod(0o755)


@pytest.fixture
def start(tmp_path):
    processes = []

    def run(*arguments):
        processes.append(started(tmp_path, *arguments))
        return processes[-1]

    yield run
    for process in processes:
        with process:
            process.terminate()  # a kill would leave the program behind that it runs


def started(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "keras_cifar", "serve", *map(str, arguments), "--engine",
         "tf-serving"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": str(folder)},
    )  # fmt: skip


def lines_until_ready(process):
    lines = []
    while (line := process.stdout.readline()) not in ("ready\n", ""):
        lines.append(line.rstrip("\n"))
    assert line, process.stderr.read()
    return lines


@pytest.fixture(scope="module")
def model_dir(save_toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys") / "toy"
    save_toy(folder / "1", only=["serving_default"])
    return folder


def test_the_program_is_run_with_the_kits_files_and_stops_with_the_command(
    start, model_dir, tmp_path
):
    peer(tmp_path, "tensorflow_model_server")
    peer(tmp_path, "docker")  # the program comes first
    process = start(model_dir, *ANYWHERE, "--rest-port", 8601, "--model-name", "pets")
    lines = lines_until_ready(process)
    assert {
        "--port=8500",
        "--rest_api_port=8601",
        "--model_name=pets",
        f"--model_base_path={model_dir}",
        "--enable_batching=true",
    } <= set(lines)
    assert "max_batch_size { value: 128 }" in lines
    assert '  path: "/monitoring/prometheus/metrics"' in lines
    (kit,) = {Path(line.partition("=")[2]).parent for line in lines if "_file=" in line}
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not kit.exists()


@pytest.mark.parametrize("host", [None, "127.0.0.1", "192.0.2.1", "::", "::1"])
def test_the_program_is_not_run_where_it_would_listen_elsewhere(start, model_dir, tmp_path, host):
    peer(tmp_path, "tensorflow_model_server")
    output, errors = start(model_dir, *(("--host", host) if host else ())).communicate(timeout=60)
    assert errors.splitlines()[-1] == (
        f"Error: --host: got {host or '127.0.0.1'}, but tensorflow_model_server listens on all "
        "interfaces, without TLS or a token, and cannot be told otherwise. Allow it: --host "
        "0.0.0.0; or take its Docker image, which is used where the program is not on the PATH."
    )
    assert not output


@pytest.mark.parametrize(("host", "published"), [("::1", "[::1]"), ("127.0.0.1", "127.0.0.1")])
def test_the_image_is_reached_only_where_it_may_be(start, model_dir, tmp_path, host, published):
    peer(tmp_path, "docker")
    lines = lines_until_ready(start(model_dir, "--host", host))
    ports = {line for line in lines if line.startswith("--publish=")}
    assert ports == {f"--publish={published}:8501:8501", f"--publish={published}:8500:8500"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--rest-port", 0), "--rest-port: got 0; TensorFlow Serving cannot look for a free port."),
        (("--grpc-port", 0), "--grpc-port: got 0; TensorFlow Serving cannot look for a free port."),
        (("--grpc-port", 8501), "--grpc-port: got 8501, expected another than --rest-port."),
    ],
)
@pytest.mark.parametrize("name", ["tensorflow_model_server", "docker"])
def test_ports_that_neither_of_the_two_can_have(start, model_dir, tmp_path, name, arguments, error):
    peer(tmp_path, name)
    process = start(model_dir, *ANYWHERE, *arguments)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.splitlines()[-1]) == (2, f"Error: {error}")
    assert not output


def test_a_token_in_the_environment_is_refused_like_the_option(
    start, model_dir, tmp_path, monkeypatch
):
    peer(tmp_path, "docker")
    monkeypatch.setenv("KERAS_CIFAR_TOKEN", "s3cret")
    process = start(model_dir)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.splitlines()[-1]) == (
        2,
        "Error: KERAS_CIFAR_TOKEN, which is set, is of this package's own server: leave out "
        "--engine tf-serving, or write a kit and edit it: keras-cifar deploy",
    )
    assert not output


def test_without_the_program_its_image_is_run(start, model_dir, tmp_path):
    peer(tmp_path, "docker")
    process = start(model_dir, "--host", "0.0.0.0")
    lines = lines_until_ready(process)
    assert lines[:2] == ["run", "--rm"]
    assert {
        "--publish=0.0.0.0:8501:8501",
        "--publish=0.0.0.0:8500:8500",
        f"--volume={model_dir}:/models/cifar10:ro",
        "tensorflow/serving:2.20.0",
        "--model_config_file=/config/models.config",
    } <= set(lines)
    assert '    base_path: "/models/cifar10"' in lines
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        ((), 1, "--engine tf-serving: no tensorflow_model_server on the PATH, and no Docker "
         "that runs. Install one of them, or leave the option out."),
        (("--token", "x"), 2, "--token is of this package's own server: leave out --engine "
         "tf-serving, or write a kit and edit it: keras-cifar deploy"),
        (("--model-name", "a/b"), 2, "--model-name: got 'a/b'"),
    ],
)  # fmt: skip
def test_what_cannot_be_handed_over_says_so(start, model_dir, arguments, code, error):
    process = start(model_dir, *arguments)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert error in errors
    assert not output
    assert "Traceback" not in errors


def test_a_docker_that_does_not_run_is_none(start, model_dir, tmp_path):
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    _, errors = start(model_dir).communicate(timeout=60)
    assert "no Docker that runs" in errors


def test_a_server_that_ends_by_itself_ends_the_command_with_its_code(start, model_dir, tmp_path):
    program = tmp_path / "tensorflow_model_server"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    started = time.monotonic()
    process = start(model_dir, *ANYWHERE)
    process.communicate(timeout=60)
    assert process.returncode == 7
    assert time.monotonic() - started < 30
