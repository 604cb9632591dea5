"""What is sent to a server in error or in malice costs others nothing, and it little."""

import base64
import gzip
import http.client
import io
import json
import re
import resource
import shutil
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from tensorflow_serving.apis import (
    classification_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_cifar.serving import WARMUP_FILE

INVALID = grpc.StatusCode.INVALID_ARGUMENT
TIMEOUT = 10  # seconds, for an answer; a busy machine needs some
PATIENCE = 4  # seconds, for headers, and for the rest of a body that was refused; else 10
KEEP_ALIVE = 6  # seconds, for the next request, and for an answer to be taken; else 75
MIB = 2**20
LIMIT = 64 * MIB  # of a body
PREDICT = "/v1/models/cifar10:predict"
PAGE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"  # of 60 kB
POST = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\n".encode()
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def _attacked(serving, exported, save_toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    save_toy(folder / "toy" / "1", answer=10, only=("serving_default", "slow", "words", "classify"))
    config = folder / "models.config"
    shutil.copytree(exported.version, folder / "cifar10" / "1")
    (folder / "cifar10" / "1" / WARMUP_FILE).unlink()  # it takes longer than most of the tests
    models = {name: folder / name for name in ("cifar10", "toy")}
    entries = [f'config {{ name: "{name}" base_path: "{models[name]}" }}' for name in models]
    config.write_text(f"model_config_list {{ {' '.join(entries)} }}")
    with serving(
        folder,
        *("--models-config", config, "--timeout", TIMEOUT, "--access-log", "off"),
        constants={
            "keras_cifar.serve.rest.http_protocol._SECONDS": PATIENCE,
            "keras_cifar.serve.rest.http_protocol.KEEP_ALIVE_SECONDS": KEEP_ALIVE,
        },
    ) as server:
        yield server
        log = server.log.read_text()
    assert "Traceback" not in log, log
    assert "internal error" not in log, log


@pytest.fixture
def attacked(_attacked, right):
    """A server, which answers as before afterwards."""
    yield _attacked
    assert _attacked.process.poll() is None
    assert right(_attacked)


@pytest.fixture(scope="module")
def right(sample):
    """Asks a server for two images; returns whether the answer is what it always was."""
    body = json.dumps({"instances": sample.images[:2].tolist()})
    known = []

    def ask(server):
        status, answer = post(server, body)
        known.append(answer)
        probabilities = [row["probabilities"] for row in answer["predictions"]]
        return (
            status == 200
            and answer["predictions"][0]["label"] == known[0]["predictions"][0]["label"]
            and np.allclose(np.sum(probabilities, 1), 1, atol=1e-5)
        )

    return ask


def post(server, body, path=PREDICT, **headers):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def connected(server):
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def memory(server):
    """Bytes that a server has in memory, and the most that it ever had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return tuple(
        1024 * int(kib) for kib in re.findall(r"(?:VmRSS|VmHWM):\s+(\d+) kB", status)[::-1]
    )


@pytest.fixture
def thrifty(attacked):
    """A server; it must not take much more memory than a body has."""
    # Begins to look for the most anew.
    Path(f"/proc/{attacked.process.pid}/clear_refs").write_text("5")
    before, _ = memory(attacked)
    yield attacked
    _, most = memory(attacked)
    assert most - before < 3 * LIMIT


def sent_until_closed(server, head, piece, *, seconds):
    """Sends a piece again and again; returns what came back, after how many seconds and bytes."""
    started, answer, sent = time.monotonic(), b"", 0
    with connected(server) as connection:
        try:
            connection.sendall(head)
            while time.monotonic() - started < seconds:
                connection.sendall(piece)
                sent += len(piece)
        except OSError:
            return b"", time.monotonic() - started, sent
        connection.settimeout(5)
        with suppress(OSError):
            answer = connection.recv(1000)
        return answer, time.monotonic() - started, sent


# HTTP


def test_a_body_of_200_megabytes_is_not_read(thrifty):
    size = 200_000_000
    with connected(thrifty) as connection:
        connection.sendall(POST + f"Content-Length: {size}\r\n\r\n".encode())
        for _ in range(0, size, 10**6):
            connection.sendall(bytes(10**6))
        answer = b"".join(iter(lambda: connection.recv(1000), b""))  # until it is closed
    assert answer.startswith(b"HTTP/1.1 413 ")
    message = f"a body of {size} bytes; at most {LIMIT} are read"
    assert answer.endswith(json.dumps({"error": message}).encode())


def test_a_length_of_thousands_of_digits(attacked):
    """Of over 4,300, Python makes no number."""
    with connected(attacked) as connection:
        length = b"Content-Length: " + b"0" * 5000 + b"2\r\n"
        connection.sendall(POST + b"Connection: close\r\n" + length + b"\r\n{}")
        answer = b"".join(iter(lambda: connection.recv(1000), b""))  # until it is closed
    assert answer.endswith(b"{\"error\": \"Missing 'inputs' or 'instances' key\"}")


def test_an_error_quotes_no_megabytes(attacked):
    key = "a" * 2 * MIB
    status, answer = post(attacked, json.dumps({"instances": [{key: 1}]}))
    assert status == 400
    assert answer["error"].startswith("Failed to process element: 0 of 'instances' list. Error: ")
    assert answer["error"].endswith("aaa...TRUNCATED")
    assert len(answer["error"]) < 2**16 + 20


def test_a_body_without_an_end_is_not_read_for_long(thrifty):
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    answer, seconds, _ = sent_until_closed(thrifty, POST + CHUNKED, chunk, seconds=60)
    assert (answer, PATIENCE - 1 < seconds < 60) == (b"", True)  # closed


def test_a_chunked_body_of_empty_lines_is_read_as_any_other(attacked):
    """It took half a second a megabyte, where each empty line could be the end of a request."""
    lines = b"x\r\n\r\n" * 13_000
    chunks = (b"%x\r\n%s\r\n" % (len(lines), lines)) * 300
    started = time.monotonic()
    with connected(attacked) as connection:
        connection.sendall(POST + CHUNKED + chunks + b"0\r\n\r\n")
        assert b"400" in connection.recv(100)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"GET /", b"a" * 65536),
        (POST + b"X: ", b"a" * 65536),
        (POST, b"X: a\r\n" * 10_000),
        (POST + CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: a\r\n" * 10_000),
        (POST + CHUNKED + b"2\r\n{}\r\n0\r\nX: ", b"a" * 65536),
        (POST + CHUNKED + b"2;", b"a" * 65536),
    ],
    ids=["URL", "header", "headers", "trailers", "trailer", "chunk"],
)
def test_a_header_without_an_end_is_not_read(thrifty, head, piece):
    answer, _, sent = sent_until_closed(thrifty, head, piece, seconds=60)
    # What was on its way when it was refused; until its patience ends, gigabytes would be read.
    assert (answer, sent < 32 * MIB) == (b"", True)


def test_a_body_that_does_not_come_is_not_waited_for(attacked):
    with connected(attacked) as connection:
        connection.sendall(POST + b"Content-Length: 10\r\n\r\n{")
        answer = b"".join(iter(lambda: connection.recv(1000), b""))  # until it is closed
    assert answer.startswith(b"HTTP/1.1 408 ")
    message = {"error": f"the body did not arrive in {TIMEOUT} s"}
    assert answer.endswith(json.dumps(message).encode())


@pytest.fixture
def many_files():
    """Lets this process have 2,000 connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2500:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2500), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_slow_connections_do_not_slow_others(attacked, right, many_files):
    headers = POST + b"Content-Length: 1000\r\n"
    # One half does not come to an end of its headers, the other half of its body.
    slow = [connected(attacked) for _ in range(1000)]
    for position, connection in enumerate(slow):
        connection.sendall(headers if position % 2 else headers + b"\r\n")
    stop, times = threading.Event(), []

    def drip():
        while not stop.wait(1):
            for connection in slow:
                try:
                    connection.send(b"a")
                except OSError:
                    continue  # the server has had enough of it

    dripping = threading.Thread(target=drip)
    dripping.start()
    end = time.monotonic() + 5
    while time.monotonic() < end or len(times) <= 20:
        started = time.monotonic()
        assert right(attacked)
        times.append(time.monotonic() - started)
    stop.set()
    dripping.join()
    answers = [connection.recv(12) for connection in slow[::2]]
    for connection in slow:
        connection.close()
    assert set(answers) == {b"HTTP/1.1 408"}
    # Who waited for the slow ones would wait until the server's patience with them ends.
    assert np.percentile(times, 90) < 1
    assert np.percentile(times, 99) < PATIENCE - 1


def open_files(server):
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def unread(server, sent):
    """A connection that sends as much as the server takes, and reads nothing."""
    address = urlsplit(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect((address.hostname, address.port))
    connection.settimeout(0)
    with suppress(BlockingIOError):
        while sent:
            sent = sent[connection.send(sent) :]
    return connection


def test_behind_answers_that_nobody_reads_no_body_is_read(attacked):
    # Of what is sent in answer, the system holds a few megabytes for a connection.
    sent = PAGE * 60 + POST + b"Content-Length: 60000000\r\n\r\n" + bytes(10**6)
    before, _ = memory(attacked)
    connections = [unread(attacked, sent) for _ in range(100)]
    for _ in range(6):
        time.sleep(0.5)
        for connection in connections:
            with suppress(OSError):
                connection.send(bytes(10**6))
    after, _ = memory(attacked)
    for connection in connections:
        connection.close()
    assert after - before < 50 * MIB  # of the bodies alone, there were over 80


@pytest.mark.parametrize("sent", [b"", b"\r\n"], ids=["nothing", "a newline"])
def test_a_connection_without_a_next_request_is_closed(attacked, sent):
    with connected(attacked) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"live"):
            answer += connection.recv(1000)
        started = time.monotonic()
        connection.sendall(sent)
        assert connection.recv(1000) == b""
        assert KEEP_ALIVE - 1 < time.monotonic() - started < 60


def test_a_connection_whose_answers_nobody_reads_is_closed(attacked, eventually):
    before = open_files(attacked)
    connections = [unread(attacked, PAGE * 60) for _ in range(20)]
    eventually(lambda: open_files(attacked) >= before + 20, seconds=5)
    eventually(lambda: open_files(attacked) <= before + 5, seconds=KEEP_ALIVE + PATIENCE + 30)
    for connection in connections:
        connection.close()


def until_closed(connection):
    return b"".join(iter(lambda: connection.recv(2**16), b""))


def test_requests_sent_ahead_are_answered_one_after_the_other(attacked):
    body = b'{"instances":\r\n\r\n[1]}'
    path = b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\n"
    sized = path + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunks = b"%x;a=b\r\n%s\r\n4\r\n\r\n\r\n\r\n00;c\r\nX: y\r\n\r\n" % (len(body), body)
    chunked = path + CHUNKED + chunks
    last = b"GET /v2/health/live HTTP/1.1\r\nConnection: close\r\n\r\n"
    sent = (sized + PAGE + b"\r\n" + chunked) * 50 + last
    for size in (len(sent), 7, 1):
        with connected(attacked) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with ThreadPoolExecutor(1) as pool:
                received = pool.submit(until_closed, connection)
                for start in range(0, len(sent), size):
                    connection.sendall(sent[start : start + size])
        answers = received.result().split(b"HTTP/1.1 200 OK\r\n")[1:]
        kinds = [re.findall(rb"11\.0|</html>|\r\nlive", answer) for answer in answers]
        assert kinds == [[b"11.0"], [b"</html>"], [b"11.0"]] * 50 + [[b"\r\nlive"]]


@pytest.mark.parametrize("pause", [0, 0.1], ids=["at once", "headers first"])
@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"foo"])
def test_an_upgrade_is_ignored(attacked, protocol, pause):
    """Java's HttpClient and curl --http2 ask for one with any request."""
    body = b'{"instances": [1]}'
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\n" % protocol
    post = b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\n" + upgrade
    sized = post + b"Content-Length: %d\r\n\r\n" % len(body), body
    chunked = post + CHUNKED, b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    # In which another request hides.
    nested = post + b"Content-Length: %d\r\n\r\n" % len(PAGE), PAGE
    last = b"GET /v2/health/live HTTP/1.1\r\n" + upgrade + b"Connection: close\r\n\r\n"
    with connected(attacked) as connection:
        for part in (*sized, *chunked, *nested, last):
            connection.sendall(part)
            time.sleep(pause)
        answers = until_closed(connection)
    kinds = re.findall(rb"HTTP/1.1 \d+|11\.0|</html>|Invalid value|\r\nlive", answers)
    answered = [b"HTTP/1.1 200", b"11.0"]
    refused = [b"HTTP/1.1 400", b"Invalid value"]
    assert kinds == [*answered, *answered, *refused, b"HTTP/1.1 200", b"\r\nlive"]


