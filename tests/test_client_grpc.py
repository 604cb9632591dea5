"""The gRPC client, against servers that throttle, lie and hang up."""

import io
import itertools
import shutil
import socket
import subprocess
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.client import (
    AccessDeniedError,
    BadResponseError,
    GrpcClient,
    InvalidInputError,
    ModelNotFoundError,
    Refusal,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
    UntrustedServerError,
)

UNAVAILABLE = "Check that the server runs there, or wait for it: --wait SECONDS."
BAD_ADDRESS = "Check the address; REST is usually on port 8501, gRPC on 8500."
Code = grpc.StatusCode


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


# A gRPC server that does as it is told


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, *behaviours):
        self.behaviours = itertools.chain(behaviours, itertools.repeat(behaviours[-1]))
        self.requests, self.metadata = [], []

    def answer(self, request, context):
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        return next(self.behaviours)(request, context)

    Predict = GetModelMetadata = answer


@pytest.fixture
def serve():
    """Gives a function that starts a server with a list of behaviours; the last one stays."""
    servers = []

    def start(*behaviours, credentials=None, options=()):
        server = grpc.server(futures.ThreadPoolExecutor(2), options=options)
        predictions = Predictions(*behaviours)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(predictions, server)
        if credentials:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        else:
            port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        predictions.address = f"127.0.0.1:{port}"
        return predictions

    yield start
    for server in servers:
        server.stop(None).wait()


def aborts(code, details):
    return lambda request, context: context.abort(code, details)


def answers(probabilities):
    """A behaviour: gives this tensor, in the typed fields that TensorFlow Serving fills."""

    def behave(request, context):
        response = predict_pb2.PredictResponse()
        tensor = tf.make_tensor_proto(np.array(probabilities(request)))
        response.outputs["probabilities"].CopyFrom(tensor)
        return response

    return behave


def images_of(request):
    (tensor,) = request.inputs.values()
    return tf.make_ndarray(tensor)


classifies = answers(lambda request: [row(len(image)) for image in images_of(request)])


def has_metadata(request, context):
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = request.model_spec.name
    response.metadata["signature_def"].Pack(get_model_metadata_pb2.SignatureDefMap())
    return response


BUSY = aborts(Code.UNAVAILABLE, "The batch scheduling queue is full")


# Requests


def test_many_images_become_several_requests(serve):
    server = serve(classifies)
    images = [png(size=1000 + number) for number in range(70)]
    with GrpcClient(server.address) as client:
        answers = client.predict(images)
    assert [answer.label for answer in answers] == [CLASS_NAMES[i % 10] for i in range(70)]
    assert [len(images_of(request)) for request in server.requests] == [32, 32, 6]


def test_messages_may_be_larger_than_grpcs_own_limit(serve):
    """6 MiB; without an option of the client, an answer of 4 MiB would be too much."""

    def padded(request, context):
        response = classifies(request, context)
        response.outputs["padding"].CopyFrom(tf.make_tensor_proto(b"x" * (6 << 20)))
        return response

    server = serve(padded, options=[("grpc.max_receive_message_length", -1)])
    with GrpcClient(server.address) as client:
        assert client.predict([png(size=6 << 20)])[0].label == CLASS_NAMES[(6 << 20) % 10]


def test_pixels_are_sent_as_they_are(serve, sample):
    server = serve(answers(lambda request: [row(5)] * len(images_of(request))))
    with GrpcClient(server.address, version=7, model_name="other") as client:
        assert client.predict_pixels(sample.images[:3])[2].label == CLASS_NAMES[5]
    (request,) = server.requests
    np.testing.assert_array_equal(images_of(request), sample.images[:3])
    assert (request.model_spec.name, request.model_spec.version.value) == ("other", 7)
    assert request.model_spec.signature_name == "serving_default"


def test_the_token_and_the_label_come_with_each_request(serve):
    server = serve(has_metadata, classifies)
    with GrpcClient(server.address, token="t0ken", label="stable") as client:
        client.metadata()
        client.predict([png()])
    assert [metadata["authorization"] for metadata in server.metadata] == ["Bearer t0ken"] * 2
    assert {request.model_spec.version_label for request in server.requests} == {"stable"}


def test_without_a_token_none_is_sent(serve):
    server = serve(has_metadata)
    with GrpcClient(server.address) as client:
        client.metadata()
    assert "authorization" not in server.metadata[0]


