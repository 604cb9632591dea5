"""The clients of both protocols, against servers that throttle, lie, redirect and hang up."""

import base64
import gzip
import http.server
import io
import itertools
import json
import math
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from concurrent import futures
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.client import (
    AccessDeniedError,
    Answer,
    BadResponseError,
    GrpcClient,
    InvalidInputError,
    ModelNotFoundError,
    Refusal,
    RestClient,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
    UntrustedServerError,
    rest_client,
    server_client,
)

BAD_ADDRESS = "Check the address; REST is usually on port 8501, gRPC on 8500."
SPOILS_THE_BATCH = 3000
Code = grpc.StatusCode
HTTP_STATUS = {
    Code.FAILED_PRECONDITION: 400,
    Code.INTERNAL: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.NOT_FOUND: 404,
    Code.UNAUTHENTICATED: 401,
    Code.UNAVAILABLE: 503,
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def png(size=0):
    """A whole PNG; bytes after its end, which decoders skip, make it as large as `size`."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "PNG")
    return file.getvalue().ljust(size, b"\0")


def row(number):
    """Probabilities whose most probable class is `number` modulo 10."""
    return [0.91 if index == number % 10 else 0.01 for index in range(10)]


# Servers that do as they are told


class Asked(NamedTuple):
    """A request, whatever the protocol; the images are encoded ones, or pixels."""

    model: str
    version: int | None
    label: str | None
    signature: str
    images: Any
    token: str | None


class Fault(NamedTuple):
    """What a server says instead of an answer."""

    code: grpc.StatusCode
    reason: str


class Rest:
    """A REST server. A reply that is a function is called with the handler of the request."""

    client_class = RestClient
    nobody = "Connection refused"
    no_answer = "nothing for 0.3 s"

    def __init__(self, *behaviours, certificate=None, port=0):
        self.behaviours = itertools.chain(behaviours, itertools.repeat(behaviours[-1]))
        self.asked, self.paths, self.connections = [], [], 0
        self.http = HttpServer(("127.0.0.1", port), Handler)
        self.http.peer = self
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate.with_name("key.pem"))
            self.http.socket = context.wrap_socket(
                self.http.socket, server_side=True, do_handshake_on_connect=False
            )
            self.address = self.address.replace("http", "https")
        threading.Thread(target=self.http.serve_forever, args=(0.01,)).start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()

    @staticmethod
    def said(fault):
        return f"{HTTP_STATUS[fault.code]}: {fault.reason}"


class HttpServer(http.server.ThreadingHTTPServer):
    def handle_error(self, *ignored):
        """Clients that hang up are what some tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.peer.connections += 1

    def answer(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.peer.paths.append(self.path)
        asked = self.asked(json.loads(body or "{}"))
        self.server.peer.asked.append(asked)
        reply = next(self.server.peer.behaviours)(asked)
        if callable(reply):
            reply(self)
        elif isinstance(reply, Fault):
            self.send(HTTP_STATUS[reply.code], {"error": reply.reason})
        elif reply is None:
            self.send(200, {"model_spec": {"name": "cifar10"}, "metadata": {}})
        else:
            self.send(200, {"predictions": [{"probabilities": row} for row in reply]})

    do_GET = do_POST = answer

    def asked(self, body):
        pattern = (
            r".*/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(?:/metadata|:predict)?"
        )
        model, version, label = re.fullmatch(pattern, self.path).groups()
        images = [
            base64.b64decode(image["b64"], validate=True) if isinstance(image, dict) else image
            for image in body.get("instances", [])
        ]
        token = self.headers["Authorization"]
        signature = body.get("signature_name", "")
        return Asked(
            unquote(model),
            version and int(version),
            label and unquote(label),
            signature,
            images,
            token,
        )

    def send(self, status, document, headers=()):
        """Sends JSON, or bytes as HTML."""
        is_html = isinstance(document, bytes)
        content = document if is_html else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if is_html else "application/json")
        self.send_header("Content-Length", str(len(content)))
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *ignored):
        pass


class Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
    """A gRPC server. A reply that is a function is called for the response to a prediction."""

    client_class = GrpcClient
    nobody = "UNAVAILABLE: Failed to connect to remote host: Connection refused"
    no_answer = "DEADLINE_EXCEEDED: Deadline Exceeded"

    def __init__(self, *behaviours, certificate=None, max_bytes=-1):
        self.behaviours = itertools.chain(behaviours, itertools.repeat(behaviours[-1]))
        self.asked = []
        options = [("grpc.max_receive_message_length", max_bytes)]
        self.server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self.server)
        if certificate:
            key = certificate.with_name("key.pem").read_bytes()
            credentials = grpc.ssl_server_credentials([(key, certificate.read_bytes())])
            port = self.server.add_secure_port("127.0.0.1:0", credentials)
        else:
            port = self.server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self.server.start()

    def stop(self):
        self.server.stop(None).wait()

    @staticmethod
    def said(fault):
        return f"{fault.code.name}: {fault.reason}"

    def reply(self, request, context):
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        images = [tf.make_ndarray(tensor) for tensor in getattr(request, "inputs", {}).values()]
        token = dict(context.invocation_metadata()).get("authorization")
        self.asked.append(
            Asked(
                spec.name,
                version,
                spec.version_label or None,
                spec.signature_name,
                images[0] if images else [],
                token,
            )
        )
        reply = next(self.behaviours)(self.asked[-1])
        if isinstance(reply, Fault):
            context.abort(*reply)
        return reply

    def Predict(self, request, context):
        reply = self.reply(request, context)
        return reply() if callable(reply) else response(reply)

    def GetModelMetadata(self, request, context):
        self.reply(request, context)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.metadata["signature_def"].Pack(get_model_metadata_pb2.SignatureDefMap())
        return response


def response(probabilities, **others):
    """A gRPC answer, in the packed fields that TensorFlow Serving fills."""
    message = predict_pb2.PredictResponse()
    for name, values in {"probabilities": np.array(probabilities), **others}.items():
        message.outputs[name].CopyFrom(tf.make_tensor_proto(values))
    return message