@pytest.mark.parametrize(("length", "status"), [(60_000, b"200"), (70_000, b"400")])
def test_headers_that_come_at_once_may_be_no_longer_either(attacked, length, status):
    with connected(attacked) as connection:
        header = b"X: " + b"a" * length
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\n" + header + b"\r\n\r\n")
        assert connection.recv(1000)[9:12] == status


def test_a_client_that_says_no_more_gets_its_answer(attacked):
    with connected(attacked) as connection:
        body = json.dumps({"signature_name": "slow", "instances": [0.2]}).encode()
        head = b"POST /v1/models/toy:predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(1000), b""))  # until it is closed
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET /v1/models/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(attacked, sent):
    with connected(attacked) as connection:
        connection.sendall(sent)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_a_client_may_hang_up_at_any_time(attacked):
    body = json.dumps({"signature_name": "slow", "instances": [0.2]}).encode()
    head = f"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    sent = head.encode() + body
    # In the midst of the first line, of the headers, of the body, and before the answer.
    for length in (3, 60, len(sent) - 5, len(sent)):
        for linger in (None, struct.pack("ii", 1, 0)):
            with connected(attacked) as connection:
                connection.sendall(sent[:length])
                if linger:  # with a reset
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    time.sleep(0.5)


def test_a_client_may_hang_up_in_the_midst_of_the_answer(attacked):
    body = json.dumps({"signature_name": "words", "instances": [""] * 128})
    for _ in range(5):
        with connected(attacked) as connection:
            head = f"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
            # Many in a row, of which none is taken off the socket.
            connection.sendall(f"{head}\r\n\r\n{body}".encode() * 200)
            assert connection.recv(10) == b"HTTP/1.1 2"


