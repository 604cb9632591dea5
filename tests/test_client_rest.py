"""The REST client, against servers that throttle, lie, redirect and hang up."""

import base64
import http.client
import http.server
import io
import itertools
import json
import math
import shutil
import socket
import ssl
import subprocess
import threading
import time
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.client import (
    AccessDeniedError,
    Answer,
    BadResponseError,
    ModelNotFoundError,
    Refusal,
    RestClient,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
    UntrustedServerError,
)

UNAVAILABLE = "Check that the server runs there, or wait for it: --wait SECONDS."
BAD_ADDRESS = "Check the address; REST is usually on port 8501, gRPC on 8500."
SPOILS_THE_BATCH = 3000


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def png(image=None, *, size=None):
    """A whole PNG; bytes after its end, which decoders skip, make it as large as `size`."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8) if image is None else image).save(file, "PNG")
    return file.getvalue().ljust(size or 0, b"\0")


def row(number):
    """Probabilities whose most probable class is `number` modulo 10."""
    return [0.91 if index == number % 10 else 0.01 for index in range(10)]


# A REST server that does as it is told


class Request(NamedTuple):
    path: str
    headers: http.client.HTTPMessage
    body: bytes

    def images(self):
        """The encoded images, or arrays of pixels, that are asked about."""
        instances = json.loads(self.body)["instances"]
        if isinstance(instances[0], dict):
            return [base64.b64decode(instance["b64"], validate=True) for instance in instances]
        return instances


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each request with the next behaviour of the server's list."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections += 1

    def answer(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.request_seen = Request(self.path, self.headers, body)
        self.server.requests.append(self.request_seen)
        next(self.server.behaviours)(self)

    do_GET = do_POST = answer

    def reply(self, status, content, kind="application/json", headers=()):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *ignored):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *ignored):
        """Clients that hang up are what some tests are about."""


@pytest.fixture
def serve():
    """Gives a function that starts a server with a list of behaviours; the last one stays."""
    servers = []

    def start(*behaviours, context=None):
        server = Server(("127.0.0.1", 0), Handler)
        server.behaviours = itertools.chain(behaviours, itertools.repeat(behaviours[-1]))
        server.requests, server.connections = [], 0
        server.url = f"http://127.0.0.1:{server.server_port}"
        if context:
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
            server.url = server.url.replace("http", "https")
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def says(status, document, headers=()):
    """A behaviour: answers with this JSON, or these bytes as HTML."""

    def behave(handler):
        if isinstance(document, bytes):
            handler.reply(status, document, "text/html", headers)
        else:
            handler.reply(status, json.dumps(document).encode(), headers=headers)

    return behave


def classifies(handler):
    """A behaviour: the class of an image is the number of its bytes modulo 10."""
    rows = [{"probabilities": row(len(image))} for image in handler.request_seen.images()]
    says(200, {"predictions": rows})(handler)


def classifies_but_for_some(handler):
    """A behaviour, TensorFlow Serving's: an image that cannot be read costs all their answers."""
    if any(len(image) == SPOILS_THE_BATCH for image in handler.request_seen.images()):
        return says(400, {"error": "Invalid PNG data\n\t [[{{node DecodePng}}]]"})(handler)
    return classifies(handler)


BUSY = says(503, {"error": "The batch scheduling queue is full"})
METADATA = says(200, {"model_spec": {"name": "cifar10"}, "metadata": {}})


# Requests


def test_many_images_become_several_requests_over_one_connection(serve):
    server = serve(classifies)
    images = [png(size=1000 + number) for number in range(70)]
    with RestClient(server.url) as client:
        answers = client.predict(images)
    assert [answer.label for answer in answers] == [CLASS_NAMES[i % 10] for i in range(70)]
    assert [len(request.images()) for request in server.requests] == [32, 32, 6]
    assert {request.path for request in server.requests} == {"/v1/models/cifar10:predict"}
    assert server.connections == 1


