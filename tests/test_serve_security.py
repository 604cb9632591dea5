"""Who gets in, what is encrypted, what is logged and what is counted."""

import http.client
import json
import re
import socket
import ssl
import subprocess
from urllib.parse import urlsplit

import grpc
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

TOKEN = "s3cret-t0ken"
BEARER = f"Bearer {TOKEN}"
METRICS = "/monitoring/prometheus/metrics"
PREDICT = "/v1/models/toy:predict"
BODY = json.dumps({"instances": [1.0, 2.0]})
REST_REFUSAL = {"error": "expected the header Authorization: Bearer TOKEN"}


@pytest.fixture(scope="module")
def toys(save_toy, tmp_path_factory):
    """A folder with version 1 of the toy, which adds 10 to what it is given."""
    folder = tmp_path_factory.mktemp("toys") / "toy"
    save_toy(folder / "1", answer=10, only=["serving_default"])
    return folder


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "certificate.pem", folder / "key.pem"
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-out", files[0], "-keyout", files[1]),
    )
    return files


@pytest.fixture(scope="module")
def guarded(serving, toys, certificate, tmp_path_factory):
    """A server with all there is to keep others out, and its access log."""
    folder = tmp_path_factory.mktemp("guarded")
    files = ("--ssl-certificate", certificate[0], "--ssl-key", certificate[1])
    logs = ("--access-log", folder / "access.log", "--grpc-socket", folder / "grpc.sock")
    with serving(
        folder,
        *(toys, "--poll", "0.05", "--model-name", "toy", "--token", TOKEN, "--cors"),
        *(*files, *logs),
    ) as server:
        yield server
        log = server.log.read_text()
        assert "Traceback" not in log, log
        assert TOKEN not in log
    assert TOKEN not in (folder / "access.log").read_text()


@pytest.fixture
def ask(guarded, certificate):
    """Asks over HTTPS; returns status, headers and body."""
    context = ssl.create_default_context(cafile=str(certificate[0]))

    def request(method, path, body=None, **headers):
        address = urlsplit(guarded.url)
        assert address.scheme == "https"
        connection = http.client.HTTPSConnection(address.netloc, context=context, timeout=60)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.headers, content.decode()

    return request


@pytest.fixture
def channel(guarded, certificate):
    credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
    with grpc.secure_channel(guarded.grpc, credentials) as secure:
        yield secure


def predict(channel, *, token=None):
    request = predict_pb2.PredictRequest(model_spec={"name": "toy"})
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.0]))
    metadata = [("authorization", token)] if token else []
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return list(stub.Predict(request, metadata=metadata, timeout=60).outputs["y"].float_val)


# TLS and token


def test_over_tls_a_request_with_the_token_is_answered(ask, channel):
    status, _, body = ask("POST", PREDICT, BODY, Authorization=BEARER)
    assert (status, json.loads(body)) == (200, {"predictions": [11, 12]})
    assert predict(channel, token=BEARER) == [11, 12]


@pytest.mark.parametrize(
    "token", [None, TOKEN, "Bearer", "Bearer s3cret-t0kem", f"bearer {TOKEN}", f"{BEARER}!"]
)
def test_without_the_token_nothing_is_told(ask, channel, token):
    headers = {} if token is None else {"Authorization": token}
    for method, path, body in [
        ("POST", PREDICT, BODY),
        ("GET", "/v1/models/toy", None),
        ("GET", "/v1/models/toy/metadata", None),
        ("GET", "/v1/nonsense", None),
        ("GET", METRICS, None),
        ("GET", "/about.json", None),
    ]:
        status, _, text = ask(method, path, body, **headers)
        assert (status, json.loads(text)) == (401, REST_REFUSAL), path
    with pytest.raises(grpc.RpcError) as failure:
        predict(channel, token=token)
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert failure.value.details() == "expected authorization: Bearer TOKEN"
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    with pytest.raises(grpc.RpcError) as failure:
        stub.GetModelStatus(get_model_status_pb2.GetModelStatusRequest())
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_page_and_probes_need_no_token(ask, channel):
    for path, text in [("/v2/health/live", "live"), ("/v2/health/ready", "ready")]:
        status, _, body = ask("GET", path)
        assert (status, body) == (200, text)
    status, headers, body = ask("GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert TOKEN not in body
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "ModelService", "PredictionService"):
        response = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_a_stream_without_an_end_takes_no_place_of_a_request(channel):
    health = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as failure:
        next(health.Watch(health_pb2.HealthCheckRequest(), timeout=60))
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert failure.value.details() == "Watch is not supported; ask Check"


def test_what_is_no_tls_gets_no_answer(guarded, ask):
    address = urlsplit(guarded.url)
    for sent in (
        b"GET /v1/models/toy HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x00\x05nonsense",
    ):
        with socket.create_connection((address.hostname, address.port), timeout=60) as plain:
            plain.sendall(sent)
            # Nothing, or an alert of TLS.
            assert plain.recv(100)[:1] in (b"", b"\x15")
    assert ask("GET", "/v2/health/live")[0] == 200


