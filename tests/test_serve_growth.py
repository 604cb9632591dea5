"""No request takes more time than in proportion to its size, nor keeps others waiting."""

import gc
import gzip
import http.client
import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from tensorflow_serving.apis import classification_pb2, predict_pb2
from tensorflow_serving.config import model_server_config_pb2

from keras_cifar.image.header import check_header
from keras_cifar.serve.access_log import Record
from keras_cifar.serve.memory import Hold
from keras_cifar.serve.models.model_config import model_configs
from keras_cifar.serve.models.registry import Models
from keras_cifar.serve.models.servable import Runtime
from keras_cifar.serve.models.tensors import to_array
from keras_cifar.serve.rest.json_body import parse_body, shortened, unzipped
from keras_cifar.serve.rest.json_examples import read_request
from keras_cifar.serve.rest.json_inputs import read_inputs
from keras_cifar.serve.rest.rest_api import RestApi
from keras_cifar.serve.rpc.wire import count_fields
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import Limits
from keras_cifar.serving import BATCHING

SMALL, FACTOR = 2**16, 8
# What is in proportion takes 8 times as long, what grows with the square 64 times.
MOST = 3 * FACTOR
NOISE_SECONDS = 2e-4
TRIES = 3


@pytest.fixture(scope="module", autouse=True)
def _frozen():
    """As the server does: a collection would look through all of TensorFlow."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def seconds(call, argument):
    """What a call takes of the CPU: other processes do not count."""
    started = time.process_time()
    with suppress(ServingError):
        call(argument)
    return time.process_time() - started


def grows_in_proportion(call, make, *, small=SMALL):
    """Whether a call takes at most 3 times as much longer as what it is called with is larger."""
    less, more = make(small), make(FACTOR * small)
    once = max(min(seconds(call, less) for _ in range(TRIES)), NOISE_SECONDS)
    return any(seconds(call, more) < MOST * once for _ in range(TRIES))


def repeated(piece, *, before=b"", after=b""):
    """A function that makes bodies of about a size."""
    return lambda size: before + piece * (size // len(piece)) + after


def spread(start, end):
    """One body of many numbers: the first has the most dimensions that a tensor may have."""
    return lambda size: start * 31 + b"1," * (size // 2) + b"1" + end * 31


def distinct_keys(size):
    return b'{"x":{' + b",".join(b'"%d":1' % number for number in range(size // 9)) + b"}}"


IN, OUT = b'{"instances":[', b"]}"
BODIES = {
    "brackets and a string without an end": lambda size: (
        b'{"a":' + b"[" * 100_000 + b'"' + b'\\"' * (size // 2)
    ),
    "a string without an end": repeated(b'\\"', before=b'{"a":"'),
    "backslashes": repeated(b"\\", before=b'{"a":"'),
    "opening brackets": repeated(b"["),
    "opening braces": repeated(b'{"":'),
    "closed brackets": lambda size: IN + b"[" * (size // 2) + b"]" * (size // 2) + OUT,
    "brackets of 900 levels": repeated(b"[" * 900 + b"]" * 900 + b",", before=IN, after=b"1" + OUT),
    "space": repeated(b" "),
    "space within": repeated(b" \n", before=IN, after=OUT),
    "lines": repeated(b"\n", after=b"!"),
    "digits": repeated(b"1", before=IN, after=OUT),
    "digits of a fraction": repeated(b"1", before=IN + b"0.", after=OUT),
    "digits before a fraction": repeated(b"1", before=IN, after=b".5" + OUT),
    "digits before an exponent": repeated(b"1", before=IN, after=b"e-9" + OUT),
    "zeros of a fraction": repeated(b"0", before=IN + b"0.", after=b"1" + OUT),
    "digits of an exponent": repeated(b"9", before=IN + b"1e", after=OUT),
    "digits of a negative exponent": repeated(b"9", before=IN + b"1e-", after=OUT),
    "integers of 4,300 digits": repeated(b"9" * 4300 + b",", before=IN, after=b"1" + OUT),
    "integers of 4,301 digits": repeated(b"9" * 4301 + b",", before=IN, after=b"1" + OUT),
    "floats of 700 digits": repeated(b"1" * 700 + b"e-350,", before=IN, after=b"1" + OUT),
    "floats that are hard to round": repeated(
        b"2.4703282292062327208299439634110864618253e-324,", before=IN, after=b"1" + OUT
    ),
    "halfway floats": repeated(
        b"9007199254740993." + b"0" * 700 + b"1,", before=IN, after=b"1" + OUT
    ),
    "numbers": repeated(b"1,", before=IN, after=b"1" + OUT),
    "large numbers": repeated(b"9999999999999999999,", before=IN, after=b"1" + OUT),
    "mixed numbers": repeated(b"1,1.5,", before=IN, after=b"1" + OUT),
    "infinities": repeated(b"1e999,", before=IN, after=b"1" + OUT),
    "NaN": repeated(b"NaN,", before=IN, after=b"1" + OUT),
    "words": repeated(b"true,", before=IN, after=b"null" + OUT),
    "empty lists": repeated(b"[],", before=IN, after=b"[]" + OUT),
    "lists of one": repeated(b"[1],", before=IN, after=b"[1]" + OUT),
    "lists of unequal length": repeated(b"[1],", before=b'{"inputs":[', after=b"[1,2]]}"),
    "one long list in many": spread(b"[", b"]"),
    "one long list in many, for a tensor": lambda size: IN + spread(b"[", b"]")(size) + OUT,
    "many lists in many": repeated(
        b"[" * 20 + b"1" + b"]" * 20 + b",", before=IN, after=b"1" + OUT
    ),
    "empty objects": repeated(b"{},", before=IN, after=b"{}" + OUT),
    "a key again and again": repeated(b'"a":1,', before=b"{", after=b'"a":1}'),
    "many keys": distinct_keys,
    "a long key": repeated(b"a", before=b'{"', after=b'":1}'),
    "a long key of an instance": repeated(b"a", before=IN + b'{"', after=b'":1}' + OUT),
    "a long name of a signature": repeated(b"[1],", before=b'{"signature_name":[', after=b"1]}"),
    "empty strings": repeated(b'"",', before=IN, after=b'""' + OUT),
    "a long string": repeated(b"a", before=IN + b'"', after=b'"' + OUT),
    "escapes": repeated(b"\\u0041", before=IN + b'"', after=b'"' + OUT),
    "escapes of pairs": repeated(b"\\ud83d\\ude00", before=IN + b'"', after=b'"' + OUT),
    "escapes of halves of pairs": repeated(b"\\ud83d", before=IN + b'"', after=b'"' + OUT),
    "text of four bytes": repeated("\U0001f600".encode(), before=IN + b'"', after=b'"' + OUT),
    "text that turns wide at its end": repeated(
        b"a", before=IN + b'"', after="\U0001f600".encode() + b'"' + OUT
    ),
    "text that is not UTF-8": repeated(b"a", before=IN + b'"', after=b'\xff"' + OUT),
    "what follows": repeated(b"[", before=b"{}"),
    "base64": repeated(b"QUFB", before=IN + b'{"b64":"', after=b'"}' + OUT),
    "base64 of nothing": repeated(b'{"b64":""},', before=IN, after=b'{"b64":""}' + OUT),
    "base64 of space": repeated(b"\\n", before=IN + b'{"b64":"', after=b'"}' + OUT),
    "base64 of padding": repeated(b"=", before=IN + b'{"b64":"', after=b'"}' + OUT),
    "base64 with padding within": repeated(b"QQ==", before=IN + b'{"b64":"', after=b'"}' + OUT),
    "base64 that is none": repeated(b"@", before=IN + b'{"b64":"', after=b'"}' + OUT),
    "examples": repeated(b'{"a":1},', before=b'{"examples":[', after=b"{}]}"),
    "an example of many values": repeated(b"1,", before=b'{"examples":[{"a":[', after=b"1]}]}"),
    "an example of unequal values": repeated(b"1,", before=b'{"examples":[{"a":[', after=b'""]}]}'),
    "nothing": repeated(b"\0"),
}


class Info:
    """What a signature says of an input."""

    def __init__(self, dtype):
        self.dtype = dtype.as_datatype_enum


INFOS = [{"x": Info(dtype)} for dtype in (tf.uint8, tf.float32, tf.string)]


def read(body):
    """Reads a body in each way that there is."""
    parsed = parse_body(body, max_values=Limits().values)
    for infos in INFOS:
        with suppress(ServingError, UnicodeEncodeError):
            read_inputs(parsed, infos)
    with suppress(ServingError, UnicodeEncodeError):
        read_request(parsed, classification_pb2.ClassificationRequest(), method="classify")
    shortened(parsed)


@pytest.mark.parametrize("make", BODIES.values(), ids=BODIES)
def test_json_is_read_in_proportion_to_its_size(make):
    assert grows_in_proportion(read, make)


# gzip


@pytest.mark.parametrize(
    "make",
    [
        lambda size: gzip.compress(bytes(500 * size)),
        lambda size: gzip.compress(np.random.default_rng(0).bytes(16 * size), compresslevel=0),
        # Blocks that hold nothing, after a header of ten bytes.
        lambda size: gzip.compress(b"")[:10] + b"\x00\x00\x00\xff\xff" * (size // 5),
        lambda size: gzip.compress(b"") * (size // 20),
        lambda size: b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * size,
    ],
    ids=["zeros", "noise", "blocks of nothing", "files of nothing", "a name without an end"],
)
def test_gzip_is_unpacked_in_proportion_to_its_size(make):
    def unpack(packed):
        unzipped(packed, max_bytes=Limits().body_bytes, hold=lambda size: None)

    assert grows_in_proportion(unpack, make)


# URLs


TARGETS = {
    "a name": lambda size: f"/v1/models/{'a' * size}:predict",
    "percent signs": lambda size: f"/v1/models/{'%' * size}",
    "escapes": lambda size: f"/v1/models/{'%41' * (size // 3)}",
    "slashes": lambda size: f"/v1/models/{'/' * size}",
    "colons": lambda size: f"/v1/models/{':' * size}",
    "versions": lambda size: "/v1/models/a" + "/versions/1" * (size // 11),
    "digits": lambda size: f"/v1/models/a/versions/{'9' * size}:predict",
    "zeros": lambda size: f"/v1/models/a/versions/{'0' * size}:predict",
    "labels": lambda size: f"/v1/models/a/labels/{'a' * size}/metadata",
    "a query": lambda size: f"/v1/models/a?{'a=&' * (size // 3)}",
}


@pytest.mark.parametrize("make", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_url_is_read_in_proportion_to_its_size(runtime, method, make):
    api = RestApi(Models(runtime=runtime, labels_may_wait=False), runtime)

    def ask(target):
        record = Record("REST", "", "")
        api.answer(method, target, body=b"{}", record=record, deadline=time.time() + 60)

    assert grows_in_proportion(ask, make, small=2**13)


@pytest.fixture
def runtime():
    return Runtime(BATCHING["cpu"], Limits())


# gRPC


def varint(number):
    return bytes([number & 0x7F | 0x80, *varint(number >> 7)]) if number > 0x7F else bytes([number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def inputs(tensor):
    """A PredictRequest of one tensor."""
    return field(2, field(1, b"x") + field(2, tensor))


LARGE_DIMENSION = field(2, b"\x08" + b"\xff" * 8 + b"\x7f")
MESSAGES = {
    "dimensions": lambda size: inputs(b"\x08\x04" + field(2, LARGE_DIMENSION * (size // 12))),
    "dimensions of nothing": lambda size: inputs(field(2, b"\x12\x00" * (size // 2))),
    "values": lambda size: inputs(b"\x08\x04" + field(7, b"\x01" * size)),
    "values one by one": lambda size: inputs(b"\x08\x04" + b"\x38\x01" * (size // 2)),
    "strings": lambda size: inputs(b"\x08\x07" + field(8, b"") * (size // 2)),
    "inputs": lambda size: b"\x12\x00" * (size // 2),
    "filters": lambda size: field(3, b"y") * (size // 3),
    "groups": lambda size: b"\x7b" * size,
    "a number without an end": lambda size: b"\xff" * size,
    "lengths beyond the end": lambda size: b"\x12\x02\x12\x7f" * (size // 4),
    "messages in messages": lambda size: b"\x12\xff\xff\xff\x07" * (size // 5),
}


@pytest.mark.parametrize("make", MESSAGES.values(), ids=MESSAGES)
def test_a_message_is_decoded_in_proportion_to_its_size(runtime, make):
    descriptor = predict_pb2.PredictRequest.DESCRIPTOR

    def decode(content):
        count_fields(content, descriptor, most=runtime.limits.values)
        with suppress(DecodeError):
            request = predict_pb2.PredictRequest.FromString(content)
            for tensor in request.inputs.values():
                with Hold(runtime.memory) as hold:
                    to_array(tensor, max_bytes=runtime.limits.body_bytes, hold=hold.add)

    assert grows_in_proportion(decode, make)


def test_a_list_of_models_is_read_in_proportion_to_its_size():
    def models(size):
        config = model_server_config_pb2.ModelServerConfig()
        for number in range(size):
            config.model_config_list.config.add(name=str(number), base_path="/x")
        return config

    assert grows_in_proportion(model_configs, models, small=2**9)


# Images


IMAGES = {
    "a GIF of small blocks": repeated(b"\x01a", before=b"GIF89a" + bytes(7) + b"\x21\xf9"),
    "a GIF of frames": repeated(
        b"\x2c" + bytes(9) + b"\x08\x00", before=b"GIF89a\x01\x00\x01\x00" + bytes(3)
    ),
    "a JPEG of markers": repeated(b"\xff", before=b"\xff\xd8"),
    "a JPEG of segments": repeated(b"\xff\xe0\x00\x02", before=b"\xff\xd8"),
}


@pytest.mark.parametrize("make", IMAGES.values(), ids=IMAGES)
def test_an_images_header_is_read_in_proportion_to_its_size(make):
    def look(encoded):
        with suppress(ValueError):
            check_header(encoded)

    assert grows_in_proportion(look, make)


# What a fuzzer finds


PIECES = ["[", "]", "{", "}", ",", ":", '"', "\\", '"a":', "1", "-", ".5", "e9", "NaN", " ", "\n",
          '"b64"', '\\"', "\\ud83d", "\U0001f600", '{"instances":[', '{"inputs":', "null", "true",
          '{"examples":[', "]}", "0" * 30, "9" * 400, "[[[", "]]]"]  # fmt: skip


@settings(max_examples=150)
@given(
    before=st.lists(st.sampled_from(PIECES), max_size=4),
    piece=st.lists(st.sampled_from(PIECES), min_size=1, max_size=4),
    after=st.lists(st.sampled_from(PIECES), max_size=4),
)
def test_no_repetition_takes_more_time_than_in_proportion(before, piece, after):
    start, end, middle = ("".join(part).encode() for part in (before, after, piece))
    assert grows_in_proportion(read, repeated(middle, before=start, after=end), small=2**12)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30))
def test_no_body_is_anything_but_read_or_refused(pieces):
    with suppress(ServingError):
        read("".join(pieces).encode(errors="surrogatepass"))


# Others meanwhile


# The worst of the above, each as large as it may be and still be read, or nearly.
WORST = [
    *((BODIES[name], size) for name, size in {
        "integers of 4,300 digits": 2**24,
        "floats that are hard to round": 2**24,
        "many lists in many": 2**21,
        "many keys": 2**22,
        "a string without an end": 2**21,
        "text that turns wide at its end": 2**24,
        "an example of many values": 2**21,
        "base64 of nothing": 2**21,
        "one long list in many, for a tensor": 2**21,
    }.items()),
]  # fmt: skip
WORST_MESSAGES = [("inputs", 2**21), ("dimensions of nothing", 2**21), ("values", 2**24)]
ONE_BYTE_CHUNKS = b"1\r\n \r\n" * 2**18 + b"0\r\n\r\n"


def test_others_are_answered_meanwhile(server, sample):
    body = json.dumps({"instances": sample.images[:1].tolist()})
    done, times = threading.Event(), []

    def ask():
        while not done.is_set():
            before, started = cpu_seconds(server), time.monotonic()
            assert post(server, body)[0] == 200
            # On a busy machine, it waits for other processes too.
            times.append(min(time.monotonic() - started, cpu_seconds(server) - before))
            time.sleep(0.01)

    asking = threading.Thread(target=ask)
    asking.start()
    for make, size in WORST:
        for path in ("/v1/models/cifar10:predict", "/v1/models/cifar10:classify"):
            assert post(server, make(size), path)[0] in (400, 413)
    with grpc.insecure_channel(server.grpc, options=[("grpc.max_send_message_length", -1)]) as rpc:
        call = rpc.unary_unary("/tensorflow.serving.PredictionService/Predict")
        for name, size in WORST_MESSAGES:
            with pytest.raises(grpc.RpcError):
                call(MESSAGES[name](size), timeout=60)
    chunked = {"Transfer-Encoding": "chunked"}
    assert post(server, iter([ONE_BYTE_CHUNKS]), headers=chunked)[0] == 400
    done.set()
    asking.join()
    # Of a busy machine's cores, another thread of the server may have one when it is its turn.
    assert np.percentile(times, 95) < 1, sorted(times)[-5:]
    assert max(times) < 5
    assert len(times) > 20


def cpu_seconds(server):
    """What a server has had of the CPU so far."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def post(server, body, path="/v1/models/cifar10:predict", headers=None):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request("POST", path, body, headers or {})
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer
