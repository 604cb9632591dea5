"""Warm-up and batches, as TensorFlow Serving has them, by the numbers of a list of cases.

The cases, J1 to J14, were taken from TensorFlow Serving's sources and tests.
"""

import asyncio
import http.client
import itertools
import json
import os
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from starlette.requests import Request
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from keras_cifar.serve.models.model_config import ModelConfig
from keras_cifar.serve.models.registry import Models
from keras_cifar.serve.models.servable import Runtime, Servable
from keras_cifar.serve.models.warmup import warm_up
from keras_cifar.serve.rest.api_requests import ApiRequests
from keras_cifar.serve.rest.rest_api import RestApi
from keras_cifar.serve.rpc.grpc_api import add_services
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import Limits
from keras_cifar.serve.text_config import read_batching
from keras_cifar.serving import BATCHING, WARMUP_FILE

FULL = "The batch scheduling queue to which this task was submitted is full"


@pytest.fixture(scope="module")
def toy(save_toy, tmp_path_factory):
    """A version that adds 10 to what it is given."""
    folder = tmp_path_factory.mktemp("toy") / "1"
    save_toy(folder, answer=10)
    return folder


def runtime(batching=BATCHING["cpu"], **values):
    return Runtime(batching, Limits(**values))


def measured(metrics, name):
    """The values of a metric, by the rest of its line."""
    lines = re.findall(rf"(?m)^{re.escape(name)}(\S*) (\S+)$", metrics.exposition().decode())
    return {rest: float(value) for rest, value in lines}


# Warm-up


@pytest.fixture(scope="module")
def loaded(toy):
    servable = Servable("toy", 1, toy, runtime=runtime())
    yield servable
    servable.close()


@pytest.fixture
def warming_up(loaded, tmp_path):
    """Plays what a warm-up file holds to the toy; returns the metrics, or raises."""

    def play(content):
        loaded.path, loaded.runtime = tmp_path / "toy" / "1", runtime()
        if content is not None:
            write_warmup(loaded.path, content)
        warm_up(loaded)
        return loaded.runtime.metrics

    return play


def write_warmup(version, content):
    (version / WARMUP_FILE).parent.mkdir(parents=True)
    (version / WARMUP_FILE).write_bytes(content)


def records(folder, *contents):
    path = str(folder / "records")
    with tf.io.TFRecordWriter(path) as writer:
        for content in contents:
            writer.write(content)
    return (folder / "records").read_bytes()


def log(text):
    parsed = text_format.Parse(text, prediction_log_pb2.PredictionLog())
    return parsed.SerializeToString()


X = 'inputs { key: "x" value { dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 1 } }'
PREDICT = f"predict_log {{ request {{ {X} }} }}"
EXAMPLE = (
    "input { example_list { examples { features { "
    'feature { key: "x" value { float_list { value: 1 } } } } } } }'
)
CLASSIFY = f'classify_log {{ request {{ model_spec {{ signature_name: "classify" }} {EXAMPLE} }} }}'
REGRESS = f'regress_log {{ request {{ model_spec {{ signature_name: "regress" }} {EXAMPLE} }} }}'
MULTI = (
    "multi_inference_log { request { "
    'tasks { model_spec { name: "toy" signature_name: "regress" } '
    'method_name: "tensorflow/serving/regress" } '
    'tasks { model_spec { name: "toy" signature_name: "classify" } '
    f'method_name: "tensorflow/serving/classify" }} {EXAMPLE} }} }}'
)


@pytest.mark.parametrize("content", [None, b""], ids=["J1", "J2"])
def test_a_version_needs_no_warm_up(warming_up, content):
    metrics = warming_up(content)
    assert measured(metrics, ":tensorflow:serving:runtime_latency_count") == {}


