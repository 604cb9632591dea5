"""A server that cannot start says why in one line; one that is to stop loses no request."""

import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import grpc
import pytest
import tensorflow as tf
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from keras_cifar.cli import main
from keras_cifar.cli.exits import TERMINATED
from keras_cifar.serve import lifecycle
from keras_cifar.serving import WARMUP_FILE

FREE = ("--rest-port", 0, "--grpc-port", 0)
OTHER_PORT = "Name another port: --{}-port N (0 for any that is free)."


@pytest.fixture(scope="module")
def toys(save_toy, tmp_path_factory):
    """A folder with version 1 of the toy, which adds 10 to what it is given."""
    folder = tmp_path_factory.mktemp("toys") / "toy"
    save_toy(folder / "1", answer=10, only=["serving_default", "slow"])
    return folder


@pytest.fixture
def refused(monkeypatch):
    """Runs serve in this process; returns its one line of error and its exit code."""
    # So that what serve sets is gone afterwards.
    monkeypatch.setenv("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        # A server that starts after all is stopped, or the test would wait for it.
        stop = threading.Timer(300, os.kill, [os.getpid(), signal.SIGTERM])
        stop.start()
        result = CliRunner().invoke(main, ["serve", *map(str, arguments)])
        stop.cancel()
        # Anything else is a bug, and would be a traceback.
        assert isinstance(result.exception, SystemExit), result.exception
        lines = result.output.splitlines()
        (line,) = [line for line in lines if line.startswith("Error: ")]
        assert lines[-1] == line
        return line.removeprefix("Error: "), result.exit_code

    yield run
    signal.signal(signal.SIGTERM, handler)


# Refused at the start


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_a_server_needs_a_version(refused, tmp_path, kind):
    folder = tmp_path / "models"
    if kind == "empty":
        folder.mkdir()
    elif kind == "file":
        folder.write_text("no folder")
    assert refused(folder, *FREE) == (
        f"{folder}: no version to serve here. Export one: keras-cifar export {folder}",
        1,
    )


def test_a_server_says_what_is_wrong_with_the_only_version(refused, toys, tmp_path):
    folder = tmp_path / "toy"
    shutil.copytree(toys, folder)
    shutil.rmtree(folder / "1" / "variables")
    line, code = refused(folder, *FREE)
    assert line.startswith(f"{folder}: version 1 cannot be loaded: ")
    assert code == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "model_config_list { nonsense",
            "Error parsing text-format tensorflow.serving.ModelServerConfig: 1:21 : ",
            id="I17",
        ),
        pytest.param(
            'model_config_list { config { name: "a" base_path: "b" } }',
            "Expected model a to have an absolute path or URI; got base_path()=b",
            id="I9",
        ),
        pytest.param(
            'model_config_list { config { name: "a" base_path: "/a" logging_config {} } }',
            "No request-logger-creator provided.",
            id="I14",
        ),
    ],
)
def test_a_server_needs_a_right_models_config(refused, tmp_path, text, message):
    path = tmp_path / "models.config"
    path.write_text(text)
    line, code = refused("--models-config", path, *FREE)
    assert line.startswith(f"{path}: {message}")
    assert code == 1


def test_a_label_at_the_start_needs_a_version(refused, toys, tmp_path):
    path = tmp_path / "models.config"
    labels = 'version_labels { key: "stable" value: 777 }'
    path.write_text(
        f'model_config_list {{ config {{ name: "toy" base_path: "{toys}" {labels} }} }}'
    )
    line, code = refused("--models-config", path, *FREE)
    assert line == (
        "Request to assign label to version 777 of model toy, "
        "which is not currently available for inference"
    )
    assert code == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: [1, 4]",
            "Last entry in allowed_batch_sizes must match max_batch_size; "
            "last entry was 4, expected 8.",
        ),
        (
            "max_batch_size { value: 4 } allowed_batch_sizes: [2, 1, 4]",
            "allowed_batch_sizes must be positive and ascending; got (2, 1, 4).",
        ),
        ("max_batch_size { value: 0 }", "max_batch_size: got 0, expected 1 or more."),
        ("num_batch_threads { value: -1 }", "num_batch_threads: got -1, expected 1 or more."),
        ("max_enqueued_batches { value: 0 }", "max_enqueued_batches: got 0, expected 1 or more."),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros: got -1, expected 0 or more."),
        (
            "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 8 }",
            "max_execution_batch_size: got 8 without allowed_batch_sizes, which is not supported "
            "here. Give allowed_batch_sizes, 8 as the last one.",
        ),
        (
            "pad_variable_length_inputs: true",
            "pad_variable_length_inputs: got true, which is not supported here.",
        ),
        ("max_batch_size: 4", "Error parsing text-format tensorflow.serving.BatchingParameters: "),
    ],
    ids=[
        "J11-last",
        "J11-order",
        "size",
        "threads",
        "queue",
        "timeout",
        "execution",
        "padding",
        "text",
    ],
)
def test_a_server_needs_right_batching_parameters(refused, toys, tmp_path, text, message):
    path = tmp_path / "batching_parameters.txt"
    path.write_text(text)
    line, code = refused(toys, "--batching-parameters", path, *FREE)
    assert line.startswith(f"{path}: {message}")
    assert code == 1