@pytest.fixture
def start():
    """Starts a server of a kind with a list of behaviours, of which the last one stays."""
    servers = []

    def start(kind, *behaviours, **options):
        servers.append(kind(*behaviours, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(params=[Rest, Grpc])
def protocol(request):
    return request.param


@pytest.fixture
def serve(start, protocol):
    """`start` for each protocol."""
    return partial(start, protocol)


@pytest.fixture
def open_client():
    """Makes the client of a server; afterwards all are closed."""
    clients = []

    def connect(server, **settings):
        clients.append(server.client_class(server.address, **settings))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


# Behaviours: what is asked -> a reply (probabilities, a fault, None for metadata, or a function)


def says(code, reason):
    return lambda asked: Fault(code, reason)


def gives(probabilities):
    return lambda asked: probabilities


def sends(*reply):
    """A reply of REST's: status, JSON or HTML, headers."""
    return lambda asked: lambda handler: handler.send(*reply)


def has_metadata(asked):
    return None


def classifies(asked):
    """The class of an image is the number of its bytes modulo 10."""
    return [row(len(image)) for image in asked.images]


def classifies_but_for_some(asked):
    """TensorFlow Serving's: an image that cannot be read costs all of a request their answers."""
    if any(len(image) == SPOILS_THE_BATCH for image in asked.images):
        return Fault(Code.INVALID_ARGUMENT, "Invalid PNG data\n\t [[{{node DecodePng}}]]")
    return classifies(asked)


BUSY = says(Code.UNAVAILABLE, "The batch scheduling queue is full")
NOT_LOADED = says(Code.NOT_FOUND, "Servable not found for request")


def counts(server):
    return [len(asked.images) for asked in server.asked]


# Requests


def test_many_images_become_several_requests(serve, open_client):
    server = serve(classifies)
    answers = open_client(server).predict([png(1000 + number) for number in range(70)])
    assert [answer.label for answer in answers] == [CLASS_NAMES[i % 10] for i in range(70)]
    assert counts(server) == [32, 32, 6]
    assert {asked[:4] for asked in server.asked} == {("cifar10", None, None, "image_bytes")}


def test_pixels_are_sent_as_they_are_as_many_to_a_request_as_was_chosen(serve, open_client, sample):
    server = serve(gives([row(3)] * 5))
    client = open_client(server, batch_size=5, version=7, model_name="other")
    answers = client.predict_pixels(sample.images[:10])
    assert [answer.label for answer in answers] == [CLASS_NAMES[3]] * 10
    assert counts(server) == [5, 5]
    np.testing.assert_array_equal(server.asked[1].images, sample.images[5:10])
    assert {asked[:4] for asked in server.asked} == {("other", 7, None, "serving_default")}


def test_requests_of_large_images_stay_near_8_mib(serve, open_client):
    server = serve(classifies)
    sizes = [3 << 20, 3 << 20, 3 << 20, 9 << 20, 100, 100]
    assert len(open_client(server).predict([png(size) for size in sizes])) == 6
    assert counts(server) == [2, 1, 1, 2]


def test_images_whose_header_is_wrong_never_leave_this_machine(serve, open_client):
    server = serve(classifies)
    empty, answer = open_client(server).predict([b"", png(1004)])
    assert empty == Refusal("the file is empty")
    assert answer.label == CLASS_NAMES[4]
    assert counts(server) == [1]


def test_a_refused_request_is_halved_until_the_bad_image_is_alone(serve, open_client):
    server = serve(classifies_but_for_some)
    sizes = [1000, 1001, SPOILS_THE_BATCH, 1003, 1004, 1005, 1006, 1007]
    found = open_client(server).predict([png(size) for size in sizes])
    refusal = found.pop(2)
    assert [answer.label for answer in found] == [CLASS_NAMES[i] for i in (0, 1, 3, 4, 5, 6, 7)]
    reason = server.said(Fault(Code.INVALID_ARGUMENT, "Invalid PNG data"))
    assert refusal == Refusal(
        f"{server.address}: the input is refused ({reason}). "
        "Check that the image opens elsewhere, or save it anew as PNG."
    )
    assert counts(server) == [8, 4, 2, 2, 1, 1, 4]


def test_a_busy_server_is_asked_again(serve, open_client):
    server = serve(BUSY, BUSY, classifies)
    assert open_client(server).predict([png(1002)])[0].label == CLASS_NAMES[2]
    assert len(server.asked) == 3


def test_a_server_that_stays_busy_is_asked_four_times(serve, open_client):
    server = serve(BUSY)
    with pytest.raises(ServerUnavailableError) as caught:
        open_client(server).predict([png()])
    reason = server.said(BUSY(None))
    assert str(caught.value) == (
        f"{server.address}: cannot be asked now ({reason}). {ServerUnavailableError.remedy}"
    )
    assert ServerUnavailableError.remedy == (
        "Check that the server runs there, or wait for it: --wait SECONDS."
    )
    assert len(server.asked) == 4


def test_a_server_that_is_not_there_is_named(protocol, nobody):
    scheme = "http://" if protocol is Rest else ""
    address = f"{scheme}127.0.0.1:{nobody.getsockname()[1]}"
    with protocol.client_class(address) as client:
        for ask in (client.status, lambda: client.predict([png()])):
            with pytest.raises(ServerUnavailableError) as caught:
                ask()
            assert str(caught.value) == (
                f"{address}: cannot be asked now ({protocol.nobody}). "
                f"{ServerUnavailableError.remedy}"
            )


def test_a_server_that_never_answers_is_left_and_not_asked_twice(serve, open_client):
    leave = threading.Event()
    server = serve(has_metadata, lambda asked: leave.wait(600) and BUSY(asked))
    client = open_client(server)
    try:
        client.metadata()  # connects, which may take a busy machine a while
        started = time.monotonic()
        with pytest.raises(ServerTimeoutError):
            client.wait_until_available(0.3)
        assert time.monotonic() - started < client.timeout_seconds / 2
        client.timeout_seconds = 0.3
        for ask in (client.metadata, lambda: client.predict([png()])):
            with pytest.raises(ServerTimeoutError) as caught:
                ask()
            assert str(caught.value) == (
                f"{server.address}: no answer in time ({server.no_answer}). "
                "Look at the server's log, or give it longer."
            )
    finally:
        leave.set()
    assert len(server.asked) <= 1 + 1 + 2


# Answers


@pytest.mark.parametrize(
    ("kind", "behaviour", "reason"),
    [
        *(
            (kind, gives(rows), f"probabilities of shape {shape} for 1 images). ")
            for kind in (Rest, Grpc)
            for rows, shape in (([row(0)] * 2, (2, 10)), ([row(0)[:9]], (1, 9)), ([], (0,)))
        ),
        (Rest, sends(200, b"<html>Welcome"), "no JSON object, but '<html>Welcome'). "),
        (Rest, sends(200, [1]), "no JSON object, but '[1]'). "),
        (Rest, sends(200, b"[" * 100_000), "no JSON object, but '[["),
        (Rest, sends(200, {"outputs": []}), "10 probabilities for each image expected, got {'out"),
        (Rest, sends(200, {"predictions": [row(0)]}), "10 probabilities for each image expected,"),
        (
            Rest,
            gives([["0.1"] * 10]),
            "10 probabilities for each image expected, got {'predictions",
        ),
        (Rest, gives([[10**400] * 10]), "10 probabilities for each image expected"),
        (
            Rest,
            sends(302, b"", [("Location", "http://evil/")]),
            "302: redirects to http://evil/, wh",
        ),
        (
            Rest,
            sends(302, b"", [("Location", "http://evil/\xff")]),
            "302: redirects to http://evil/\xff, wh",
        ),
        (Rest, sends(400, b"<html>Bad Request"), "400: Bad Request). "),
        (Rest, sends(405, b"<html>No"), "405: Method Not Allowed). "),
        (
            Grpc,
            lambda asked: (
                lambda: predict_pb2.PredictResponse(
                    outputs={"scores": tf.make_tensor_proto([row(1)])}
                )
            ),
            "no probabilities, but ['scores']). ",
        ),
        (
            Grpc,
            lambda asked: lambda: typed(row(1), images=10**12),
            "probabilities of shape (1000000000000, 10) for 1 images). ",
        ),
        (Grpc, gives(row(0)), "probabilities of shape (10,) for 1 images). "),
        *(
            (Grpc, gives([[value] + [type(value)()] * 9]), "probabilities that are no numbers). ")
            for value in (b"x", b"1", 1j, True)
        ),
        *(
            (
                Grpc,
                lambda asked, dtype=dtype: lambda: tampered(dtype),
                "probabilities that are no numbers). ",
            )
            for dtype in (types_pb2.DT_VARIANT, types_pb2.DT_BFLOAT16, 1_000_000)
        ),
        *(
            (kind, gives([values]), "10 probabilities expected, got [")
            for kind in (Rest, Grpc)
            for values in ([5] + [0] * 9, [0.0] * 10, [0.5] * 10, [-0.5, 1.5] + [0] * 8)
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", ""),
)
def test_an_answer_that_is_not_tensorflow_servings_is_named(
    start, open_client, kind, behaviour, reason
):
    server = start(kind, behaviour)
    with pytest.raises(BadResponseError) as caught:
        open_client(server).predict([png()])
    message = str(caught.value)
    assert message.startswith(
        f"{server.address}: does not answer as TensorFlow Serving does ({reason}"
    )
    assert message.endswith(f"). {BAD_ADDRESS}")
    assert message.isprintable()
    assert len(server.asked) == 1


def tampered(dtype):
    """A gRPC answer of a type that its numbers are too large for, or that has none."""
    tensor = tensor_pb2.TensorProto(dtype=dtype, half_val=[-1, 1 << 20] * 5)
    tensor.tensor_shape.CopyFrom(tf.TensorShape((1, 10)).as_proto())
    return predict_pb2.PredictResponse(outputs={"probabilities": tensor})


def typed(probabilities, *, images):
    """A gRPC answer in the typed fields, which claims to be of so many images."""
    message = response(np.zeros((1, 10), np.float32))
    tensor = message.outputs["probabilities"]
    tensor.tensor_content = b""
    tensor.float_val.extend(probabilities)
    tensor.tensor_shape.dim[0].size = images
    return message


def test_numbers_that_are_not_finite_come_from_a_model_that_diverged(serve, open_client):
    server = serve(gives([[math.nan] * 10]))
    with pytest.raises(FloatingPointError) as caught:
        open_client(server).predict([png()])
    assert str(caught.value) == (
        f"{server.address}: the model gives numbers that are not finite. Its training diverged; "
        "export another run's."
    )


@pytest.mark.parametrize(
    ("kind", "behaviour", "error", "fault"),
    [
        (Rest, sends(401, b"<html>"), AccessDeniedError, "access is denied (401: Unauthorized)"),
        (Rest, sends(403, b"<html>"), AccessDeniedError, "access is denied (403: Forbidden)"),
        (
            Rest,
            sends(404, b"<html>"),
            ModelNotFoundError,
            "the model cannot be asked (cifar10, 404: Not Found)",
        ),
        (
            Rest,
            sends(429, b"<html>"),
            ServerUnavailableError,
            "cannot be asked now (429: Too Many Requests)",
        ),
        (
            Rest,
            sends(408, {"error": "the body did not arrive in 30 s"}),
            ServerTimeoutError,
            "no answer in time (408: the body did not arrive in 30 s)",
        ),
        (
            Rest,
            sends(400, {"error": "JSON Parse error: Invalid value. at offset: 0"}),
            ServerError,
            "the server fails (400: JSON Parse error: Invalid value. at offset: 0)",
        ),
        (Rest, sends(500, b"<html>"), ServerError, "the server fails (500: Internal Server Error)"),
        (
            Rest,
            sends(504, b"<html>"),
            ServerTimeoutError,
            "no answer in time (504: Gateway Timeout)",
        ),
        *(
            (Grpc, says(code, "because"), error, f"{fault}{code.name}: because)")
            for code, error, fault in (
                (Code.UNAUTHENTICATED, AccessDeniedError, "access is denied ("),
                (Code.PERMISSION_DENIED, AccessDeniedError, "access is denied ("),
                (Code.NOT_FOUND, ModelNotFoundError, "the model cannot be asked (cifar10, "),
                (Code.RESOURCE_EXHAUSTED, ServerUnavailableError, "cannot be asked now ("),
                (
                    Code.UNIMPLEMENTED,
                    BadResponseError,
                    "does not answer as TensorFlow Serving does (",
                ),
                (Code.INTERNAL, ServerError, "the server fails ("),
            )
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_status_has_its_error(start, open_client, kind, behaviour, error, fault):
    server = start(kind, behaviour)
    with pytest.raises(ServerError) as caught:
        open_client(server).predict([png()])
    assert type(caught.value) is error
    assert str(caught.value) == f"{server.address}: {fault}. {error.remedy}"
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (Code.INVALID_ARGUMENT, "Unrecognized servable version label: x"),
        (Code.FAILED_PRECONDITION, 'Serving signature key "image_bytes" not found.'),
        (Code.INVALID_ARGUMENT, 'Serving signature name: "image_bytes" not found in signature def'),
        (Code.INVALID_ARGUMENT, "input size does not match signature: 1!=2"),
    ],
)
def test_what_the_model_lacks_is_not_each_images_fault(serve, open_client, code, reason):
    server = serve(says(code, reason))
    with pytest.raises(ModelNotFoundError, match=re.escape(reason.rstrip("."))):
        open_client(server).predict([png()] * 10)
    assert len(server.asked) == 1


def test_pixels_that_the_model_refuses_are_an_error(serve, open_client, sample):
    server = serve(says(Code.INVALID_ARGUMENT, "wrong shape"))
    with pytest.raises(InvalidInputError, match=r"the input is refused \(\w+: wrong shape\)"):
        open_client(server).predict_pixels(sample.images[:2])


def test_what_a_server_says_cannot_play_tricks_on_the_terminal(serve, open_client):
    server = serve(says(Code.INTERNAL, "a\x1b[2J\r\nb\u202e" + "x" * 1000))
    with pytest.raises(ServerError) as caught:
        open_client(server).metadata()
    said = server.said(Fault(Code.INTERNAL, "a [2J b " + "x" * 1000))
    assert str(caught.value) == (
        f"{server.address}: the server fails ({said[:200]}...). Look at its log."
    )


def fills_memory(handler):
    """128 MiB of spaces, of which little is on the way."""
    spaces = gzip.compress(b" " * (1 << 27), compresslevel=1)
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(spaces)))
    handler.end_headers()
    handler.wfile.write(spaces)


def never_ends(handler):
    handler.send_response(500)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * (1 << 20))


@pytest.mark.parametrize("reply", [fills_memory, never_ends])
def test_an_answer_without_end_over_rest_is_left(start, open_client, reply):
    client = open_client(start(Rest, gives(reply)))
    fault = r"as TensorFlow Serving does \(an answer of more than 67,108,864 bytes\)"
    with pytest.raises(BadResponseError, match=fault):
        client.metadata()


@pytest.mark.parametrize("compression", grpc.Compression)
def test_an_answer_that_is_too_large_over_grpc_is_left(start, open_client, compression):
    class Packs(Grpc):
        def Predict(self, request, context):
            context.set_compression(compression)
            return super().Predict(request, context)

    padded = partial(response, [row(1)], padding=b"x" * (65 << 20))
    fault = r"does not answer as TensorFlow Serving does \(RESOURCE_EXHAUSTED: .*larger than max"
    with pytest.raises(BadResponseError, match=fault):
        open_client(start(Packs, gives(padded))).predict([png()])


def test_what_a_server_says_is_read_in_no_time():
    before = time.process_time()
    error = ServerError("http://host", "{{" * 50_000)
    assert time.process_time() - before < 1
    assert str(error).startswith("http://host: the server fails ({{{{")


# Addresses, tokens and TLS


@pytest.mark.parametrize(
    ("client_class", "address"),
    [
        *(
            (RestClient, address)
            for address in (
                "localhost:8501",
                "localhost",
                "",
                "ftp://localhost",
                "http://",
                "http://host:port",
                "http://host:99999",
                "http://[::1",
                "http://a b",
                "http://a..b:8501",
                f"http://{'a' * 64}.example:8501",
                "http://\udcff:8501",
                "http://host/?x=1",
                "http://host/v1/models/cifar10:predict",
            )
        ),
        *(
            (GrpcClient, address)
            for address in ("localhost", "http://localhost:8500", "", "a b:1", "h:1/x", "\udcff:1")
        ),
    ],
)
def test_an_address_that_is_none_is_refused(client_class, address):
    expected = {
        RestClient: r"http://HOST:PORT or https://HOST:PORT( alone)?",
        GrpcClient: "HOST:PORT",
    }[client_class]
    with pytest.raises(ValueError, match=rf"^address: got '.*', expected ({expected}|UTF-8)\.$"):
        client_class(address)


def test_an_address_is_kept_as_it_is_asked():
    """Or a session would not know it again, and repeat nothing."""
    with RestClient("http://bücher.example:8501/") as client:
        assert client.address == "http://xn--bcher-kva.example:8501"


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_refused(protocol, batch_size):
    with pytest.raises(ValueError, match=rf"^batch_size: got {batch_size}, expected 1 or more\.$"):
        protocol.client_class("http://localhost:8501", batch_size=batch_size)


@pytest.mark.parametrize("name", ["model_name", "label"])
def test_a_name_that_is_no_text_is_refused(protocol, name):
    with pytest.raises(ValueError, match=rf"^{name}: got '\\udcff', expected UTF-8\.$"):
        protocol.client_class("http://localhost:8501", **{name: "\udcff"})


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, 1e10])
def test_a_timeout_of_no_time_or_without_end_is_refused(protocol, seconds):
    fault = rf"^timeout_seconds: got {re.escape(str(seconds))}, expected more than 0, and 1,000,000"
    with pytest.raises(ValueError, match=fault):
        protocol.client_class("http://localhost:8501", timeout_seconds=seconds)


