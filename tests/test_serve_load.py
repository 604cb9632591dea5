"""Versions come and go under load: no request fails, no answer mixes them, no memory is lost."""

import gc
import http.client
import json
import re
import shutil
import threading
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from keras_cifar.serve.models.servable import Runtime, Servable
from keras_cifar.serve.settings import Limits
from keras_cifar.serving import BATCHING

ROWS = [0.0, 1000.0, 2000.0]
VERSIONS = 12
CLIENTS = 32


def rest_client(server, stop):
    """Asks over one connection until it is told to stop; yields what each answer adds to 0."""
    body = json.dumps({"instances": ROWS})
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    with closing(connection):
        while not stop.is_set():
            connection.request("POST", "/v1/models/toy:predict", body)
            response = connection.getresponse()
            answer = json.loads(response.read())
            assert response.status == 200, answer
            yield answer["predictions"]


def grpc_client(server, stop):
    request = predict_pb2.PredictRequest(model_spec={"name": "toy"})
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(ROWS))
    # A connection of its own, or all clients would share one.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.grpc, options=options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        while not stop.is_set():
            response = stub.Predict(request, timeout=60)
            values = list(response.outputs["y"].float_val)
            assert values[0] == response.model_spec.version.value
            yield values


def count_answers(client, server, stop, counts):
    """Counts how often each version answers, in the order in which a client hears of them."""
    for values in client(server, stop):
        version = values[0]
        assert values == [row + version for row in ROWS], "an answer of several versions"
        assert version >= max(counts, default=1), "a version that had gone before"
        counts[version] = counts.get(version, 0) + 1


@pytest.mark.slow
def test_versions_come_and_go_while_32_clients_ask(serving, save_toy, tmp_path, eventually):
    folder, spare = tmp_path / "toy", tmp_path / "spare"
    for number in range(1, VERSIONS + 1):
        save_toy(spare / str(number), answer=number, only=["serving_default"])
    folder.mkdir()
    (spare / "1").rename(folder / "1")
    with serving(
        tmp_path, folder, "--model-name", "toy", "--poll", "0.05", "--access-log", "off"
    ) as server:
        stop, failures = threading.Event(), []
        results = [{} for _ in range(CLIENTS)]

        def ask(client, counts):
            try:
                count_answers(client, server, stop, counts)
            except BaseException as failure:
                failures.append(failure)
                raise

        threads = [
            threading.Thread(target=ask, args=((rest_client, grpc_client)[index % 2], counts))
            for index, counts in enumerate(results)
        ]
        for thread in threads:
            thread.start()
        for number in range(2, VERSIONS + 1):
            (spare / str(number)).rename(folder / str(number))
            eventually(lambda number=number: states(server).get(number) == "AVAILABLE")
            # Until each client has heard of it, and asked on: a busy machine takes its time.
            least = 100 * number
            eventually(
                lambda number=number, least=least: (
                    failures
                    or (all(number in counts for counts in results) and total(results) > least)
                )
            )
            shutil.rmtree(folder / str(number - 1))
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
        expected = dict.fromkeys(range(1, VERSIONS), "END") | {VERSIONS: "AVAILABLE"}
        eventually(lambda: states(server) == expected)
        assert "Traceback" not in server.log.read_text()


def total(results):
    return sum(sum(list(counts.values())) for counts in results)


def states(server, name="toy"):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    with closing(connection):
        connection.request("GET", f"/v1/models/{name}")
        statuses = json.loads(connection.getresponse().read())["model_version_status"]
    return {int(entry["version"]): entry["state"] for entry in statuses}


@pytest.mark.slow
def test_a_version_takes_its_memory_along(serving, save_toy, tmp_path, eventually):
    folder = tmp_path / "toy"
    save_toy(folder / "1", only=["rows"], megabytes=64)
    body = json.dumps({"signature_name": "rows", "instances": [[1.0, 2.0]]})
    with serving(
        tmp_path, folder, "--model-name", "toy", "--poll", "0.05", "--access-log", "off"
    ) as server:
        memory = []
        for number in range(2, 8):
            save_toy(folder / str(number), only=["rows"], megabytes=64)
            eventually(lambda number=number: states(server).get(number) == "AVAILABLE")
            shutil.rmtree(folder / str(number - 1))
            eventually(lambda number=number: states(server)[number - 1] == "END")
            connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
            with closing(connection):
                connection.request("POST", "/v1/models/toy:predict", body)
                assert connection.getresponse().status == 200
            memory.append(resident(server))
    # The first ones make room for the others.
    grown = memory[-1] - memory[1]
    assert grown < 2 * 64, memory


def test_a_version_takes_its_graphs_along(save_toy, tmp_path):
    """8 MiB of Python's objects for a model of four signatures."""
    save_toy(tmp_path / "1", only=["rows"])
    runtime = Runtime(BATCHING["cpu"], Limits())
    gc.collect()
    before = graphs()
    servable = Servable("toy", 1, tmp_path / "1", runtime=runtime)
    assert graphs() > before
    servable.close()
    assert graphs() <= before


def graphs():
    """The identities of all graphs that Python still has, whether or not they are in use."""
    return {id(found) for found in gc.get_objects() if isinstance(found, tf.Graph)}


def resident(server):
    """MiB that a server has in memory."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (kib,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(kib) // 1024