def test_j7_each_kind_of_request_is_played(warming_up, tmp_path):
    metrics = warming_up(records(tmp_path, *map(log, (PREDICT, CLASSIFY, REGRESS, MULTI))))
    (runs,) = measured(metrics, ":tensorflow:serving:runtime_latency_count").values()
    assert runs == 5  # the last one has two tasks
    ((labels, count),) = measured(metrics, ":tensorflow:serving:model_warmup_latency_count").items()
    assert (labels, count) == (f'{{model_path="{tmp_path}/toy/1",status="OK"}}', 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda _: b"no TFRecord file at all",
            r"\S+/tf_serving_warmup_requests: corrupted record at 0 \(Is this even a TFRecord "
            r"file\?\)\. "
            r"Please verify your warmup data is in TFRecord format\.",
            id="J3",
        ),
        pytest.param(
            lambda folder: records(folder, log(PREDICT), b"\xff" * 9),
            r"Failed to parse warmup record: 2 from \S+/tf_serving_warmup_requests",
            id="J4",
        ),
        pytest.param(
            lambda folder: records(folder, *[log(PREDICT)] * 1001),
            r"Number of warmup records exceeds the maximum \(1000\) at \S+",
            id="J5",
        ),
        pytest.param(
            lambda folder: records(folder, log(PREDICT.replace('"x"', '"z"'))),
            r"its own warm-up request fails: input tensor alias not found in signature: z\. "
            r"Inputs expected to be in the set \{x\}\.\. If max_batch_size is why, raise it \(an "
            r"export has requests of up to 128 images\); or remove \S+/tf_serving_warmup_requests",
            id="J6",
        ),
        pytest.param(
            lambda folder: records(folder, log("session_run_log {}")),
            "Unsupported log_type for warmup: session_run_log",
            id="J7-session-run",
        ),
        pytest.param(
            lambda folder: records(folder, log("predict_streamed_log {}")),
            "Unsupported log_type for warmup: predict_streamed_log",
            id="J7-streamed",
        ),
        pytest.param(
            lambda folder: records(folder, b""),
            "Unsupported log_type for warmup: None",
            id="J7-none",
        ),
    ],
)
def test_a_wrong_warm_up_is_refused(warming_up, tmp_path, make, message):
    with pytest.raises(ServingError, match=f"^{message}$"):
        warming_up(make(tmp_path))


def test_a_warm_up_that_meets_a_bug_is_not_counted_as_good(
    warming_up, loaded, tmp_path, monkeypatch
):
    monkeypatch.delattr(loaded, "_batched")
    with pytest.raises(AttributeError):
        warming_up(records(tmp_path, log(PREDICT)))
    counts = measured(loaded.runtime.metrics, ":tensorflow:serving:model_warmup_latency_count")
    assert counts == {f'{{model_path="{tmp_path}/toy/1",status="UNKNOWN"}}': 1}


def test_a_version_with_a_wrong_warm_up_is_not_loaded(toy, tmp_path):
    version = tmp_path / "toy" / "1"
    shutil.copytree(toy, version)
    write_warmup(version, records(tmp_path, b""))
    configs = [ModelConfig("toy", version.parent)]
    models = Models(runtime=runtime(), labels_may_wait=False)
    start = re.escape(f"{tmp_path}/toy: version 1 cannot be loaded: ")
    with pytest.raises(ServingError, match=f"^{start}Unsupported log_type for warmup: None$"):
        models.configure(configs)


# Batches


@pytest.fixture
def batching(toy, tmp_path):
    """Loads the toy with a batching_parameters.txt."""
    loaded = []

    def load(text):
        path = tmp_path / "batching_parameters.txt"
        path.write_text(text)
        loaded.append(Servable("toy", 1, toy, runtime=runtime(read_batching(path))))
        return loaded[-1]

    yield load
    for servable in loaded:
        servable.close()


def parameters(**values):
    """The text of a batching_parameters.txt."""
    lines = [f"{name} {{ value: {value} }}" for name, value in values.items()]
    return "\n".join(lines)


def run(servable, *values, signature="serving_default", seconds=60.0):
    array = np.array(values, np.float32)
    return servable.run(signature, {"x": array}, deadline=time.time() + seconds)["y"].tolist()


def together(*calls):
    """What calls give that are made at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def batch_sizes(servable):
    """How many requests were in batches, and the sum of those batches' sizes."""
    name = ":tensorflow:serving:batching_session:processed_batch_size"
    (count,) = measured(servable.runtime.metrics, f"{name}_count").values()
    (total,) = measured(servable.runtime.metrics, f"{name}_sum").values()
    return count, total


LONG = {"batch_timeout_micros": 30_000_000, "num_batch_threads": 2}


