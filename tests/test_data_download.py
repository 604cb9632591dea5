"""Downloads from a server on this machine that throttles, hangs up, lies and refuses."""

import http.server
import itertools
import threading
import time

import numpy as np
import pytest

from keras_cifar.data.source import download as module
from keras_cifar.data.source.download import DownloadError, download

CONTENT = np.random.RandomState(0).bytes(300_000)


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 3)
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.01)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each request with the next behaviour of the server's list."""

    def do_GET(self):
        assert self.headers["Accept-Encoding"] == "identity"
        self.server.ranges.append(self.headers["Range"])
        behave = next(self.server.behaviours)
        behave(self)

    def send(self, *, content=CONTENT, end=None, etag='"1"', headers=()):
        """Sends `content` from where the request asks for it to `end`, then hangs up."""
        begin = int((self.headers["Range"] or "bytes=0-")[6:-1])
        same = self.headers["If-Range"] in (None, etag)
        begin = begin if same else 0
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("ETag", etag)
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(content[begin:end])

    def log_message(self, *ignored):
        pass


@pytest.fixture
def serve(monkeypatch):
    """Gives a function that starts a server with a list of behaviours; the last one stays."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def start(*behaviours):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.behaviours = itertools.chain(behaviours, itertools.repeat(behaviours[-1]))
        server.ranges = []
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        server.url = f"http://127.0.0.1:{server.server_port}/file.bin"
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def get(server, folder, *, max_bytes=10**6):
    return download(server.url, folder=folder, max_bytes=max_bytes)


def status(code, **headers):
    def behave(handler):
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


def whole(handler):
    handler.send()


def half(handler):
    handler.send(end=150_000)


def test_a_file_arrives_and_is_not_asked_for_again(serve, tmp_path, capsys):
    server = serve(whole)
    path = get(server, tmp_path)
    assert path.read_bytes() == CONTENT
    assert get(server, tmp_path) == path
    assert server.ranges == [None]
    assert list(tmp_path.iterdir()) == [path]
    assert capsys.readouterr().out == ""


def test_a_broken_connection_is_resumed_where_it_broke(serve, tmp_path, capsys):
    server = serve(half, whole)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=150000-"]
    assert "broke off after 150000 of 300000 bytes; trying again" in capsys.readouterr().err


def test_a_later_call_resumes_what_an_earlier_one_had_to_give_up(serve, tmp_path):
    server = serve(half, status(503), status(503), whole)
    with pytest.raises(DownloadError, match="answers 503"):
        get(server, tmp_path)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=150000-"


def test_attempts_that_bring_something_are_not_counted(serve, tmp_path):
    def a_tenth(handler):
        begin = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        handler.send(end=begin + 30_000)

    server = serve(a_tenth)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert len(server.ranges) == 10


def test_a_file_that_changed_meanwhile_is_begun_anew(serve, tmp_path):
    changed = CONTENT[::-1]
    server = serve(half, lambda handler: handler.send(content=changed, etag='"2"'))
    assert get(server, tmp_path).read_bytes() == changed
    assert server.ranges == [None, "bytes=150000-"]


def test_a_server_that_ignores_ranges_sends_it_all_again(serve, tmp_path):
    def ignore_range(handler):
        del handler.headers["Range"]
        handler.send()

    assert get(serve(half, ignore_range), tmp_path).read_bytes() == CONTENT


def test_a_server_that_answers_with_another_range_is_not_believed(serve, tmp_path):
    wrong = status(206, Content_Range="bytes 7-299999/300000")
    assert get(serve(half, wrong, whole), tmp_path).read_bytes() == CONTENT


def test_a_complete_part_needs_only_its_name(serve, tmp_path):
    server = serve(half, status(416, Content_Range="bytes */150000"))
    assert get(server, tmp_path).read_bytes() == CONTENT[:150_000]


def test_a_part_longer_than_the_file_is_begun_anew(serve, tmp_path):
    server = serve(half, status(416, Content_Range="bytes */7"), whole)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=150000-", None]


def test_a_silent_server_is_given_up(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.1)
    leave = threading.Event()
    server = serve(lambda handler: leave.wait(600))
    with pytest.raises(DownloadError, match=r"no answer within 0\.1 s"):
        get(server, tmp_path)
    leave.set()


def test_a_server_that_stops_in_the_middle_is_asked_again(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 2)
    asked_again = threading.Event()

    def stall(handler):
        handler.send(end=1 << 17)
        asked_again.wait(600)

    def go_on(handler):
        asked_again.set()
        handler.send()

    server = serve(stall, go_on)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=131072-"]


def test_a_slow_server_is_waited_for_with_a_bar(serve, tmp_path, capsys):
    def drip(handler):
        handler.send(end=1)
        for begin in range(1, len(CONTENT), 50_000):
            time.sleep(0.05)
            handler.wfile.write(CONTENT[begin : begin + 50_000])

    assert get(serve(drip), tmp_path).read_bytes() == CONTENT
    assert "Downloading file.bin, 0.3 MB" in capsys.readouterr().err


@pytest.mark.parametrize("code", [400, 403, 404, 410])
def test_a_refusal_is_not_asked_for_again(serve, tmp_path, code):
    server = serve(status(code))
    with pytest.raises(DownloadError, match=f"^{server.url}: the server answers {code}$"):
        get(server, tmp_path)
    assert len(server.ranges) == 1


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(serve, tmp_path, code):
    assert get(serve(status(code), whole), tmp_path).read_bytes() == CONTENT


def test_a_busy_server_is_left_alone_as_long_as_it_asks(serve, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_WAIT_SECONDS", 0.2)
    began = time.monotonic()
    get(serve(status(503, Retry_After="3600"), whole), tmp_path)
    assert time.monotonic() - began > 0.2
    assert "the server answers 503; trying again in" in capsys.readouterr().err


def test_no_server_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # Port 9 is "discard", where nothing listens.
    with pytest.raises(DownloadError, match=r"the connection failed \(.*refused\)$"):
        download("http://127.0.0.1:9/f", folder=tmp_path, max_bytes=1)


def test_a_file_that_is_too_large_is_refused(serve, tmp_path):
    with pytest.raises(DownloadError, match="too large to be CIFAR-10"):
        get(serve(whole), tmp_path, max_bytes=299_999)


def test_a_packed_answer_is_kept_as_it_is(serve, tmp_path):
    header = ("Content-Encoding", "gzip")
    server = serve(lambda handler: handler.send(headers=[header]))
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_an_answer_of_unknown_length_is_taken(serve, tmp_path):
    def no_length(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT)

    assert get(serve(no_length), tmp_path).read_bytes() == CONTENT


def test_what_two_mirrors_send_is_kept_apart(serve, tmp_path):
    paths = {get(serve(whole), tmp_path) for _ in range(2)}
    assert len(paths) == 2
