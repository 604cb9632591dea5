"""What becomes of a log that cannot be written: no request waits for it, and it is told once."""

import fcntl
import http.client
import json
import os
import re
import resource
import signal
import threading
import time
from urllib.parse import urlsplit

import pytest

from keras_cifar.cli.exits import TERMINATED
from keras_cifar.serve.access_log import access_log
from keras_cifar.serve.logs import logging_to

PIPE_BYTES = 4096  # the smallest that there is: some 25 lines of the access log


@pytest.fixture(scope="module")
def toys(save_toy, tmp_path_factory):
    """A folder with version 1 of the toy."""
    folder = tmp_path_factory.mktemp("toys") / "toy"
    save_toy(folder / "1", only=["serving_default", "slow"])
    return folder


@pytest.fixture
def unread():
    """The end to write to of a small pipe that nobody reads."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield write
    os.close(read)
    os.close(write)


@pytest.fixture
def start_unread(start_python, fork_server, toys, unread):
    """Starts a server whose stderr nobody reads; returns its process and its host and port."""
    processes = []

    def start():
        code = "import runpy; runpy.run_module('keras_cifar', run_name='__main__', alter_sys=True)"
        words = ["serve", str(toys), "--model-name", "toy"]
        words += ["--rest-port", "0", "--grpc-port", "0"]
        read, write = os.pipe()
        with os.fdopen(read) as announced:
            process = start_python(fork_server, code, words, stdout=write, stderr=unread)
            processes.append(process)
            os.close(write)
            url, _ = (announced.readline().split()[-1] for _ in range(2))
        return process, urlsplit(url).netloc

    yield start
    for process in processes:
        process.kill()
        process.wait()


def post(netloc, seconds):
    """Asks the toy to take so long."""
    connection = http.client.HTTPConnection(netloc, timeout=30)
    body = json.dumps({"signature_name": "slow", "instances": [seconds]})
    connection.request("POST", "/v1/models/toy:predict", body)
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_stderr_that_nobody_reads_keeps_no_request_and_no_end(start_unread):
    process, netloc = start_unread()
    assert {post(netloc, 0) for _ in range(100)} == {200}
    process.terminate()
    assert process.wait(timeout=60) == 0


def test_a_stderr_that_nobody_reads_keeps_no_second_signal(start_unread):
    process, netloc = start_unread()
    assert {post(netloc, 0) for _ in range(100)} == {200}
    threading.Thread(target=dropped, args=(netloc,), daemon=True).start()
    time.sleep(1)
    process.terminate()
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert process.wait(timeout=60) == TERMINATED
    assert time.monotonic() - started < 15  # sooner than the request


def dropped(netloc):
    with pytest.raises((OSError, http.client.HTTPException)):
        post(netloc, 25)


@pytest.fixture
def fifo(tmp_path):
    """The path of a FIFO for an access log."""
    path = tmp_path / "access.log"
    os.mkfifo(path)
    return path


def reader(fifo):
    """Opens it, whether or not somebody writes to it."""
    file = os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb")
    os.set_blocking(file.fileno(), True)
    return file


@pytest.fixture
def said(capfd):
    """Returns all that has come to stderr so far, without the times."""
    texts = []

    def read():
        texts.append(capfd.readouterr().err)
        return re.sub(r"(?m)^\S+ \S+ ", "", "".join(texts))

    return read


def test_lines_that_are_too_many_are_lost_and_counted(fifo, said, eventually):
    lines = []
    with reader(fifo) as read:
        reading = threading.Thread(target=lambda: lines.extend(read.readlines()))
        with logging_to(str(fifo)):
            for number in range(20_000):
                access_log.info("%05d", number)
            reading.start()
            count = r"WARNING (\S+): lines of the access log that are lost: (\d+)\n"
            eventually(lambda: re.search(count, said()))
        reading.join()
    ((path, lost),) = re.findall(count, said())
    assert path == str(fifo)
    assert len(lines) + int(lost) == 20_000
    assert lines == sorted(lines)


def test_a_log_that_cannot_be_written_is_told_once_until_it_can_be_again(fifo, said):
    pauses = f"ERROR {fifo}: Broken pipe; the access log pauses\n"
    lost = f"WARNING {fifo}: lines of the access log that are lost: %d\n"
    file = reader(fifo)
    with logging_to(str(fifo)) as wait_until_written:

        def log(*lines):
            for line in lines:
                access_log.info(line)
            wait_until_written()

        log("a")
        assert file.readline() == b"a\n"
        file.close()
        log("b", "c", "d")
        assert said() == pauses
        file = reader(fifo)
        log("e")
        assert said() == pauses + lost % 3
        log("f")
        assert [file.readline(), file.readline()] == [b"e\n", b"f\n"]
        file.close()
        log("g", "h")
    assert said() == pauses + lost % 3 + pauses


def test_a_line_after_one_that_had_no_room_begins_anew(tmp_path):
    path = tmp_path / "access.log"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with logging_to(str(path)) as wait_until_written:
        for line, most in (("first", limits[0]), ("second", 9), ("third", limits[0])):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
            access_log.info(line)
            wait_until_written()
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "first\nsec\nthird\n"


def test_a_full_disk_costs_one_line_and_no_request(serving, toys, tmp_path):
    with serving(tmp_path, toys, "--model-name", "toy", "--access-log", "/dev/full") as server:
        assert {post(urlsplit(server.url).netloc, 0) for _ in range(3)} == {200}
    log = server.log.read_text()
    assert log.count("/dev/full: No space left on device; the access log pauses\n") == 1
    assert "Logging error" not in log
    assert "Traceback" not in log