def test_a_grpc_client_may_hang_up_at_any_time(attacked):
    for _ in range(5):
        with grpc.insecure_channel(attacked.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = predict_request(
                "slow",
                "dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 0.2",
                model="toy",
            )
            call = stub.Predict.future(request)
            time.sleep(0.02)
            call.cancel()


@pytest.mark.parametrize(
    "path",
    [
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "%00",
        "a" * 10_000,
        "toy%00",
        "cifar10%2f..%2ftoy",
    ],
)
def test_a_model_name_is_no_path(attacked, path):
    status, answer = post(attacked, '{"instances": [1]}', f"/v1/models/{path}:predict")
    assert (status, answer["error"][:33]) == (404, "Servable not found for request: L")
    status, answer = post(attacked, '{"instances": [1]}', f"/v1/models/toy/labels/{path}:predict")
    assert (status, answer["error"][:29]) == (400, "Unrecognized servable version")
    for method in ("GET", "POST"):
        connection = http.client.HTTPConnection(urlsplit(attacked.url).netloc, timeout=60)
        connection.request(method, f"/{path}")
        response = connection.getresponse()
        assert (response.status, response.read()) == (404, b"Not Found")
        connection.close()


@pytest.mark.parametrize("version", [str(2**63), "9" * 5000, "0" * 5000 + "9" * 20])
def test_a_version_too_large_for_a_number(attacked, version):
    status, answer = post(attacked, "{}", f"/v1/models/toy/versions/{version}:predict")
    assert (status, answer) == (400, {"error": f"Failed to convert version: {version} to numeric."})


# JSON


# Where Python's parser gives up, by its version: at 1,000 levels, 1,500 or 10,000.
AROUND_THE_LIMIT = (*range(900, 1000, 9), 1100, 1499, 1600, 9997, 10_000)


def nested(depth, inner="1"):
    return "[" * depth + inner + "]" * depth


TOO_DEEP = "JSON Parse error: Arrays and objects are nested too deep."


def test_a_tensor_nested_deep(thrifty):
    message = "lists [0-9]+ deep: a tensor has at most 32 dimensions"
    for key, start in [
        (
            "instances",
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: ",
        ),
        ("inputs", ""),
    ]:
        for depth in (33, 64, 65, 100, 500, *AROUND_THE_LIMIT, 100_000):
            status, answer = post(thrifty, f'{{"{key}": {nested(depth)}}}')
            assert status == 400
            if depth < 900:
                assert re.fullmatch(re.escape(start) + message, answer["error"])
            elif depth > 10_000:
                assert answer["error"] == TOO_DEEP
            else:
                expected = f"{re.escape(start)}{message}|{re.escape(TOO_DEEP)}"
                assert re.fullmatch(expected, answer["error"])


def test_brackets_without_an_end(thrifty):
    for sent in ("[" * 100_000, '{"instances": ' + "[" * 100_000, '{"x":' * 100_000):
        status, answer = post(thrifty, sent)
        assert (status, answer["error"][:18]) == (400, "JSON Parse error: ")


def test_other_values_nested_deep(attacked):
    for depth in (500, *AROUND_THE_LIMIT, 100_000):
        encoded = f'{{"b64": {nested(depth)}}}'
        for body, text in [
            (
                f'{{"signature_name": {nested(depth)}}}',
                "'signature_name' key must be a string value. Got: [[[",
            ),
            (
                f'{{"signature_name": "image_bytes", "instances": [{encoded}]}}',
                "Unable to base64 decode [[[",
            ),
        ]:
            status, answer = post(attacked, body)
            assert status == 400
            assert text in answer["error"] or (depth >= 900 and answer["error"] == TOO_DEEP)


def test_one_long_string_among_short_ones_takes_no_memory(thrifty):
    strings = ["a" * 10**6] + [""] * 120
    status, answer = post(thrifty, json.dumps({"instances": strings}))
    assert status == 400
    assert answer["error"].endswith("Type: String is not of expected type: uint8")


def test_half_a_surrogate_pair(attacked):
    refused = (400, {"error": "JSON Parse error: The surrogate pair in string is invalid."})
    for body in ('{"signature_name": "words", "instances": ["\\ud800"]}',):
        assert post(attacked, body, "/v1/models/toy:predict") == refused
    body = '{"examples": [{"\\ud800": 1}]}'
    assert post(attacked, body, "/v1/models/toy:classify") == refused


# gzip


def test_a_gzip_file_that_is_cut_off_or_not_one(attacked):
    empty = (400, {"error": "JSON Parse error: The document is empty. at offset: 0"})
    packed = gzip.compress(b'{"instances": [1]}')
    for body in (packed[:-9], packed[:5], b"nonsense", b""):
        assert post(attacked, body, **{"Content-Encoding": "gzip"}) == empty


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_gzip_by_its_names(attacked, encoding):
    packed = gzip.compress(b'{"instances": [1]}')
    headers = {"Content-Encoding": encoding}
    status, answer = post(attacked, packed, "/v1/models/toy:predict", **headers)
    assert (status, answer) == (200, {"predictions": [11.0]})


def test_a_gzip_bomb(thrifty):
    packer = zlib.compressobj(wbits=31)
    zeros = bytes(10 * MIB)
    bomb = b"".join(packer.compress(zeros) for _ in range(40)) + packer.flush()
    assert len(bomb) < 2 * MIB
    empty = (400, {"error": "JSON Parse error: The document is empty. at offset: 0"})
    assert post(thrifty, bomb, **{"Content-Encoding": "gzip"}) == empty


# Images


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def images_body(*images):
    encoded = [{"b64": base64.b64encode(image).decode()} for image in images]
    return json.dumps({"signature_name": "image_bytes", "instances": encoded})


def test_an_image_that_claims_to_be_huge(thrifty, sample):
    small = png(sample.images[0])
    huge = small[:16] + struct.pack(">II", 50_000, 50_000) + small[24:]
    assert post(thrifty, images_body(small, huge)) == (
        400,
        {
            "error": "image_bytes[1]: the image claims 50,000 x 50,000 pixels; "
            "at most 50,000,000 are read. Make it smaller"
        },
    )


def test_a_jpeg_that_goes_over_its_pixels_again_and_again(attacked, sample):
    file = io.BytesIO()
    Image.fromarray(sample.images[0]).save(file, "JPEG", progressive=True)
    usual = file.getvalue()
    last = usual[usual.rindex(b"\xff\xda") : -2]
    for scans in (100, 101):
        more = scans - usual.count(b"\xff\xda")
        status, answer = post(attacked, images_body(usual[:-2] + last * more + usual[-2:]))
        assert (status == 400) == (scans > 100), answer  # a busy machine may answer 504
    assert answer == {
        "error": "image_bytes[0]: a JPEG of 101 scans; at most 100 are read, since each goes over "
        "the whole image. Save it anew"
    }


def test_an_image_of_no_bytes(attacked):
    refused = (400, {"error": "image_bytes[0]: the file is empty"})
    assert post(attacked, images_body(b"")) == refused


def test_a_damaged_image_spoils_no_other_of_its_batch(attacked, sample):
    images = sample.images[:8]
    whole = [png(image) for image in images]
    # Right in its header, and cut off in its pixels.
    cut = png(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))[:1500]
    _, expected = post(attacked, json.dumps({"instances": images.tolist()}))
    labels = [row["label"] for row in expected["predictions"]]

    def good(index):
        status, answer = post(attacked, images_body(whole[index]))
        return (status, answer["predictions"][0]["label"]) == (200, labels[index])

    def bad(_):
        status, answer = post(attacked, images_body(cut))
        return status == 400 and "PNG" in answer["error"]

    with ThreadPoolExecutor(16) as pool:
        pending = [
            pool.submit(call, index)
            for _ in range(10)
            for index in range(8)
            for call in (good, bad)
        ]
        assert all(future.result() for future in pending)


# gRPC


def predict_request(signature, tensor, *, model="cifar10"):
    request = predict_pb2.PredictRequest(model_spec={"name": model, "signature_name": signature})
    name = {"words": "words", "serving_default": "image"}.get(signature, "x")
    text_format.Parse(tensor, request.inputs[name])
    return request


@pytest.fixture
def called(thrifty):
    """The code and the text of a call that fails."""
    with grpc.insecure_channel(
        thrifty.grpc, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def call(request, procedure="Predict", **options):
            with pytest.raises(grpc.RpcError) as failure:
                getattr(stub, procedure)(request, timeout=60, **options)
            return failure.value.code(), failure.value.details()

        yield call


def tensor(shape, value):
    dims = " ".join(f"dim {{ size: {size} }}" for size in shape)
    return f"tensor_shape {{ {dims} }} {value}"


BYTE, FLOAT = "dtype: DT_UINT8 int_val: 1", "dtype: DT_FLOAT float_val: 1"


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        (
            [10**9, 32, 32, 3],
            BYTE,
            f"tensor of shape [1000000000, 32, 32, 3]: expected at most {LIMIT} bytes",
        ),
        (
            [2**62, 2**62],
            FLOAT,
            f"tensor of shape [{2**62}, {2**62}]: expected at most {LIMIT} bytes",
        ),
        ([-1, 32, 32, 3], BYTE, f"tensor of shape [-1, 32, 32, 3]: expected at most {LIMIT} bytes"),
        ([-1, -2], BYTE, f"tensor of shape [-1, -2]: expected at most {LIMIT} bytes"),
        ([1] * 100, BYTE, "malformed tensor: "),
        ([0, 2**62], BYTE, "malformed tensor: "),
        ([1], "dtype: DT_UINT8 int_val: 300", "malformed tensor: "),
        ([1], "dtype: DT_HALF half_val: 100000", "malformed tensor: "),
        ([1], "dtype: DT_FLOAT tensor_content: '123'", "malformed tensor: "),
        ([2], "dtype: DT_FLOAT tensor_content: '1234'", "malformed tensor: "),
        ([1], "dtype: DT_VARIANT", "tensor of type variant: expected numbers or strings"),
        ([1], "dtype: DT_RESOURCE", "tensor of type resource: expected numbers or strings"),
        ([1], "", "malformed tensor: "),
        ([1, 32, 32, 3], FLOAT, "input image: got type float32, expected uint8"),
        ([1, 31, 32, 3], BYTE, "input image: got shape [1, 31, 32, 3], expected [-1, 32, 32, 3]"),
    ],
)
def test_a_tensor_that_is_none(called, shape, value, message):
    code, text = called(predict_request("serving_default", tensor(shape, value)))
    assert (code, text[: len(message)]) == (INVALID, message)


