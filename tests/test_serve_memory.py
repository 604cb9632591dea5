"""What all requests together hold in memory stays within --max-total-bytes."""

import gzip
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_cifar.serve.memory import Hold, Memory
from keras_cifar.serve.models.tensors import to_array
from keras_cifar.serve.prometheus import Metrics
from keras_cifar.serve.rest.json_body import unzipped
from keras_cifar.serve.rpc.wire import count_fields
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import Limits
from keras_cifar.serving import WARMUP_FILE

MIB = 2**20
BODY, TOTAL = 4 * MIB, 16 * MIB
HELD = TOTAL // 2  # of REST, and of messages that have arrived
PREDICT = "/v1/models/cifar10:predict"
TOKEN = "s3cret"
NO_ROOM = f"the requests at work leave no room: they hold {HELD} bytes at most"


@pytest.fixture(scope="module")
def _small(serving, exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    shutil.copytree(exported.version, folder / "cifar10" / "1")
    (folder / "cifar10" / "1" / WARMUP_FILE).unlink()
    with serving(
        folder,
        folder / "cifar10",
        *("--max-body-bytes", BODY, "--max-total-bytes", TOTAL, "--token", TOKEN),
        *("--access-log", "off"),
    ) as server:
        yield server
        log = server.log.read_text()
    assert "Traceback" not in log, log


@pytest.fixture
def small(_small, sample, eventually):
    """A server with little room; afterwards nothing is held."""
    assert rest_answer(_small, sample)[0] == 200  # what is made once has been made
    assert grpc_answer(_small, sample) is None
    Path(f"/proc/{_small.process.pid}/clear_refs").write_text("5")
    yield _small
    eventually(lambda: metric(_small, "keras_cifar_request_bytes") == 0)


def get(server, path):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
    content = connection.getresponse().read().decode()
    connection.close()
    return content


def metric(server, name):
    (value,) = re.findall(rf"(?m)^{name} (\S+)$", get(server, "/monitoring/prometheus/metrics"))
    return float(value)


def rest_answer(server, sample):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    body = json.dumps({"instances": sample.images[:1].tolist()})
    connection.request("POST", PREDICT, body, {"Authorization": f"Bearer {TOKEN}"})
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    return response.status, content


def request_of(images):
    request = predict_pb2.PredictRequest(model_spec={"name": "cifar10"})
    request.inputs["image"].CopyFrom(tf.make_tensor_proto(images))
    return request


def grpc_answer(server, sample):
    """The code of an error, None for an answer."""
    with grpc.insecure_channel(server.grpc) as channel:
        return outcome(channel, request_of(sample.images[:1]), token=TOKEN)


def outcome(channel, request, *, token):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    try:
        stub.Predict(request, metadata=[("authorization", f"Bearer {token}")], timeout=60)
    except grpc.RpcError as error:
        return error.code()
    return None


def memory(server):
    """Bytes in memory now, and at most."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return [
        1024 * int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) for name in ("VmRSS", "VmHWM")
    ]


# REST


def slow_upload(server, stack, *, size, sent):
    """A connection that has sent the first bytes of a body."""
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    stack.enter_context(connection)
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
    for _ in range(0, sent, 2**16):
        with suppress(OSError):  # refused by now
            connection.sendall(bytes(2**16))
    return connection


def answer_to(connection):
    """What a connection is told, which may come in parts."""
    answer = b""
    while not answer.endswith(b"}") and (part := connection.recv(4096)):
        answer += part
    return answer.decode()


def test_slow_uploads_hold_no_more_than_they_may(small, sample):
    before, _ = memory(small)
    with ExitStack() as stack:
        uploads = [
            slow_upload(small, stack, size=BODY - MIB, sent=BODY - 2 * MIB) for _ in range(40)
        ]
        # Eighty mebibytes were sent. Who has been sending for longest makes room for the others.
        for _ in range(10):
            assert rest_answer(small, sample)[0] == 200
        held = metric(small, "keras_cifar_request_bytes")
        refusals = metric(small, "keras_cifar_requests_without_room_total")
        answers = [answer_to(connection) for connection in uploads[:30]]
        # The last that came is still being read.
        uploads[-1].settimeout(0)
        with pytest.raises(BlockingIOError):
            uploads[-1].recv(1)
    _, most = memory(small)
    assert 0 < held <= HELD
    assert refusals >= 30
    assert {answer.split("\r\n")[0] for answer in answers} == {"HTTP/1.1 503 Service Unavailable"}
    assert {answer.split("\r\n")[-1] for answer in answers} == {json.dumps({"error": NO_ROOM})}
    assert most - before < 4 * TOTAL


def test_what_is_unpacked_counts_too():
    hold = Hold(Memory(Limits(body_bytes=BODY, total_bytes=TOTAL), Metrics(thread_pool_name="x")))
    hold.add(HELD - 3 * MIB)
    bomb = gzip.compress(bytes(3 * MIB))
    assert len(unzipped(bomb, max_bytes=BODY, hold=hold.add)) == 3 * MIB
    hold.release()
    hold.add(HELD - 2 * MIB)
    with pytest.raises(ServingError, match=NO_ROOM):
        unzipped(bomb, max_bytes=BODY, hold=hold.add)


@pytest.mark.parametrize(
    "body",
    [
        b'{"x": [' + b"[]," * (MIB // 2) + b"[]]}",
        b'{"x": [' + b"{}," * (MIB // 2) + b"{}]}",
        b'{"x": [' + b"0," * MIB + b"0]}",
        b'{"x": "' + b"\\u0041" * MIB + b'"}',
    ],
    ids=["lists", "objects", "numbers", "escapes"],
)
def test_json_of_more_values_than_anyone_needs_is_not_read(serving_post, body):
    status, answer = serving_post(body)
    assert status == 413
    assert answer == {"error": f"JSON of over {MIB} values, keys and escapes; no more are read"}


@pytest.fixture
def serving_post(server):
    """Asks the server of all tests, which has the usual limits."""

    def post(body):
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
        connection.request("POST", PREDICT, body)
        response = connection.getresponse()
        content = json.loads(response.read())
        connection.close()
        return response.status, content

    return post


# gRPC


class Stalling:
    """Passes on the first bytes that a client sends, and all of the answers."""

    def __init__(self, address, *, first):
        host, port = address.rsplit(":", 1)
        self._to = (host, int(port))
        self._first = first
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.address = f"127.0.0.1:{self._sockets[0].getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._sockets[0].accept()
                server = socket.create_connection(self._to)
                self._sockets += [client, server]
                for source, target, most in ((client, server, self._first), (server, client, None)):
                    arguments = (source, target, most)
                    threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    @staticmethod
    def _pass_on(source, target, most):
        with suppress(OSError):
            while (most is None or most > 0) and (data := source.recv(2**16)):
                target.sendall(data)
                most = None if most is None else most - len(data)

    def close(self):
        for each in self._sockets:
            each.close()


@pytest.fixture
def stalling(small):
    """The address of the server by way of a network that stalls after 3 MiB."""
    proxy = Stalling(small.grpc, first=3 * MIB)
    yield proxy.address
    proxy.close()


LARGE = predict_pb2.PredictRequest(model_spec={"name": "cifar10"})
LARGE.inputs["image"].tensor_content = bytes(BODY - 1000)
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def test_slow_messages_hold_no_more_than_they_may(small, sample, stalling):
    before, _ = memory(small)
    with ExitStack() as stack, ThreadPoolExecutor(40) as pool:
        channels = [
            stack.enter_context(grpc.insecure_channel(stalling, options=OWN_CONNECTION))
            for _ in range(40)
        ]
        slow = [pool.submit(outcome, channel, LARGE, token=TOKEN) for channel in channels]
        time.sleep(1)
        started = time.monotonic()
        assert grpc_answer(small, sample) is None
        assert rest_answer(small, sample)[0] == 200
        waited = time.monotonic() - started
        _, most = memory(small)
        for channel in channels:
            channel.close()
        outcomes = {future.result() for future in slow}
    # One second for the oldest of them, which has 30, and what a busy machine needs.
    assert waited < 20
    assert most - before < 5 * TOTAL
    assert grpc.StatusCode.CANCELLED in outcomes


def test_messages_count_before_their_fields_are_counted(small):
    """Which takes half a second each, and of gzip few bytes have to be sent."""
    message = b"\x1a\0" * (BODY // 2 - 100)  # a field of two bytes
    with grpc.insecure_channel(small.grpc) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        options = {
            "metadata": [("authorization", f"Bearer {TOKEN}")],
            "compression": grpc.Compression.Gzip,
            "timeout": 60,
        }
        calls = [call.future(message, **options) for _ in range(12)]
        codes = {one.exception().code() for one in calls}
    # Two have room, and are found to have too many fields.
    assert codes == {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_silent_health_checks_keep_no_request_waiting(small, sample):
    """They need no token. Each that is given up comes again."""
    done = threading.Event()

    def silent():
        done.wait()
        yield from ()

    with grpc.insecure_channel(small.grpc, options=OWN_CONNECTION) as channel:
        check = channel.stream_unary("/grpc.health.v1.Health/Check")

        def come_again():
            calls = []
            while not done.wait(0.05):
                calls = [call for call in calls if not call.done()]
                calls += [check.future(silent(), timeout=60) for _ in range(40 - len(calls))]

        with ThreadPoolExecutor(1) as pool:
            again = pool.submit(come_again)
            time.sleep(1)
            started = time.monotonic()
            try:
                assert [grpc_answer(small, sample) for _ in range(10)] == [None] * 10
            finally:
                done.set()
            # A request waits for none of them, and a machine may be busy.
            assert time.monotonic() - started < 10
            again.result()


def test_without_the_token_no_message_is_waited_for(small, stalling):
    with grpc.insecure_channel(stalling, options=OWN_CONNECTION) as channel:
        started = time.monotonic()
        assert outcome(channel, LARGE, token="x") is grpc.StatusCode.UNAUTHENTICATED
    assert time.monotonic() - started < 20  # of the 30 for a message


def test_a_message_that_does_not_come_is_said_so(small):
    with grpc.insecure_channel(small.grpc) as channel:
        call = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as failure:
            call(iter(()), metadata=[("authorization", f"Bearer {TOKEN}")], timeout=60)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert failure.value.details() == "expected exactly one request message."


def test_a_tensor_of_few_bytes_counts_by_what_it_is():
    limits = Limits(body_bytes=BODY, total_bytes=TOTAL)
    hold = Hold(Memory(limits, Metrics(thread_pool_name="x")))
    zeros = tf.make_tensor_proto(0, tf.uint8, shape=[3 * MIB])
    to_array(zeros, max_bytes=BODY, hold=hold.add)
    to_array(zeros, max_bytes=BODY, hold=hold.add)
    assert hold.size == 6 * MIB
    with pytest.raises(ServingError, match=NO_ROOM):
        to_array(zeros, max_bytes=BODY, hold=hold.add)


@pytest.mark.parametrize(
    "content",
    [
        b"\x12\x02\x12\x00" * MIB,  # inputs, of nothing
        b"\x1a\x00" * 2 * MIB,  # output_filter, of no name
        b"\x12\x06\x12\x04\x12\x02\x12\x00" * MIB,  # inputs of a shape of a dimension
    ],
)
def test_a_message_of_more_fields_than_anyone_needs_is_not_decoded(server, content):
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as failure:
            call(content, timeout=60)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.value.details() == f"message of over {MIB} fields; no more are read"


def test_fields_are_counted_as_they_are():
    request = classification_pb2.ClassificationRequest(model_spec={"name": "toy"})
    for value in (1, 300, 2**40):
        example = request.input.example_list.examples.add()
        example.features.feature["x"].int64_list.value.append(value)
    content = request.SerializeToString()
    # The spec and its name; the input, its list and, for each example: itself, its features, an
    # entry of their map with key and value, of which there is a list, packed.
    assert count_fields(content, request.DESCRIPTOR, most=1000) == 2 + 2 + 3 * 7
    assert count_fields(content, request.DESCRIPTOR, most=5) == 6
    for end in range(len(content)):
        assert count_fields(content[:end], request.DESCRIPTOR, most=1000) <= 25


# The option


def test_the_total_is_not_less_than_two_bodies(command, tmp_path):
    ended = command("serve", tmp_path, "--max-total-bytes", 100 * MIB)
    assert ended.returncode == 2
    assert (
        f"Error: --max-total-bytes: got {100 * MIB}, expected at least twice --max-body-bytes, "
        f"{128 * MIB}." in ended.stderr
    )


def test_the_script_of_500_uploads_runs(exported):
    script = Path(__file__).parents[1] / "scripts" / "slow_uploads.py"
    ended = subprocess.run(
        [sys.executable, script, exported.version.parent, "--uploads", "3", "--seconds", "3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "memory at most: " in ended.stdout, ended.stderr
    assert re.search(r"others' answers: \{'200': \d+\}", ended.stdout), ended.stdout