@pytest.mark.parametrize(
    "option", ["--models-config", "--batching-parameters", "--monitoring-config"]
)
def test_a_server_needs_the_files_it_is_told_of(refused, toys, tmp_path, option):
    path = tmp_path / "missing"
    arguments = [option, path] if option == "--models-config" else [toys, option, path]
    assert refused(*arguments, *FREE) == (f"{path}: No such file or directory.", 1)


@pytest.mark.parametrize("metrics_path", ["metrics", "a/b", "/a?b", "/a b", "http://x/m"])
def test_a_path_of_metrics_begins_with_a_slash(refused, toys, tmp_path, metrics_path):
    path = tmp_path / "monitoring.config"
    path.write_text(f'prometheus_config {{ enable: true path: "{metrics_path}" }}')
    assert refused(toys, "--monitoring-config", path, *FREE) == (
        f"{path}: prometheus_config.path: got {metrics_path!r}, expected a path that begins with "
        '"/", without a query.',
        1,
    )


def test_an_empty_token_in_the_environment_is_no_token(refused, toys, monkeypatch):
    monkeypatch.setenv("KERAS_CIFAR_TOKEN", "")
    assert refused(toys, *FREE) == (
        "KERAS_CIFAR_TOKEN is empty: set it to a token, or unset it to serve without one.",
        2,
    )


def test_a_server_needs_an_access_log_that_it_can_write(refused, toys, tmp_path):
    assert refused(toys, "--access-log", tmp_path, *FREE) == (f"{tmp_path}: Is a directory.", 1)


@pytest.mark.parametrize("token", ["", "two words", "line\n", "schlüssel"])
def test_a_token_must_fit_in_a_header(refused, toys, token):
    assert refused(toys, "--token", token, *FREE) == (
        "--token: expected letters, digits and signs of ASCII, and no space.",
        2,
    )


@pytest.mark.parametrize("what", ["other key", "nonsense", "password", "missing"])
def test_a_certificate_needs_its_key(refused, toys, tmp_path, what):
    certificate, own_key, key = (tmp_path / name for name in ("cert.pem", "own.pem", "key.pem"))
    openssl("req", "-x509", "-nodes", "-subj", "/CN=x", "-out", certificate, "-keyout", own_key)
    if what == "other key":
        openssl("genrsa", "-out", key)
    elif what == "password":
        openssl("rsa", "-in", own_key, "-aes128", "-passout", "pass:secret", "-out", key)
    elif what == "nonsense":
        key.write_text("nonsense")
    line, code = refused(toys, "--ssl-certificate", certificate, "--ssl-key", key, *FREE)
    assert code == 1
    if what == "missing":
        assert line == f"{key}: No such file or directory."
    else:
        start = re.escape(f"{certificate}, {key}: no certificate with its key, ")
        assert re.fullmatch(f"{start}in PEM format and without a password: .+\\.", line)


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def test_a_certificate_does_not_come_without_a_key(refused, toys, tmp_path):
    assert refused(toys, "--ssl-certificate", tmp_path / "cert.pem", *FREE) == (
        "--ssl-certificate: expected with --ssl-key, or neither of the two.",
        2,
    )