def test_the_number_of_images_in_a_request_can_be_chosen(serve, sample):
    server = serve(says(200, {"predictions": [{"probabilities": row(3)}] * 5}))
    with RestClient(server.url, batch_size=5) as client:
        answers = client.predict_pixels(sample.images[:10])
    assert {answer.label for answer in answers} == {CLASS_NAMES[3]}
    assert [len(request.images()) for request in server.requests] == [5, 5]
    assert server.requests[1].images() == sample.images[5:10].tolist()
    assert json.loads(server.requests[0].body)["signature_name"] == "serving_default"


def test_requests_of_large_images_stay_near_8_mib(serve):
    server = serve(classifies)
    sizes = [3 << 20, 3 << 20, 3 << 20, 9 << 20, 100, 100]
    with RestClient(server.url) as client:
        assert len(client.predict([png(size=size) for size in sizes])) == 6
    counts = [len(request.images()) for request in server.requests]
    assert counts == [2, 1, 1, 2]


def test_images_whose_header_is_wrong_never_leave_this_machine(serve):
    server = serve(classifies)
    with RestClient(server.url) as client:
        empty, answer = client.predict([b"", png(size=1004)])
    assert empty == Refusal("the file is empty")
    assert answer.label == CLASS_NAMES[4]
    assert len(server.requests[0].images()) == 1


def test_a_refused_request_is_halved_until_the_bad_image_is_alone(serve):
    server = serve(classifies_but_for_some)
    sizes = [1000, 1001, SPOILS_THE_BATCH, 1003, 1004, 1005, 1006, 1007]
    with RestClient(server.url) as client:
        found = client.predict([png(size=size) for size in sizes])
    refusal = found.pop(2)
    assert [answer.label for answer in found] == [CLASS_NAMES[i] for i in (0, 1, 3, 4, 5, 6, 7)]
    assert refusal == Refusal(
        f"{server.url}: the input is refused (400: Invalid PNG data). "
        "Check that the image opens elsewhere, or save it anew as PNG."
    )
    assert [len(request.images()) for request in server.requests] == [8, 4, 2, 2, 1, 1, 4]


def test_a_proxy_that_finds_requests_too_large_gets_smaller_ones(serve):
    def limited(handler):
        too_large = len(handler.request_seen.images()) > 8
        (says(413, b"<h1>Too Large</h1>") if too_large else classifies)(handler)

    server = serve(limited)
    with RestClient(server.url) as client:
        assert all(isinstance(answer, Answer) for answer in client.predict([png()] * 32))


def test_a_busy_server_is_asked_again(serve):
    server = serve(BUSY, BUSY, classifies)
    with RestClient(server.url) as client:
        assert client.predict([png(size=1002)])[0].label == CLASS_NAMES[2]
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_asked_four_times(serve):
    server = serve(BUSY)
    with RestClient(server.url) as client, pytest.raises(ServerUnavailableError) as caught:
        client.predict([png()])
    assert str(caught.value) == (
        f"{server.url}: cannot be asked now (503: The batch scheduling queue is full). "
        f"{UNAVAILABLE}"
    )
    assert len(server.requests) == 4


def test_retry_after_is_heeded_within_reason(serve, monkeypatch):
    server = serve(says(503, {}, [("Retry-After", "1")]), classifies)
    started = time.monotonic()
    with RestClient(server.url) as client:
        client.predict([png()])
    assert time.monotonic() - started >= 1
    monkeypatch.setattr("keras_cifar.client.http.LONGEST_WAIT_SECONDS", 0.1)
    server = serve(says(503, {}, [("Retry-After", "3600")]), classifies)
    started = time.monotonic()
    with RestClient(server.url) as client:
        client.predict([png()])
    assert time.monotonic() - started < 5


def test_a_server_that_is_not_there_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with RestClient(f"http://127.0.0.1:{port}") as client:
        for ask in (client.status, lambda: client.predict([png()])):
            with pytest.raises(ServerUnavailableError) as caught:
                ask()
            assert str(caught.value) == (
                f"http://127.0.0.1:{port}: cannot be asked now (Connection refused). {UNAVAILABLE}"
            )