def test_a_unix_socket_for_grpc_needs_the_token_too(guarded):
    with grpc.insecure_channel(f"unix:{guarded.log.parent / 'grpc.sock'}") as channel:
        assert predict(channel, token=BEARER) == [11, 12]
        with pytest.raises(grpc.RpcError) as failure:
            predict(channel)
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED


# Logs, CORS and metrics


def test_the_access_log_has_a_line_of_json_for_each_request(ask, channel, guarded):
    path = guarded.log.parent / "access.log"
    before = len(path.read_text().splitlines())
    ask("POST", PREDICT, BODY, Authorization=BEARER)
    ask("POST", PREDICT, BODY)
    ask("GET", "/v1/models/%00%0a%22?token=x", Authorization=BEARER)
    predict(channel, token=BEARER)
    good, refused, unknown, called = map(json.loads, path.read_text().splitlines()[before:])
    for line in (good, refused, unknown, called):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
        assert re.fullmatch(r"(ipv4:)?127\.0\.0\.1:\d+|ipv4:127.0.0.1%3A\d+", line.pop("peer"))
        assert 0 <= line.pop("milliseconds") < 60_000
    answered = {"model": "toy", "version": 1, "examples": 2}
    assert good == {
        "call": f"POST {PREDICT}",
        "status": 200,
        "request_bytes": len(BODY),
        **answered,
    }
    assert refused == {"call": f"POST {PREDICT}", "status": 401, "request_bytes": 0}
    assert unknown == {
        "call": "GET /v1/models/%00%0a%22?token=x",
        "status": 404,
        "request_bytes": 0,
    }
    assert called.pop("request_bytes") > 0
    assert called == {"call": "Predict", "status": "OK", **answered}


def test_with_cors_other_pages_may_read_the_answers(ask):
    for method, path in [("POST", PREDICT), ("GET", "/v1/nonsense"), ("OPTIONS", PREDICT)]:
        _, headers, _ = ask(method, path, Origin="https://page.example")
        assert headers["access-control-allow-origin"] == "*"
        assert headers["access-control-allow-methods"] == "POST, GET"
        assert headers["access-control-allow-headers"] == "Content-Type, Authorization"


def measured(text, line):
    """The value of a line of the metrics."""
    (value,) = re.findall(rf"(?m)^{re.escape(line)} (\S+)$", text) or ["0"]
    return float(value)


def test_the_metrics_count(ask, channel):
    def now():
        return ask("GET", METRICS, Authorization=BEARER)[2]

    rest = '{API="Predict",entrypoint="REST",model_name="toy"}'
    rpc = rest.replace("REST", "GRPC")
    runs = '{API="Predict",model_name="toy",runtime="TF1"}'
    lines = {
        ':tensorflow:serving:request_count{model_name="toy",status="OK"}': 3,
        ':tensorflow:serving:request_count{model_name="toy",status="INVALID_ARGUMENT"}': 1,
        f":tensorflow:serving:request_latency_count{rest}": 2,
        f":tensorflow:serving:request_latency_count{rpc}": 1,
        ':tensorflow:serving:request_example_counts_sum{model="toy"}': 6,
        f":tensorflow:serving:runtime_latency_count{runs}": 3,
    }
    before = now()
    for body in (BODY, BODY, '{"instances": ["x"]}'):
        ask("POST", PREDICT, body, Authorization=BEARER)
    predict(channel, token=BEARER)
    after = now()
    risen = {line: measured(after, line) - measured(before, line) for line in lines}
    assert risen == lines


def test_the_metrics_have_tensorflow_servings_names_and_limits(ask):
    ask("POST", PREDICT, BODY, Authorization=BEARER)
    status, headers, text = ask("GET", METRICS, Authorization=BEARER)
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    types = dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)$", text))
    assert types == {
        ":tensorflow:serving:request_count": "counter",
        ":tensorflow:serving:request_latency": "histogram",
        ":tensorflow:serving:runtime_latency": "histogram",
        ":tensorflow:serving:request_example_counts": "histogram",
        ":tensorflow:serving:model_warmup_latency": "histogram",
        ":tensorflow:serving:batching_session:queuing_latency": "histogram",
        ":tensorflow:serving:batching_session:processed_batch_size": "histogram",
        # Of a limit that TensorFlow Serving does not have.
        "keras_cifar_request_bytes": "gauge",
        "keras_cifar_requests_without_room_total": "counter",
    }
    buckets = re.findall(r'request_latency_bucket\{.*le="([^"]+)",model_name="toy"\}', text)
    assert (buckets[0], buckets[1], buckets[-1]) == ("10", "18", "+Inf")
    assert len(set(buckets)) == 34
    assert "_created" not in text


def test_readiness_is_that_of_each_model(ask, guarded, toys, eventually):
    def ready():
        status, _, body = ask("GET", "/v2/health/ready")
        return status, body

    log = guarded.log.parent / "access.log"
    before = log.read_text()
    assert ready() == (200, "ready")
    away = toys.rename(toys.with_name("away"))
    toys.mkdir()
    eventually(lambda: ready() == (503, "not loaded: toy"))
    toys.rmdir()
    away.rename(toys)
    eventually(lambda: ready() == (200, "ready"))
    assert log.read_text() == before  # probes are no requests