def test_a_busy_server_is_asked_again(serve):
    server = serve(BUSY, BUSY, classifies)
    with GrpcClient(server.address) as client:
        assert client.predict([png(size=1002)])[0].label == CLASS_NAMES[2]
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_asked_four_times(serve):
    server = serve(BUSY)
    with GrpcClient(server.address) as client, pytest.raises(ServerUnavailableError) as caught:
        client.predict([png()])
    assert str(caught.value) == (
        f"{server.address}: cannot be asked now (UNAVAILABLE: The batch scheduling queue is full). "
        f"{UNAVAILABLE}"
    )
    assert len(server.requests) == 4


def test_a_refused_request_is_halved_until_the_bad_image_is_alone(serve):
    def classifies_but_for_some(request, context):
        if any(len(image) == 3000 for image in images_of(request)):
            context.abort(Code.INVALID_ARGUMENT, "Invalid PNG data")
        return classifies(request, context)

    server = serve(classifies_but_for_some)
    with GrpcClient(server.address) as client:
        first, refusal, last = client.predict([png(size=size) for size in (1001, 3000, 1003)])
    assert (first.label, last.label) == (CLASS_NAMES[1], CLASS_NAMES[3])
    assert refusal == Refusal(
        f"{server.address}: the input is refused (INVALID_ARGUMENT: Invalid PNG data). "
        "Check that the image opens elsewhere, or save it anew as PNG."
    )


def test_a_server_that_takes_small_messages_only_gets_smaller_ones(serve):
    server = serve(classifies, options=[("grpc.max_receive_message_length", 10_000)])
    with GrpcClient(server.address) as client:
        found = client.predict([png(size=1001)] * 32)
    assert {answer.label for answer in found} == {CLASS_NAMES[1]}


def test_a_server_that_never_answers_is_left(serve):
    leave = threading.Event()
    server = serve(lambda request, context: leave.wait(20))
    try:
        with GrpcClient(server.address, timeout_seconds=0.3) as client:
            with pytest.raises(ServerTimeoutError) as caught:
                client.predict([png()])
            assert str(caught.value) == (
                f"{server.address}: no answer in time (DEADLINE_EXCEEDED: Deadline Exceeded). "
                "Look at the server's log, or give it longer."
            )
            with pytest.raises(ServerTimeoutError, match=r"\(waited 0\.2 s; at the end: no answer"):
                client.wait_until_available(0.2)
    finally:
        leave.set()


def test_a_server_that_is_not_there_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with GrpcClient(address) as client, pytest.raises(ServerUnavailableError) as caught:
        client.predict([png()])
    assert str(caught.value) == (
        f"{address}: cannot be asked now (UNAVAILABLE: Failed to connect to remote host: "
        f"Connection refused). {UNAVAILABLE}"
    )


# Answers


@pytest.mark.parametrize(
    ("code", "kind", "fault"),
    [
        (Code.UNAUTHENTICATED, AccessDeniedError, "access is denied"),
        (Code.PERMISSION_DENIED, AccessDeniedError, "access is denied"),
        (Code.NOT_FOUND, ModelNotFoundError, "the model cannot be asked"),
        (Code.RESOURCE_EXHAUSTED, ServerUnavailableError, "cannot be asked now"),
        (Code.UNIMPLEMENTED, BadResponseError, "does not answer as TensorFlow Serving does"),
        (Code.INTERNAL, ServerError, "the server fails"),
    ],
)
def test_each_code_has_its_error(serve, code, kind, fault):
    server = serve(aborts(code, "because"))
    with GrpcClient(server.address) as client, pytest.raises(ServerError) as caught:
        client.predict([png()])
    assert type(caught.value) is kind
    name = "cifar10, " if kind is ModelNotFoundError else ""
    assert str(caught.value) == (
        f"{server.address}: {fault} ({name}{code.name}: because). {kind.remedy}"
    )
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (Code.INVALID_ARGUMENT, "Unrecognized servable version label: x"),
        (Code.FAILED_PRECONDITION, 'Serving signature key "image_bytes" not found.'),
        (Code.INVALID_ARGUMENT, "input size does not match signature: 1!=2"),
    ],
)
def test_what_the_model_lacks_is_not_each_images_fault(serve, code, details):
    server = serve(aborts(code, details))
    with GrpcClient(server.address) as client, pytest.raises(ModelNotFoundError):
        client.predict([png()] * 10)
    assert len(server.requests) == 1


def test_pixels_that_the_model_refuses_are_an_error(serve, sample):
    server = serve(aborts(Code.INVALID_ARGUMENT, "wrong shape"))
    with (
        GrpcClient(server.address) as client,
        pytest.raises(InvalidInputError, match=r"the input is refused \(INVALID_ARGUMENT: wrong s"),
    ):
        client.predict_pixels(sample.images[:2])