def test_token_and_label_come_with_each_request_and_before_a_password_of_netrc(
    serve, open_client, tmp_path, monkeypatch
):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server = serve(has_metadata, classifies)
    client = open_client(server, token="t0ken", label="x:y", model_name="a/b c")
    client.metadata()
    client.predict([png()])
    assert "t0ken" not in repr(client)
    assert {asked.token for asked in server.asked} == {"Bearer t0ken"}
    assert [asked[:3] for asked in server.asked] == [("a/b c", None, "x:y")] * 2


def test_without_a_token_none_is_sent(serve, open_client):
    server = serve(has_metadata)
    open_client(server).metadata()
    assert server.asked[0].token is None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1, signed by itself; its key is beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=peer -out {path}"
    options = f"-keyout {path.with_name('key.pem')} -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(f"{command} {options}".split(), check=True, capture_output=True)
    return path


def test_a_private_authority_vouches_for_the_server(serve, open_client, certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    server = serve(classifies, certificate=certificate)
    client = open_client(server, ca_certificate=certificate, token="t0ken")
    assert client.predict([png(1003)])[0].label == CLASS_NAMES[3]
    assert server.asked[0].token == "Bearer t0ken"


# Waiting


def test_waiting_outlasts_a_server_that_is_loading(serve, open_client):
    server = serve(BUSY, NOT_LOADED, has_metadata)
    open_client(server).wait_until_available(300)
    assert len(server.asked) == 3


def test_waiting_ends_in_time(serve, open_client, monkeypatch):
    """After pauses of 0.5 and 1 s, and before one of 2 s: at most 3 requests."""
    monkeypatch.setattr(server_client, "_FIRST_POLL_SECONDS", 0.5)
    monkeypatch.setattr(server_client, "_LONGEST_POLL_SECONDS", 9)
    server = serve(BUSY)
    with pytest.raises(ServerTimeoutError) as caught:
        open_client(server).wait_until_available(3.4)
    reason = server.said(BUSY(None))
    assert str(caught.value) == (
        f"{server.address}: no answer in time (waited 3.4 s; at the end: cannot be asked now: "
        f"{reason}). Look at the server's log, or give it longer."
    )
    assert 1 < len(server.asked) <= 3


@pytest.mark.parametrize(
    ("kind", "behaviour", "error"),
    [
        (Rest, says(Code.UNAUTHENTICATED, "no"), AccessDeniedError),
        (Rest, sends(400, b"<html>"), BadResponseError),
        (Rest, sends(200, b"<html>"), BadResponseError),
        (Grpc, says(Code.UNAUTHENTICATED, "no"), AccessDeniedError),
    ],
)
def test_waiting_ends_at_once_where_it_would_not_help(start, open_client, kind, behaviour, error):
    server = start(kind, behaviour)
    with pytest.raises(error):
        open_client(server).wait_until_available(20)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("kind", "scheme", "said", "reason"),
    [
        (Rest, "http://", b"\0\0\x18\x04 what gRPC begins with", r"no HTTP"),
        (Grpc, "", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", r"UNAVAILABLE: .+"),
    ],
)
def test_a_port_that_speaks_something_else_is_named_at_once(kind, scheme, said, reason):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(said)

        peer = threading.Thread(target=answer)
        peer.start()
        address = f"{scheme}127.0.0.1:{listener.getsockname()[1]}"
        with kind.client_class(address) as client, pytest.raises(BadResponseError) as caught:
            client.wait_until_available(20)
        peer.join()
    beginning = re.escape(f"{address}: does not answer as TensorFlow Serving does (")
    assert re.fullmatch(rf"{beginning}{reason}\)\. {re.escape(BAD_ADDRESS)}", str(caught.value))


@pytest.mark.parametrize("seconds", [-1, math.nan])
def test_waiting_for_no_time_at_all_is_refused(serve, open_client, seconds):
    with pytest.raises(ValueError, match=r"^seconds: got .*, expected 0 or more\.$"):
        open_client(serve(BUSY)).wait_until_available(seconds)


# What REST alone has: HTTP's connections, proxies, redirects and URLs


def test_all_requests_go_over_one_connection(start, open_client):
    server = start(Rest, classifies)
    open_client(server, batch_size=1).predict([png()] * 3)
    assert (len(server.asked), server.connections) == (3, 1)


def test_a_proxy_that_finds_requests_too_large_gets_smaller_ones(start, open_client):
    def limited(asked):
        if len(asked.images) > 8:
            return sends(413, b"<h1>Too Large</h1>")(asked)
        return classifies(asked)

    found = open_client(start(Rest, limited)).predict([png()] * 32)
    assert all(isinstance(answer, Answer) for answer in found)


def test_an_image_too_large_for_the_server_is_not_called_damaged(start, open_client):
    server = start(Rest, sends(413, {"error": "the body has over 9 bytes; no more are read"}))
    assert open_client(server).predict([png()]) == [
        Refusal(
            f"{server.address}: the input is refused (413: the body has over 9 bytes; no more are "
            "read). Make the image smaller, or send fewer at a time."
        )
    ]


def test_retry_after_is_heeded_within_reason(start, open_client, monkeypatch):
    started = time.monotonic()
    server = start(Rest, sends(503, {}, [("Retry-After", "1")]), classifies)
    open_client(server).predict([png()])
    assert time.monotonic() - started >= 1
    monkeypatch.setattr(rest_client, "LONGEST_WAIT_SECONDS", 0.1)
    started = time.monotonic()
    server = start(Rest, sends(503, {}, [("Retry-After", "3600")]), classifies)
    open_client(server).predict([png()])
    assert time.monotonic() - started < 1800


def test_a_server_that_comes_a_little_later_is_found(start, monkeypatch, nobody):
    """Refused connections are tried again: at once, then after pauses; it comes in the first."""
    pause = rest_client._Retry.sleep

    def come(retry, response=None):
        if retry.get_backoff_time():
            nobody.close()
            start(Rest, classifies, port=port)
        pause(retry, response)

    monkeypatch.setattr(rest_client._Retry, "sleep", come)
    port = nobody.getsockname()[1]
    with RestClient(f"http://127.0.0.1:{port}") as client:
        assert client.predict([png(1001)])[0].label == CLASS_NAMES[1]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b'{"predictions": [', r"IncompleteRead\(17 bytes read, 983 more expected\)"),
        (None, "Remote end closed connection without response"),
    ],
)
def test_an_answer_that_breaks_off_is_an_error_and_not_asked_for_again(
    start, open_client, sent, reason
):
    def breaks_off(handler):
        if sent:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(sent)
        handler.close_connection = True

    server = start(Rest, gives(breaks_off))
    with pytest.raises(ServerUnavailableError, match=rf"cannot be asked now \({reason}\)\. "):
        open_client(server).predict([png()])
    assert len(server.asked) == 1