def test_requests_that_come_together_are_one_batch(batching):
    servable = batching(parameters(max_batch_size=4, **LONG))
    answers = together(lambda: run(servable, 1, 2), lambda: run(servable, 3, 4))
    assert answers == [[11, 12], [13, 14]]
    assert batch_sizes(servable) == (2, 8)


def test_j8_a_request_may_not_be_larger_than_a_batch(batching):
    servable = batching(parameters(max_batch_size=3))
    assert run(servable, 1, 2, 3) == [11, 12, 13]
    message = "Task size 4 is larger than maximum input batch size 3"
    with pytest.raises(ServingError, match=f"^{message}$") as failure:
        run(servable, 1, 2, 3, 4)
    assert failure.value.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="macOS has no affinity")
def test_batches_are_computed_by_as_many_threads_as_there_are_cores(tmp_path):
    path = tmp_path / "batching_parameters.txt"
    path.write_text("")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(cores)])
    try:
        assert read_batching(path).num_batch_threads == 1
    finally:
        os.sched_setaffinity(0, cores)


def test_with_splitting_a_request_goes_on_in_the_next_batch(batching):
    text = parameters(
        max_batch_size=6, enable_large_batch_splitting="true", max_execution_batch_size=2
    )
    servable = batching(f"{text} allowed_batch_sizes: [1, 2]")
    assert run(servable, 1, 2, 3, 4, 5) == [11, 12, 13, 14, 15]
    assert batch_sizes(servable) == (1, 2)  # of the first of its three batches


def test_j10_a_request_that_is_late_is_not_computed(batching):
    servable = batching(parameters(max_batch_size=1, num_batch_threads=1))
    message = re.escape("Run() timeout exceeded while waiting in batching queue")
    with ThreadPoolExecutor() as pool:
        busy = pool.submit(run, servable, 4, signature="slow")
        time.sleep(1)
        late = pool.submit(run, servable, 30, signature="slow", seconds=0.5)
        with pytest.raises(ServingError, match=f"^{message}$") as failure:
            late.result(timeout=60)
        assert busy.result() == [14]
    assert failure.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_j12_a_batch_is_filled_up_to_an_allowed_size(batching):
    servable = batching(f"{parameters(max_batch_size=4)} allowed_batch_sizes: [1, 2, 4]")
    assert run(servable, 1, 2, 3) == [11, 12, 13]
    assert batch_sizes(servable) == (1, 4)


def test_j13_requests_of_other_shapes_in_one_batch_are_answered_one_by_one(batching):
    """TensorFlow Serving refuses both."""
    servable = batching(parameters(max_batch_size=2, **LONG))
    answers = together(
        lambda: run(servable, [1, 2], signature="rows"),
        lambda: run(servable, [1, 2, 3], signature="rows"),
    )
    assert answers == [[13], [16]]
    assert batch_sizes(servable) == (0, 0)


def test_j14_each_signature_has_batches_of_its_own(batching):
    servable = batching(parameters(max_batch_size=2, **LONG))
    calls = [
        (lambda x=x, signature=signature: run(servable, x, signature=signature))
        for x in (0.1, 0.2)
        for signature in ("serving_default", "slow")
    ]
    started = time.monotonic()
    answers = np.ravel(together(*calls))
    assert answers == pytest.approx([10.1, 10.1, 10.2, 10.2])
    # Four requests, each in a batch of two that was full before the time was over.
    assert batch_sizes(servable) == (4, 8)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("wrong", [b"no example", b"no text \xff"])
def test_one_bad_request_spoils_no_other_of_its_batch(batching, wrong):
    servable = batching(parameters(max_batch_size=2, **LONG))

    def classify(example):
        examples = np.array([example], object)
        return servable.run("classify", {"inputs": examples}, deadline=time.time() + 60)

    def bad():
        with pytest.raises(ServingError, match="Could not parse example input") as failure:
            classify(wrong)
        assert failure.value.code is grpc.StatusCode.INVALID_ARGUMENT

    example = tf.train.Example()
    example.features.feature["x"].float_list.value.append(5)
    good, _ = together(lambda: classify(example.SerializeToString()), bad)
    assert good["scores"].tolist() == [[15]]


# Requests that nobody waits for any more


@pytest.fixture
def brief(toy):
    """Models and their runtime, which answers one request by REST at a time, within 0.3 s."""
    common = runtime(seconds=0.3, requests=1)
    models = Models(runtime=common, labels_may_wait=False)
    models.configure([ModelConfig("toy", toy.parent)])
    yield models, common
    models.close()