def has_other_outputs(request, context):
    response = predict_pb2.PredictResponse()
    response.outputs["scores"].CopyFrom(tf.make_tensor_proto([row(1)]))
    return response


def claims_more_than_it_holds(request, context):
    response = answers(lambda request: [row(1)])(request, context)
    tensor = response.outputs["probabilities"]
    tensor.tensor_content = b""
    tensor.float_val.extend(row(1))
    tensor.tensor_shape.dim[0].size = 10**12
    return response


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (has_other_outputs, "no probabilities, but ['scores']"),
        (claims_more_than_it_holds, "probabilities of shape (1000000000000, 10) for 1 images"),
        (answers(lambda request: [row(0)] * 2), "probabilities of shape (2, 10) for 1 images"),
        (answers(lambda request: row(0)), "probabilities of shape (10,) for 1 images"),
        (answers(lambda request: [[b"x"] * 10]), "probabilities that are no numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_that_is_not_tensorflow_servings_is_named(serve, behaviour, reason):
    server = serve(behaviour)
    with GrpcClient(server.address) as client, pytest.raises(BadResponseError) as caught:
        client.predict([png()])
    assert str(caught.value) == (
        f"{server.address}: does not answer as TensorFlow Serving does ({reason}). {BAD_ADDRESS}"
    )


def test_numbers_that_are_not_finite_come_from_a_model_that_diverged(serve):
    server = serve(answers(lambda request: [[float("nan")] * 10]))
    with (
        GrpcClient(server.address) as client,
        pytest.raises(FloatingPointError, match="gives numbers that are not finite"),
    ):
        client.predict([png()])


def test_typed_fields_are_read_as_well_as_packed_ones(serve):
    def typed(request, context):
        response = answers(lambda request: np.zeros((1, 10), np.float32))(request, context)
        tensor = response.outputs["probabilities"]
        tensor.tensor_content = b""
        tensor.float_val.extend(row(6))
        return response

    server = serve(typed)
    with GrpcClient(server.address) as client:
        assert client.predict([png()])[0].label == CLASS_NAMES[6]


# Waiting, addresses, TLS


def test_waiting_outlasts_a_server_that_is_loading(serve):
    server = serve(BUSY, aborts(Code.NOT_FOUND, "Servable not found"), has_metadata)
    with GrpcClient(server.address) as client:
        client.wait_until_available(10)
    assert len(server.requests) == 3


def test_waiting_ends_at_once_where_it_would_not_help(serve):
    server = serve(aborts(Code.UNAUTHENTICATED, "no"))
    with GrpcClient(server.address) as client, pytest.raises(AccessDeniedError):
        client.wait_until_available(20)
    assert len(server.requests) == 1


def test_a_port_that_speaks_http_is_named_at_once():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        peer = threading.Thread(target=answer)
        peer.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with GrpcClient(address) as client, pytest.raises(BadResponseError) as caught:
            client.wait_until_available(20)
        peer.join()
    assert str(caught.value).startswith(f"{address}: does not answer as TensorFlow Serving does (")
    assert str(caught.value).endswith(f"). {BAD_ADDRESS}")


@pytest.mark.parametrize("address", ["localhost", "http://localhost:8500", "", "a b:1", "h:1/x"])
def test_an_address_without_port_or_with_more_is_refused(address):
    with pytest.raises(ValueError, match=r"^address: got '.*', expected HOST:PORT\.$"):
        GrpcClient(address)


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


def test_a_certificate_makes_the_connection_tls(serve, certificate):
    key = certificate.with_name("key.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([(key, certificate.read_bytes())])
    server = serve(classifies, credentials=credentials)
    with GrpcClient(server.address, ca_certificate=certificate, token="t0ken") as client:
        assert client.predict([png(size=1003)])[0].label == CLASS_NAMES[3]
    assert server.metadata[0]["authorization"] == "Bearer t0ken"


def test_a_server_without_tls_is_not_trusted_nor_waited_for(serve, certificate):
    server = serve(classifies)
    started = time.monotonic()
    with (
        GrpcClient(server.address, ca_certificate=certificate) as client,
        pytest.raises(UntrustedServerError) as caught,
    ):
        client.wait_until_available(20)
    assert time.monotonic() - started < 5
    assert str(caught.value).startswith(f"{server.address}: no trusted connection (UNAVAILABLE: ")
    assert str(caught.value).endswith("name its authority: --ca-certificate FILE.")
    assert server.requests == []