@pytest.mark.parametrize("document", [{}, {"model_version_status": 1}, {"metadata_": {}}])
def test_status_and_metadata_that_are_none_are_named(start, open_client, document):
    client = open_client(start(Rest, sends(200, document)))
    with pytest.raises(BadResponseError, match=r"Serving does \(its status is \{"):
        client.status()
    with pytest.raises(BadResponseError, match=r"Serving does \(its metadata are \{"):
        client.metadata()


@pytest.mark.parametrize("path", ["", "/", "/models", "/a/b/"])
def test_a_server_may_be_anywhere_below_a_url(start, path):
    server = start(Rest, classifies)
    with RestClient(server.address + path, version=3) as client:
        client.predict([png()])
    assert server.paths == [f"{path.rstrip('/')}/v1/models/cifar10/versions/3:predict"]


def test_names_and_labels_are_escaped(start, open_client):
    server = start(Rest, has_metadata)
    open_client(server, model_name="a/b c", label="x:y").metadata()
    assert server.paths == ["/v1/models/a%2Fb%20c/labels/x%3Ay/metadata"]


def test_a_password_in_the_url_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match=r"^address: got one with a user name, exp") as caught:
        RestClient("http://me:secret@localhost:8501")
    assert "secret" not in str(caught.value)


def test_a_redirect_is_not_followed_and_gets_no_token(start, open_client):
    other = start(Rest, classifies)
    location = ("Location", f"{other.address}/v1/models/cifar10:predict")
    server = start(Rest, sends(307, b"", [location]))
    with pytest.raises(BadResponseError, match=rf"307: redirects to {other.address}/v1/"):
        open_client(server, token="t0ken").predict([png()])
    assert other.asked == []