def test_a_server_that_comes_within_a_second_is_found(serve):
    """Connections that are refused are tried again, at first at once, then after 0.2 and 0.4 s."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    late = Server(("127.0.0.1", port), Handler, bind_and_activate=False)
    late.behaviours, late.requests, late.connections = itertools.repeat(classifies), [], 0

    def start():
        late.server_bind()
        late.server_activate()
        late.serve_forever(0.01)

    timer = threading.Timer(0.3, start)
    timer.start()
    try:
        with RestClient(f"http://127.0.0.1:{port}") as client:
            assert client.predict([png(size=1001)])[0].label == CLASS_NAMES[1]
    finally:
        timer.join(0.5)
        late.shutdown()
        late.server_close()


def test_a_server_that_never_answers_is_left_and_not_asked_twice(serve):
    leave = threading.Event()
    server = serve(lambda handler: leave.wait(20))
    try:
        with RestClient(server.url, timeout_seconds=0.3) as client:
            for ask in (client.metadata, lambda: client.predict([png()])):
                with pytest.raises(ServerTimeoutError) as caught:
                    ask()
                assert str(caught.value) == (
                    f"{server.url}: no answer in time (nothing for 0.3 s). "
                    "Look at the server's log, or give it longer."
                )
    finally:
        leave.set()
    assert len(server.requests) == 2


def test_an_answer_that_breaks_off_is_an_error_and_not_asked_for_again(serve):
    def breaks_off(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"predictions": [')
        handler.close_connection = True

    def hangs_up(handler):
        handler.close_connection = True

    for behaviour, reason in (
        (breaks_off, r"IncompleteRead\(17 bytes read, 983 more expected\)"),
        (hangs_up, "Remote end closed connection without response"),
    ):
        server = serve(behaviour)
        with (
            RestClient(server.url) as client,
            pytest.raises(ServerUnavailableError, match=rf"cannot be asked now \({reason}\)\. "),
        ):
            client.predict([png()])
        assert len(server.requests) == 1


# Answers


def test_a_port_that_speaks_something_else_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\0\0\x18\x04 what gRPC begins with")

        peer = threading.Thread(target=answer)
        peer.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with RestClient(url) as client, pytest.raises(BadResponseError) as caught:
            client.wait_until_available(20)
        peer.join()
    assert str(caught.value) == (
        f"{url}: does not answer as TensorFlow Serving does (no HTTP). {BAD_ADDRESS}"
    )


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (says(200, b"<html>Welcome"), "no JSON object, but '<html>Welcome'"),
        (says(200, [1]), "no JSON object, but '[1]'"),
        (says(200, b"[" * 100_000), "no JSON object, but '[["),
        (says(200, {"outputs": []}), "10 probabilities for each image expected, got {'outputs': "),
        (says(200, {"predictions": [row(0)]}), "10 probabilities for each image expected, got"),
        (says(200, {"predictions": []}), "probabilities of shape (0,) for 1 images"),
        (
            says(200, {"predictions": [{"probabilities": row(0)}] * 2}),
            "probabilities of shape (2, 10) for 1 images",
        ),
        (
            says(200, {"predictions": [{"probabilities": row(0)[:9]}]}),
            "probabilities of shape (1, 9) for 1 images",
        ),
        (
            says(200, {"predictions": [{"probabilities": ["0.1"] * 10}]}),
            "10 probabilities for each image expected, got {'predictions': [{'probabilities': ['",
        ),
        (says(200, {"predictions": [{"probabilities": [10**400] * 10}]}), "10 probabilities for"),
        (says(302, b"", [("Location", "http://evil/")]), "302: redirects to http://evil/, which"),
        (says(400, b"<html>Bad Request"), "400: Bad Request"),
        (says(405, b"<html>No"), "405: Method Not Allowed"),
    ],
)
def test_an_answer_that_is_not_tensorflow_servings_is_named(serve, behaviour, reason):
    server = serve(behaviour)
    with RestClient(server.url) as client, pytest.raises(BadResponseError) as caught:
        client.predict([png()])
    message = str(caught.value)
    assert message.startswith(f"{server.url}: does not answer as TensorFlow Serving does ({reason}")
    assert message.endswith(f"). {BAD_ADDRESS}")
    assert message.isprintable()
    assert len(server.requests) == 1


@pytest.mark.parametrize("document", [{}, {"model_version_status": 1}, {"metadata_": {}}])
def test_status_and_metadata_that_are_none_are_named(serve, document):
    with RestClient(serve(says(200, document)).url) as client:
        with pytest.raises(BadResponseError, match=r"Serving does \(its status is \{"):
            client.status()
        with pytest.raises(BadResponseError, match=r"Serving does \(its metadata are \{"):
            client.metadata()


def test_numbers_that_are_not_finite_come_from_a_model_that_diverged(serve):
    server = serve(says(200, {"predictions": [{"probabilities": [math.nan] * 10}]}))
    with RestClient(server.url) as client, pytest.raises(FloatingPointError) as caught:
        client.predict([png()])
    assert str(caught.value) == (
        f"{server.url}: the model gives numbers that are not finite. Its training diverged; "
        "export another run's."
    )


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, AccessDeniedError, "access is denied (401: Unauthorized). Give the token that the"),
        (403, AccessDeniedError, "access is denied (403: Forbidden). Give the token that the"),
        (
            404,
            ModelNotFoundError,
            "the model cannot be asked (cifar10, 404: Not Found). Check --mo",
        ),
        (429, ServerUnavailableError, "cannot be asked now (429: Too Many Requests)."),
        (500, ServerError, "the server fails (500: Internal Server Error). Look at its log."),
        (504, ServerTimeoutError, "no answer in time (504: Gateway Timeout). Look at the"),
    ],
)
def test_each_status_has_its_error(serve, status, kind, message):
    server = serve(says(status, b"<html>"))
    with RestClient(server.url) as client, pytest.raises(ServerError) as caught:
        client.predict([png()])
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{server.url}: {message}")


def test_a_missing_signature_is_the_models_fault_and_not_each_images(serve):
    error = 'Serving signature name: "image_bytes" not found in signature def'
    server = serve(says(400, {"error": error}))
    with RestClient(server.url) as client, pytest.raises(ModelNotFoundError, match="image_bytes"):
        client.predict([png()] * 10)
    assert len(server.requests) == 1


def test_what_a_server_says_cannot_play_tricks_on_the_terminal(serve):
    server = serve(says(500, {"error": "a\x1b[2J\r\nb\u202e" + "x" * 1000}))
    with RestClient(server.url) as client, pytest.raises(ServerError) as caught:
        client.status()
    assert str(caught.value) == (
        f"{server.url}: the server fails (500: a [2J b {'x' * 187}...). Look at its log."
    )


# Addresses, tokens and TLS


@pytest.mark.parametrize("path", ["", "/", "/models", "/a/b/"])
def test_a_server_may_be_anywhere_below_a_url(serve, path):
    server = serve(classifies)
    with RestClient(server.url + path, version=3) as client:
        client.predict([png()])
    (request,) = server.requests
    assert request.path == f"{path.rstrip('/')}/v1/models/cifar10/versions/3:predict"


def test_names_and_labels_are_escaped(serve):
    server = serve(METADATA)
    with RestClient(server.url, model_name="a/b c", label="x:y") as client:
        client.metadata()
    assert server.requests[0].path == "/v1/models/a%2Fb%20c/labels/x%3Ay/metadata"


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8501",
        "localhost",
        "",
        "ftp://localhost",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://[::1",
        "http://a b",
        "http://host/?x=1",
        "http://host/v1/models/cifar10:predict",
    ],
)
def test_an_address_that_is_no_url_of_a_server_is_refused(url):
    with pytest.raises(ValueError, match=r"^address: got .*, expected http://HOST:PORT or https:"):
        RestClient(url)


def test_a_password_in_the_url_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match=r"^address: got one with a user name, exp") as caught:
        RestClient("http://me:secret@localhost:8501")
    assert "secret" not in str(caught.value)


def test_the_token_comes_with_each_request_and_before_a_password_of_netrc(
    serve, tmp_path, monkeypatch
):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    server = serve(METADATA, classifies)
    with RestClient(server.url, token="t0ken") as client:
        client.metadata()
        client.predict([png()])
        assert "t0ken" not in repr(client)
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer t0ken"] * 2


def test_a_redirect_is_not_followed_and_gets_no_token(serve):
    other = serve(classifies)
    server = serve(says(307, b"", [("Location", f"{other.url}/v1/models/cifar10:predict")]))
    with (
        RestClient(server.url, token="t0ken") as client,
        pytest.raises(BadResponseError, match=rf"307: redirects to {other.url}/v1/"),
    ):
        client.predict([png()])
    assert other.requests == []


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


@pytest.fixture
def tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context


def test_a_private_authority_vouches_for_the_server(serve, tls, certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    server = serve(classifies, context=tls)
    with RestClient(server.url, ca_certificate=certificate) as client:
        assert client.predict([png(size=1003)])[0].label == CLASS_NAMES[3]


def test_a_server_that_cannot_be_trusted_gets_no_images_and_is_not_waited_for(serve, tls):
    server = serve(classifies, context=tls)
    with RestClient(server.url) as client:
        for ask in (lambda: client.predict([png()]), lambda: client.wait_until_available(20)):
            started = time.monotonic()
            with pytest.raises(UntrustedServerError) as caught:
                ask()
            assert time.monotonic() - started < 5
            message = str(caught.value)
            assert message.startswith(
                f"{server.url}: no trusted connection ([SSL: CERTIFICATE_VERIFY_FAILED] "
            )
            assert message.endswith(
                "). Check that the server speaks TLS, and name its authority: "
                "--ca-certificate FILE."
            )
    assert server.requests == []


def test_a_certificate_without_https_is_refused(certificate):
    with pytest.raises(ValueError, match=r"^ca_certificate: got .*, expected none without https"):
        RestClient("http://localhost:8501", ca_certificate=certificate)


# Waiting


def test_waiting_outlasts_a_server_that_is_loading(serve):
    server = serve(BUSY, says(404, {"error": "Servable not found for request"}), METADATA)
    with RestClient(server.url) as client:
        client.wait_until_available(10)
    assert [request.path for request in server.requests] == ["/v1/models/cifar10/metadata"] * 3


def test_waiting_ends_in_time(serve):
    server = serve(BUSY)
    started = time.monotonic()
    with RestClient(server.url) as client, pytest.raises(ServerTimeoutError) as caught:
        client.wait_until_available(0.3)
    assert time.monotonic() - started < 1
    assert str(caught.value) == (
        f"{server.url}: no answer in time (waited 0.3 s; at the end: cannot be asked now: 503: "
        "The batch scheduling queue is full). Look at the server's log, or give it longer."
    )
    assert len(server.requests) > 1


def test_waiting_does_not_hang_on_a_server_that_never_answers(serve):
    leave = threading.Event()
    server = serve(lambda handler: leave.wait(20))
    started = time.monotonic()
    try:
        with RestClient(server.url) as client, pytest.raises(ServerTimeoutError):
            client.wait_until_available(0.3)
    finally:
        leave.set()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (says(401, {"error": "no"}), AccessDeniedError),
        (says(400, b"<html>"), BadResponseError),
        (says(200, b"<html>"), BadResponseError),
    ],
)
def test_waiting_ends_at_once_where_it_would_not_help(serve, behaviour, kind):
    server = serve(behaviour)
    with RestClient(server.url) as client, pytest.raises(kind):
        client.wait_until_available(20)
    assert len(server.requests) == 1


@pytest.mark.parametrize("seconds", [-1, math.nan])
def test_waiting_for_no_time_at_all_is_refused(seconds):
    with pytest.raises(ValueError, match=r"^seconds: got .*, expected 0 or more\.$"):
        RestClient("http://localhost:8501").wait_until_available(seconds)