def test_a_port_of_rest_that_is_taken(refused, toys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refused(toys, "--rest-port", port, "--grpc-port", 0) == (
            f"127.0.0.1:{port}: Address already in use. {OTHER_PORT.format('rest')}",
            1,
        )


def test_a_port_of_grpc_that_is_taken(refused, toys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refused(toys, "--rest-port", 0, "--grpc-port", port) == (
            f"127.0.0.1:{port}: cannot be listened at. Is another server there? "
            f"{OTHER_PORT.format('grpc')}",
            1,
        )


def test_a_socket_of_grpc_where_none_can_be(refused, toys, tmp_path):
    path = tmp_path / "missing 50%" / "grpc.sock"
    assert refused(toys, "--grpc-socket", path, *FREE) == (
        f"unix:{path}: cannot be listened at. "
        "Name one of up to 107 bytes, in a folder to write to: --grpc-socket PATH.",
        1,
    )


def test_a_socket_of_grpc_that_is_taken(refused, toys, tmp_path):
    path = tmp_path / "100%25.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        message = f"{path}: another server listens here. Name another: --grpc-socket PATH."
        assert refused(toys, "--grpc-socket", path, *FREE) == (message, 1)
    assert path.is_socket()
    message = f"{tmp_path}: is there and no socket. Name another: --grpc-socket PATH."
    assert refused(toys, "--grpc-socket", tmp_path, *FREE) == (message, 1)


def test_a_port_that_another_server_takes_while_the_models_load(toys, tmp_path, eventually):
    folder, sign = tmp_path / "toy", tmp_path / "grpc.sock"
    shutil.copytree(toys, folder)
    slow_start(folder / "1", seconds=5)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "keras_cifar", "serve", folder, "--grpc-socket", sign]
    ports = ["--rest-port", str(port), "--grpc-port", "0"]
    with (
        subprocess.Popen([*command, *ports], stderr=subprocess.PIPE, text=True) as process,
        socket.socket() as other,
    ):
        # The port of REST is bound by then and not listened at, which lets others bind it as well.
        eventually(sign.exists)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        try:
            _, stderr = process.communicate(timeout=600)
        finally:
            process.kill()
    message = f"Error: 127.0.0.1:{port}: Address already in use. {OTHER_PORT.format('rest')}"
    assert stderr.splitlines()[-1] == message
    assert "Traceback" not in stderr
    assert process.returncode == 1


def slow_start(version, *, seconds):
    """Has a version's warm-up take so long."""
    log = prediction_log_pb2.PredictionLog(predict_log={"request": request(seconds)})
    (version / WARMUP_FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(version / WARMUP_FILE)) as writer:
        writer.write(log.SerializeToString())


def request(seconds):
    """Asks the toy to take so long."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "toy", "slow"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([seconds], tf.float32))
    return request


# Open files


@pytest.fixture
def open_files():
    """Sets the limit of this process, and afterwards what it was."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_limit_of_open_files_is_raised_and_never_lowered(open_files, monkeypatch):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted, before, after in [(4096, 1000, 4096), (4096, 5000, 5000), (2 * hard, 1000, hard)]:
        monkeypatch.setattr(lifecycle, "_OPEN_FILES", (wanted, 2000))
        open_files(before)
        lifecycle._allow_many_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (after, hard)


def test_where_so_many_open_files_are_refused_fewer_will_do(open_files, monkeypatch):
    """macOS says that there is no limit, and refuses what is above its own."""
    set_limit = resource.setrlimit

    def refusing(which, limits):
        if limits[0] > 2000:
            raise ValueError("current limit exceeds maximum limit")
        set_limit(which, limits)

    open_files(1000)
    monkeypatch.setattr(lifecycle, "_OPEN_FILES", (4096, 2000))
    monkeypatch.setattr(resource, "setrlimit", refusing)
    lifecycle._allow_many_connections()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 2000
    monkeypatch.setattr(lifecycle, "_OPEN_FILES", (4096, 3000))
    lifecycle._allow_many_connections()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 2000


# Stopping


def post(server, seconds):
    """Asks the toy to take so long; returns status, answer, and whether the connection stays."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    body = json.dumps({"signature_name": "slow", "instances": [seconds]})
    connection.request("POST", "/v1/models/toy:predict", body)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer, response.getheader("connection")


def get(server, path):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    answer = response.read().decode()
    connection.close()
    return response.status, answer, response.getheader("connection")


def predict(channel, seconds):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return stub.Predict(request(seconds), timeout=60).outputs["y"].float_val[0]


def in_thread(function, *arguments):
    """Calls a function in a thread; returns a function that waits for what came of it."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*arguments)), daemon=True)
    thread.start()

    def result():
        thread.join()
        return results[0] if results else None

    return result


def test_a_signal_lets_requests_end_and_cuts_no_connection_without_a_word(
    serving, toys, tmp_path, eventually
):
    # A busy machine needs more than the usual second to ask all of this in.
    constants = {"keras_cifar.serve.lifecycle._NOTICE_SECONDS": 5.0}
    with (
        serving(tmp_path, toys, "--model-name", "toy", constants=constants) as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        assert get(server, "/v2/health/ready") == (200, "ready", None)
        assert health.Check(health_pb2.HealthCheckRequest()).status == 1
        waiting = [in_thread(post, server, 6.0) for _ in range(4)]
        waiting += [in_thread(predict, channel, 6.0) for _ in range(4)]
        busy = [in_thread(_ask_until_refused, server) for _ in range(4)]
        time.sleep(0.5)
        server.process.terminate()
        # Notice is given, and all is still answered, for the last time on this connection.
        eventually(lambda: get(server, "/v2/health/ready") == (503, "stopping", "close"))
        assert get(server, "/v2/health/live") == (200, "live", "close")
        for name in ("", "ModelService", "PredictionService"):
            request = health_pb2.HealthCheckRequest(service=name)
            assert health.Check(request).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert post(server, 0) == (200, {"predictions": [10]}, "close")
        assert server.process.wait(timeout=60) == 0
        answers = [result() for result in waiting]
        assert all(result() for result in busy)
    assert [answer[:2] for answer in answers[:4]] == [(200, {"predictions": [16]})] * 4
    assert answers[4:] == [16] * 4
    log = server.log.read_text()
    assert "stopping: requests at work have 30 s to end" in log
    assert "Traceback" not in log
    with pytest.raises(ConnectionRefusedError):
        post(server, 0)


def at_work(server):
    """Whether a request is being answered."""
    metrics = get(server, "/monitoring/prometheus/metrics")[1]
    return float(re.search(r"(?m)^keras_cifar_request_bytes (\S+)$", metrics)[1]) > 0


def _ask_until_refused(server):
    """How many answers came, until a new connection was refused, or closed as it came about."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    body = json.dumps({"instances": [1.0]})
    for count in range(1_000_000):
        is_new = connection.sock is None  # "connection: close" in an answer closes it
        try:
            connection.request("POST", "/v1/models/toy:predict", body)
            response = connection.getresponse()
        except ConnectionError:
            assert is_new
            return count
        assert json.loads(response.read()) == {"predictions": [11]}
    return 0


def test_a_second_signal_ends_it_at_once(serving, toys, tmp_path, eventually):
    with serving(tmp_path, toys, "--model-name", "toy") as server:
        waiting = in_thread(_dropped, server)
        eventually(lambda: at_work(server))
        server.process.send_signal(signal.SIGINT)
        stopping = "stopping: requests at work have 30 s to end"
        eventually(lambda: stopping in server.log.read_text())
        time.sleep(1.5)
        assert server.process.poll() is None
        started = time.monotonic()
        server.process.terminate()
        code = server.process.wait(timeout=60)
        assert time.monotonic() - started < 15  # sooner than the request and the time to stop end
        server.process.returncode = 0  # what `serving` expects
        assert waiting()
    assert code == TERMINATED
    log = server.log.read_text()
    assert "stopped at once, as told: what was at work is dropped" in log
    assert "Traceback" not in log


def _dropped(server):
    """Whether a request gets no answer."""
    with pytest.raises((OSError, http.client.HTTPException)):
        post(server, 25)
    return True


def test_a_terminal_that_closes_lets_requests_end(serving, toys, tmp_path, eventually):
    """It may send its signal twice, which drops nothing."""
    with serving(tmp_path, toys, "--model-name", "toy") as server:
        waiting = in_thread(post, server, 4.0)
        eventually(lambda: at_work(server))
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: get(server, "/v2/health/ready")[0] == 503)
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(timeout=60) == 0
    assert waiting()[:2] == (200, {"predictions": [14]})


def test_a_server_under_nohup_outlives_its_terminal(toys):
    command = ["nohup", sys.executable, "-m", "keras_cifar", "serve", toys, *map(str, FREE)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert "a page to try it" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=3)
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.slow
def test_a_request_without_an_end_does_not_keep_it(serving, toys, tmp_path, eventually):
    module = "keras_cifar.serve.lifecycle"
    constants = {f"{module}._STOP_SECONDS": 8.0, f"{module}._DRAIN_SECONDS": 2.0}
    arguments = (toys, "--model-name", "toy", "--timeout", 100)
    with serving(tmp_path, *arguments, constants=constants) as server:
        waiting = in_thread(post, server, 60)
        eventually(lambda: at_work(server))
        started = time.monotonic()
        server.process.terminate()
        code = server.process.wait(timeout=60)
        assert time.monotonic() - started < 30
        server.process.returncode = 0  # what `serving` expects
        assert waiting() == (503, {"error": "the server has stopped"}, "close")
    assert code == 1
    log = server.log.read_text()
    assert "stopped, after 8 s: what was still at work is dropped" in log
    assert "Traceback" not in log


def test_a_signal_while_the_models_load_ends_it(toys, tmp_path):
    command = [sys.executable, "-m", "keras_cifar", "serve", str(toys), *map(str, FREE)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        # TensorFlow is there, and with it the threads of the server.
        while len(os.listdir(f"/proc/{process.pid}/task")) < 2:  # noqa: PTH208
            assert process.poll() is None
        process.terminate()
        _, stderr = process.communicate(timeout=600)
    assert (process.returncode, stderr) == (TERMINATED, "")