def test_a_server_that_cannot_be_trusted_gets_no_images_and_is_not_waited_for(
    start, open_client, certificate
):
    server = start(Rest, classifies, certificate=certificate)
    client = open_client(server)
    for ask in (lambda: client.predict([png()]), lambda: client.wait_until_available(20)):
        with pytest.raises(UntrustedServerError) as caught:
            ask()
        message = str(caught.value)
        assert message.startswith(
            f"{server.address}: no trusted connection ([SSL: CERTIFICATE_VERIFY_FAILED] "
        )
        assert message.endswith(
            "). Check that the server speaks TLS, and name its authority: --ca-certificate FILE."
        )
    assert (server.asked, server.connections) == ([], 2)


def test_a_certificate_without_https_is_refused(certificate):
    with pytest.raises(ValueError, match=r"^ca_certificate: got .*, expected none without https"):
        RestClient("http://localhost:8501", ca_certificate=certificate)


# What gRPC alone has: messages with limits, fields of two kinds


def test_messages_may_be_larger_than_grpcs_own_limit(start, open_client):
    """6 MiB; without an option of the client, an answer of 4 MiB would be too much."""
    padded = partial(response, [row(6 << 20)], padding=b"x" * (6 << 20))
    server = start(Grpc, gives(padded))
    assert open_client(server).predict([png(6 << 20)])[0].label == CLASS_NAMES[(6 << 20) % 10]


def test_a_server_that_takes_small_messages_only_gets_smaller_ones(start, open_client):
    server = start(Grpc, classifies, max_bytes=10_000)
    found = open_client(server).predict([png(1001)] * 32)
    assert {answer.label for answer in found} == {CLASS_NAMES[1]}


def test_typed_fields_are_read_as_well_as_packed_ones(start, open_client):
    server = start(Grpc, gives(partial(typed, row(6), images=1)))
    assert open_client(server).predict([png()])[0].label == CLASS_NAMES[6]


def test_a_server_without_tls_is_not_trusted_nor_waited_for(start, open_client, certificate):
    server = start(Grpc, classifies)
    with pytest.raises(UntrustedServerError) as caught:
        open_client(server, ca_certificate=certificate).wait_until_available(20)
    assert str(caught.value).startswith(f"{server.address}: no trusted connection (UNAVAILABLE: ")
    assert str(caught.value).endswith("name its authority: --ca-certificate FILE.")
    assert server.asked == []