@pytest.mark.parametrize(("count", "length"), [(1_000, 10**6), (10**8, 1)])
def test_one_string_that_fills_a_tensor_takes_no_memory(called, count, length):
    request = predict_request("words", tensor([count], "dtype: DT_STRING"), model="toy")
    request.inputs["words"].string_val.append(b"a" * length)
    message = f"tensor of shape [{count}]: expected at most {LIMIT} bytes"
    assert called(request) == (INVALID, message)


def test_one_context_of_many_examples_takes_no_memory(called):
    request = classification_pb2.ClassificationRequest(
        model_spec={"name": "toy", "signature_name": "classify"}
    )
    examples = request.input.example_list_with_context
    examples.context.features.feature["x"].bytes_list.value.append(bytes(MIB))
    examples.examples.extend([tf.train.Example()] * 1000)
    code, text = called(request, "Classify")
    size = 1000 * examples.context.ByteSize()
    assert code is INVALID
    assert text == f"the context, for each example: {size} bytes, expected at most {LIMIT}"


def test_requests_that_are_no_messages_leave_nothing_behind(attacked):
    """grpcio keeps 10 kB for each one that it cannot decode: here that would be 40 MB."""
    with grpc.insecure_channel(attacked.grpc) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

        def refused():
            with pytest.raises(grpc.RpcError) as failure:
                call(b"\x0a", timeout=60)
            return failure.value.code(), failure.value.details()

        for _ in range(500):  # what is made once has been made
            refused()
        before, _ = memory(attacked)
        answers = {refused() for _ in range(4000)}
    after, _ = memory(attacked)
    assert answers == {(grpc.StatusCode.INTERNAL, "Exception deserializing request!")}
    assert after - before < 15e6


def test_a_message_that_is_too_large(called):
    request = predict_request("x", "dtype: DT_FLOAT")
    request.inputs["x"].tensor_content = bytes(LIMIT)
    size = request.ByteSize()
    assert called(request) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"SERVER: Received message larger than max ({size} vs. {LIMIT})",
    )


def test_a_message_that_unpacks_to_be_too_large(called):
    request = predict_request("x", "dtype: DT_FLOAT")
    request.inputs["x"].tensor_content = bytes(200 * MIB)
    code, text = called(request, compression=grpc.Compression.Gzip)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text == "Decompressed message larger than max"