def test_a_request_by_rest_keeps_its_place_while_it_is_computed(brief):
    body = json.dumps({"signature_name": "slow", "instances": [2.0]}).encode()
    path = "/v1/models/toy:predict"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
    scope |= {"query_string": b"", "headers": []}

    async def receive():
        return {"type": "http.request", "body": body}

    async def statuses():
        requests = ApiRequests(RestApi(*brief), token=None, executor=pool)
        found = []
        # The first one is computed to its end, after which there is a place again.
        while found[-2:] != [503, 504] and len(found) < 300:
            found.append((await requests.response(Request(scope, receive))).status_code)
            await asyncio.sleep(0.1)
        return [status for status, _ in itertools.groupby(found)]

    with ThreadPoolExecutor() as pool:
        assert asyncio.run(statuses()) == [504, 503, 504]


class Late(grpc.ServerInterceptor):
    """Keeps a call from its service until its deadline is over."""

    def intercept_service(self, continuation, details):
        handler = continuation(details)

        def late(request, context):
            while context.time_remaining():
                time.sleep(0.05)
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            late, handler.request_deserializer, handler.response_serializer
        )


def test_a_request_by_grpc_whose_deadline_is_over_is_not_computed(brief):
    models, common = brief
    with ThreadPoolExecutor() as pool:
        server = grpc.server(pool, interceptors=[Late()])
        add_services(server, models, runtime=common)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        code, _ = by_grpc(f"127.0.0.1:{port}", 0, timeout=0.2)
        server.stop(None).wait()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert measured(common.metrics, ":tensorflow:serving:runtime_latency_count") == {}


# A full queue, over sockets


@pytest.fixture(scope="module")
def narrow(serving, toy, tmp_path_factory):
    """A server that computes one request at a time, and lets one wait."""
    folder = tmp_path_factory.mktemp("narrow")
    (folder / "batching.txt").write_text(
        parameters(max_batch_size=1, max_enqueued_batches=1, num_batch_threads=1)
    )
    arguments = ("--model-name", "toy", "--access-log", "off", "--timeout", "6")
    with serving(
        folder, toy.parent, *arguments, "--batching-parameters", folder / "batching.txt"
    ) as server:
        yield server
        assert "Traceback" not in server.log.read_text()


def by_rest(server, seconds):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    body = json.dumps({"signature_name": "slow", "instances": [seconds]})
    connection.request("POST", "/v1/models/toy:predict", body)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def by_grpc(address, seconds, *, timeout=60.0):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "toy", "slow"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([seconds], tf.float32))
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            return 0, stub.Predict(request, timeout=timeout).outputs["y"].float_val[0]
        except grpc.RpcError as error:
            return error.code(), error.details()


def test_j9_a_full_queue_takes_no_more(narrow):
    answers = together(*[lambda: by_rest(narrow, 1.2)] * 6)
    computed = [answer for status, answer in answers if status == 200]
    refused = [answer["error"] for status, answer in answers if status == 503]
    assert len(computed) + len(refused) == 6
    assert computed == [{"predictions": [pytest.approx(11.2)]}] * len(computed)
    assert 1 <= len(computed) <= 3
    assert all(text.startswith(FULL) for text in refused)
    answers = together(*[lambda: by_grpc(narrow.grpc, 1.2)] * 6)
    assert {code for code, _ in answers} == {0, grpc.StatusCode.UNAVAILABLE}
    assert all(text.startswith(FULL) for code, text in answers if code)
    assert by_rest(narrow, 0) == (200, {"predictions": [10]})


def test_j10_a_request_that_waits_too_long_is_told_so(narrow, eventually):
    assert by_rest(narrow, 7.0) == (504, {"error": "no answer within 6 s"})
    eventually(lambda: by_rest(narrow, 0)[0] == 200)  # it is computed to its end
    busy = threading.Thread(target=by_rest, args=(narrow, 4.0))
    busy.start()
    time.sleep(1)
    code, _ = by_grpc(narrow.grpc, 30, timeout=1.0)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    busy.join()
    assert by_rest(narrow, 0) == (200, {"predictions": [10]})  # the late one is not computed
