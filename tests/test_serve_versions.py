"""Versions, labels and reloads, as TensorFlow Serving has them, by the numbers of a list of cases.

The cases, I1 to I23 and F6 to F8, were taken from TensorFlow Serving's sources and tests.
"""

import http.client
import itertools
import json
import os
import re
import shutil
import threading
import time
from urllib.parse import urlsplit

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_log_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from keras_cifar.serve.models.model_config import ModelConfig
from keras_cifar.serve.models.registry import Models
from keras_cifar.serve.models.servable import Runtime
from keras_cifar.serve.models.status import State
from keras_cifar.serve.page.about import about
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import Limits, Settings
from keras_cifar.serve.watch import watching
from keras_cifar.serving import BATCHING, ORIGIN_FILE, WARMUP_FILE

INVALID = grpc.StatusCode.INVALID_ARGUMENT
AVAILABLE, LOADING, END = "AVAILABLE", "LOADING", "END"


class Asked:
    """A server, and what tests ask of it."""

    def __init__(self, server, *, models_config):
        self.server = server
        self.models_config = models_config
        self.channel = grpc.insecure_channel(server.grpc)
        self._models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def get(self, path):
        return self._http("GET", path)

    def post(self, path, body):
        return self._http("POST", path, json.dumps(body))

    def _http(self, method, path, body=None):
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=60)
        connection.request(method, f"/v1/models/{path}", body)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        return response.status, answer

    def answer(self, choice="toy"):
        """The number that tells which version has answered; None if none has."""
        status, answer = self.post(f"{choice}:predict", {"instances": [0.0]})
        return answer["predictions"][0] if status == 200 else None

    def states(self, name="toy"):
        """The state of each version, by its number."""
        status, answer = self.get(name)
        if status != 200:
            return {}
        return {int(entry["version"]): entry["state"] for entry in answer["model_version_status"]}

    def status(self, text):
        request = text_format.Parse(text, get_model_status_pb2.GetModelStatusRequest())
        return self._models.GetModelStatus(request, timeout=60)

    def reload(self, text):
        """Serves what a models.config says."""
        config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
        request = model_management_pb2.ReloadConfigRequest(config=config)
        return self._models.HandleReloadConfigRequest(request, timeout=60)


def model(folder, *, name="toy", more=""):
    """A models.config with one model."""
    return f'model_config_list {{ config {{ name: "{name}" base_path: "{folder}" {more} }} }}'


def refused(call, *arguments):
    """The code and the text of a call that fails."""
    with pytest.raises(grpc.RpcError) as failure:
        call(*arguments)
    return failure.value.code(), failure.value.details()


def asked_of(serving, folder, versions, *arguments):
    config = folder / "models.config"
    config.write_text(model(versions))
    running = serving(
        folder, "--models-config", config, "--poll", "0.05", "--access-log", "off", *arguments
    )
    return running, config


@pytest.fixture(scope="module")
def two_versions(save_toy, tmp_path_factory):
    """A folder with versions 1 and 2, which answer 0 with their number."""
    folder = tmp_path_factory.mktemp("two") / "toy"
    for number in (1, 2):
        save_toy(folder / str(number), answer=number, only=["serving_default", "slow"])
    return folder


@pytest.fixture(scope="module")
def _running(serving, two_versions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    running, config = asked_of(serving, folder, two_versions, "--models-config-poll", "0.1")
    with running as server:
        yield Asked(server, models_config=config)
        log = server.log.read_text()
    assert "Traceback" not in log, log


@pytest.fixture
def asked(_running):
    """A server; each test serves what it needs."""
    process = _running.server.process.pid
    yield _running
    assert _running.server.process.poll() is None, process


@pytest.fixture(scope="module")
def patient(serving, two_versions, tmp_path_factory):
    """A server with labels that may wait, and one look at models.config."""
    folder = tmp_path_factory.mktemp("patient")
    running, config = asked_of(serving, folder, two_versions, "--labels-may-wait")
    with running as server:
        yield Asked(server, models_config=config)
        log = server.log.read_text()
    assert "Traceback" not in log, log


def slow_start(version, *, seconds):
    """Has a version's warm-up take so long."""
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = "slow"
    request.inputs["x"].dtype = 1
    request.inputs["x"].float_val.append(seconds)
    request.inputs["x"].tensor_shape.dim.add(size=1)
    write_warmup(version, [log.SerializeToString()])


def write_warmup(version, records):
    (version / WARMUP_FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(version / WARMUP_FILE)) as writer:
        for record in records:
            writer.write(record)


def models_here():
    """Models in this process, none at first."""
    runtime = Runtime(BATCHING["cpu"], Limits())
    return Models(runtime=runtime, labels_may_wait=False)


def publish(source, target):
    """Copies a version in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = target.with_name(f".{target.name}")
    shutil.copytree(source, copy)
    copy.rename(target)


# Statuses


def test_i1_f6_each_version_has_a_status(asked, two_versions):
    asked.reload(model(two_versions, more="model_version_policy { all {} }"))
    response = asked.status('model_spec { name: "toy" }')
    found = [(e.version, e.state, e.status.error_code) for e in response.model_version_status]
    assert sorted(found) == [(1, State.AVAILABLE, 0), (2, State.AVAILABLE, 0)]
    status, answer = asked.get("toy")
    assert status == 200
    assert {entry["version"] for entry in answer["model_version_status"]} == {"1", "2"}
    for entry in answer["model_version_status"]:
        assert entry["state"] == AVAILABLE
        assert entry["status"] == {"error_code": "OK", "error_message": ""}


def test_a_number_that_json_has_not_is_kept_from_the_page(two_versions, tmp_path):
    publish(two_versions / "1", tmp_path / "toy" / "1")
    note = {"run": "r", "evaluated": {"split": "test", "accuracy": float("nan")}}
    (tmp_path / "toy" / "1" / ORIGIN_FILE).write_text(json.dumps(note))
    models = models_here()
    models.configure([ModelConfig("toy", tmp_path / "toy")])
    told = about(models)["models"]["toy"]["versions"]["1"]
    models.close()
    assert told == {"accuracy": None, "split": "test", "run": "r"}


def test_i2_a_version_may_be_asked_for_alone(asked, two_versions):
    asked.reload(model(two_versions, more="model_version_policy { all {} }"))
    response = asked.status('model_spec { name: "toy" version { value: 1 } }')
    assert [entry.version for entry in response.model_version_status] == [1]


@pytest.mark.parametrize(
    ("request_text", "code", "text"),
    [
        ("", INVALID, "Missing ModelSpec"),
        (
            'model_spec { name: "nope" }',
            grpc.StatusCode.NOT_FOUND,
            "Could not find any versions of model nope",
        ),
        (
            'model_spec { name: "toy" version { value: 99 } }',
            grpc.StatusCode.NOT_FOUND,
            "Could not find version 99 of model toy",
        ),
    ],
)
def test_i3_an_unknown_model_has_no_status(asked, two_versions, request_text, code, text):
    asked.reload(model(two_versions))
    assert refused(asked.status, request_text) == (code, text)


# Reloads


def test_i4_a_reload_needs_a_list_of_models(asked):
    assert refused(asked.reload, "") == (
        INVALID,
        "ServerModelConfig type not supported by HandleReloadConfigRequest. "
        "Only ModelConfigList is currently supported",
    )


def test_i5_a_reload_returns_when_its_model_answers(asked, two_versions, tmp_path):
    publish(two_versions / "1", tmp_path / "toy" / "1")
    slow_start(tmp_path / "toy" / "1", seconds=0.5)
    asked.reload(model(tmp_path / "toy", name="slow"))
    assert asked.states("slow") == {1: AVAILABLE}
    assert asked.answer("slow") == 1


def test_i6_i7_f8_a_model_is_unloaded_and_loaded_again(asked, two_versions, eventually):
    asked.reload(model(two_versions))
    assert asked.answer() == 2
    asked.reload("model_config_list {}")
    eventually(lambda: asked.states()[2] == END)
    assert asked.post("toy:predict", {"instances": [0.0]}) == (
        404,
        {"error": "Servable not found for request: Latest(toy)"},
    )
    status, answer = asked.get("toy/versions/2")
    (entry,) = answer["model_version_status"]
    assert (status, entry["status"]) == (200, {"error_code": "OK", "error_message": ""})
    asked.reload(model(two_versions))
    assert (asked.states()[2], asked.answer()) == (AVAILABLE, 2)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        pytest.param(
            'model_config_list { config { name: "a" base_path: "/a" } '
            'config { name: "a" base_path: "/b" } }',
            "Illegal to list model a multiple times in config list",
            id="I8",
        ),
        pytest.param(
            model("relative/path"),
            "Expected model toy to have an absolute path or URI; got base_path()=relative/path",
            id="I9",
        ),
        pytest.param(
            model("/toy", more='model_platform: "pytorch"'),
            "model toy requests unsupported platform 'pytorch'; expected 'tensorflow'",
            id="I10",
        ),
        pytest.param(
            model("/toy", more="logging_config {}"), "No request-logger-creator provided.", id="I14"
        ),
        pytest.param(model("/toy", name=""), "A model in the config list has no name.", id="name"),
    ],
)
def test_a_reload_is_refused_and_changes_nothing(asked, two_versions, config, text):
    asked.reload(model(two_versions))
    assert refused(asked.reload, config) == (INVALID, text)
    assert asked.answer() == 2


def test_a_reload_says_which_model_has_no_version(asked, tmp_path):
    assert refused(asked.reload, model(tmp_path)) == (
        grpc.StatusCode.UNKNOWN,
        f"{tmp_path}: no version to serve here. Export one: keras-cifar export {tmp_path}",
    )


def test_a_reload_of_a_path_that_is_too_long_is_refused_in_few_words(asked):
    path = f"/{'long' * 1500}"
    code, said = refused(asked.reload, model(path))
    assert (code, said) == (INVALID, f"{path[:250]}...{path[-250:]}: File name too long")
    log = asked.server.log.read_text()
    assert f"toy: keeps what is loaded: {said}" in log
    assert path not in log


@pytest.fixture
def closed(tmp_path):
    """A folder that this process may not enter; root is somebody else meanwhile."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield folder
    if is_root:
        os.seteuid(0)
    folder.chmod(0o700)


@pytest.mark.parametrize("name", ["", "toy"])
def test_a_folder_that_may_not_be_entered_is_refused(closed, name):
    folder = closed / name
    with pytest.raises(ServingError) as caught:
        models_here().configure([ModelConfig("toy", folder)])
    assert (caught.value.code, caught.value.message) == (INVALID, f"{folder}: Permission denied")


# Labels


def labelled(folder, **labels):
    lines = [f'version_labels {{ key: "{key}" value: {value} }}' for key, value in labels.items()]
    return model(folder, more=f"model_version_policy {{ all {{}} }} {' '.join(lines)}")


def unavailable(version):
    return (
        grpc.StatusCode.FAILED_PRECONDITION,
        f"Request to assign label to version {version} of model toy, "
        "which is not currently available for inference",
    )


def test_labels_choose_versions_and_move(asked, two_versions):
    asked.reload(labelled(two_versions, stable=1, canary=2))
    assert [asked.answer(f"toy/labels/{name}") for name in ("stable", "canary")] == [1, 2]
    asked.reload(labelled(two_versions, stable=2))
    assert asked.answer("toy/labels/stable") == 2
    assert asked.post("toy/labels/canary:predict", {"instances": [0.0]}) == (
        400,
        {"error": "Unrecognized servable version label: canary"},
    )


def test_i11_a_label_needs_a_loaded_version(asked, two_versions):
    asked.reload(labelled(two_versions, stable=1))
    assert refused(asked.reload, labelled(two_versions, stable=777)) == unavailable(777)
    assert asked.answer("toy/labels/stable") == 1


def test_i12_a_new_label_may_wait_for_its_version(patient, two_versions, tmp_path, eventually):
    publish(two_versions / "1", tmp_path / "toy" / "1")
    patient.reload(labelled(tmp_path / "toy", canary=2))
    assert patient.post("toy/labels/canary:predict", {"instances": [0.0]}) == (
        404,
        {"error": "Servable not found for request: Specific(toy, 2)"},
    )
    publish(two_versions / "2", tmp_path / "toy" / "2")
    assert eventually(lambda: patient.answer("toy/labels/canary")) == 2


def test_i13_a_label_that_is_there_does_not_wait(patient, two_versions):
    patient.reload(labelled(two_versions, stable=1))
    assert refused(patient.reload, labelled(two_versions, stable=777)) == unavailable(777)
    assert patient.answer("toy/labels/stable") == 1


# models.config


def test_i15_a_changed_file_is_taken_over(asked, two_versions, tmp_path, eventually):
    asked.reload(model(two_versions))
    publish(two_versions / "1", tmp_path / "other" / "7")
    asked.models_config.write_text(model(tmp_path / "other", name="other"))
    assert eventually(lambda: asked.answer("other")) == 1
    eventually(lambda: asked.states()[2] == END)
    assert asked.answer() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list { nonsense", "Error parsing text-format tensorflow.serving.Mod"),
        ("", "ServerModelConfig type not supported by HandleReloadConfigRequest."),
    ],
)
def test_a_wrong_file_changes_nothing_but_the_log(asked, two_versions, eventually, text, message):
    asked.reload(model(two_versions))
    before = asked.server.log.read_text().count(f"{asked.models_config}: {message}")
    asked.models_config.write_text(text)
    eventually(
        lambda: asked.server.log.read_text().count(f"{asked.models_config}: {message}") > before
    )
    assert asked.answer() == 2


def test_a_file_that_is_gone_changes_nothing(asked, two_versions, eventually):
    asked.reload(model(two_versions))
    content = asked.models_config.read_text()
    asked.models_config.unlink()
    line = f"keeps the models as they are: {asked.models_config}: No such file or directory"
    eventually(lambda: line in asked.server.log.read_text())
    assert asked.answer() == 2
    asked.models_config.write_text(content)


def test_a_file_that_fails_is_tried_at_each_look(asked, two_versions, tmp_path, eventually):
    fault = f"{asked.models_config}: {unavailable(2)[1]}"
    publish(two_versions / "1", tmp_path / "toy" / "1")
    asked.models_config.write_text(labelled(tmp_path / "toy", canary=2))
    eventually(lambda: fault in asked.server.log.read_text())
    publish(two_versions / "2", tmp_path / "toy" / "2")
    assert eventually(lambda: asked.answer("toy/labels/canary")) == 2
    assert asked.server.log.read_text().count(fault) == 1


def test_a_file_that_changed_while_the_models_were_loading(two_versions, tmp_path, eventually):
    models = models_here()
    path = tmp_path / "models.config"
    path.write_text(model(two_versions))
    settings = Settings(models_config=path, models_config_poll_seconds=0.05)
    with watching(models, settings, configs=[]):
        assert eventually(lambda: models.available().get("toy"))
    models.close()


def test_i16_without_polling_the_file_is_read_once(patient, two_versions, tmp_path):
    patient.reload(model(two_versions))
    publish(two_versions / "1", tmp_path / "other" / "7")
    patient.models_config.write_text(model(tmp_path / "other", name="other"))
    # As long as ten looks at the models' folders.
    threading.Event().wait(0.5)
    assert patient.answer("other") is None
    assert patient.answer() == 2


# Which versions


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        pytest.param("", {3}, id="I18"),
        pytest.param("latest {}", {3}, id="I18-latest"),
        pytest.param("latest { num_versions: 2 }", {2, 3}, id="I19-latest"),
        pytest.param("all {}", {1, 2, 3}, id="I19-all"),
        pytest.param("specific { versions: [1, 3] }", {1, 3}, id="I19-specific"),
    ],
)
def test_a_policy_chooses_the_versions(asked, two_versions, tmp_path, policy, versions):
    for number in (1, 2, 3):
        publish(two_versions / "1", tmp_path / "toy" / str(number))
    name = f"policy{len(policy)}"
    more = f"model_version_policy {{ {policy} }}" if policy else ""
    asked.reload(model(tmp_path / "toy", name=name, more=more))
    assert asked.states(name) == dict.fromkeys(versions, AVAILABLE)


def test_i20_a_folder_is_a_version_if_its_name_is_a_number(asked, two_versions, tmp_path):
    names = ("00000123", "20170111173521", str(2**63 - 1), str(2**63), "v1", "1.0", "-1", ".5")
    for name in names:
        publish(two_versions / "1", tmp_path / "toy" / name)
    (tmp_path / "toy" / "99").write_text("a file")
    more = "model_version_policy { all {} }"
    asked.reload(model(tmp_path / "toy", name="names", more=more))
    states = asked.states("names")
    assert {number for number, state in states.items() if state == AVAILABLE} == {
        123,
        20170111173521,
        2**63 - 1,
    }
    assert asked.answer("names/versions/123") == 1


# Versions that come and go


def test_i21_a_new_version_is_loaded_before_the_old_one_goes(
    asked, two_versions, tmp_path, eventually
):
    folder = tmp_path / "toy"
    publish(two_versions / "1", folder / "1")
    asked.reload(model(folder, name="gap"))
    publish(two_versions / "2", tmp_path / "next" / "2")
    slow_start(tmp_path / "next" / "2", seconds=4)
    (tmp_path / "next" / "2").rename(folder / "2")
    eventually(lambda: asked.states("gap").get(2) == LOADING)
    assert asked.states("gap")[1] == AVAILABLE
    answers = [asked.answer("gap")]
    while answers[-1] != 2:
        answers.append(asked.answer("gap"))
    assert [answer for answer, _ in itertools.groupby(answers)] == [1, 2]
    eventually(lambda: asked.states("gap") == {1: END, 2: AVAILABLE})


def damaged(how, version):
    if how == "no graph":
        (version / "saved_model.pb").unlink()
    elif how == "no weights":
        shutil.rmtree(version / "variables")
    elif how == "cut weights":
        (weights,) = (version / "variables").glob("*.data-*")
        weights.write_bytes(weights.read_bytes()[:2])
    elif how == "nonsense":
        (version / "saved_model.pb").write_bytes(b"nonsense" * 100)
    else:
        shutil.rmtree(version)
        version.mkdir()


NO_GRAPH = r"SavedModel file does not exist at: \S+/2/\{saved_model.pbtxt\|saved_model.pb\}"


@pytest.mark.parametrize(
    ("how", "failure"),
    [
        ("no graph", ("NOT_FOUND", NO_GRAPH)),
        ("empty", ("NOT_FOUND", NO_GRAPH)),
        ("no weights", ("UNKNOWN", r"ValueError: The passed save_path is not a valid .*/2/\S+")),
        ("cut weights", ("OUT_OF_RANGE", "Read less bytes than requested")),
        ("nonsense", ("NOT_FOUND", r"Cannot parse file b'\S+/2/saved_model.pb': Error parsing .*")),
    ],
)
def test_i22_f7_a_broken_version_leaves_the_old_one(
    asked, two_versions, tmp_path, eventually, how, failure
):
    folder, name = tmp_path / "toy", how.replace(" ", "-")
    publish(two_versions / "1", folder / "1")
    asked.reload(model(folder, name=name))
    publish(two_versions / "2", tmp_path / "broken")
    damaged(how, tmp_path / "broken")
    (tmp_path / "broken").rename(folder / "2")
    eventually(lambda: asked.states(name).get(2) == END)
    assert (asked.states(name)[1], asked.answer(name)) == (AVAILABLE, 1)
    status, answer = asked.get(f"{name}/versions/2")
    (entry,) = answer["model_version_status"]
    code, message = failure
    assert (status, entry["status"]["error_code"]) == (200, code)
    assert re.fullmatch(message, entry["status"]["error_message"])


def test_a_version_that_was_half_copied_is_loaded_when_it_is_whole(
    asked, two_versions, tmp_path, eventually
):
    folder = tmp_path / "toy"
    publish(two_versions / "1", folder / "1")
    asked.reload(model(folder, name="half"))
    (folder / "2").mkdir()
    shutil.copy(two_versions / "2" / "saved_model.pb", folder / "2")
    eventually(lambda: asked.states("half").get(2) == END)
    shutil.copytree(two_versions / "2" / "variables", folder / "2" / "variables")
    assert eventually(lambda: asked.answer("half") == 2)
    eventually(lambda: asked.states("half") == {1: END, 2: AVAILABLE})


def test_i23_without_versions_the_model_is_unloaded(asked, two_versions, tmp_path, eventually):
    folder = tmp_path / "toy"
    publish(two_versions / "1", folder / "1")
    asked.reload(model(folder, name="gone"))
    shutil.rmtree(folder / "1")
    eventually(lambda: asked.states("gone") == {1: END})
    assert asked.answer("gone") is None
    publish(two_versions / "2", folder / "2")
    assert eventually(lambda: asked.answer("gone")) == 2


def test_without_its_folder_a_model_goes_on(asked, two_versions, tmp_path, eventually):
    folder = tmp_path / "toy"
    publish(two_versions / "1", folder / "1")
    asked.reload(model(folder, name="away"))
    folder.rename(tmp_path / "elsewhere")
    line = f"away: keeps what is loaded: {folder}: no such folder"
    eventually(lambda: line in asked.server.log.read_text())
    time.sleep(0.5)  # some more looks
    assert asked.server.log.read_text().count(line) == 1
    assert asked.answer("away") == 1
    (tmp_path / "elsewhere").rename(folder)


def test_a_version_goes_when_its_last_request_has_its_answer(
    asked, two_versions, tmp_path, eventually
):
    folder = tmp_path / "toy"
    publish(two_versions / "1", folder / "1")
    asked.reload(model(folder, name="late"))
    answers = []
    body = {"signature_name": "slow", "instances": [4.0]}
    asking = threading.Thread(target=lambda: answers.append(asked.post("late:predict", body)))
    asking.start()
    threading.Event().wait(1)
    shutil.rmtree(folder / "1")
    eventually(lambda: asked.states("late") == {1: "UNLOADING"})
    assert asked.answer("late") is None
    asking.join()
    assert answers == [(200, {"predictions": [5.0]})]
    eventually(lambda: asked.states("late") == {1: END})


def test_a_version_that_comes_back_is_available_when_its_predecessor_ends(two_versions):
    configs = [ModelConfig("toy", two_versions)]
    models = models_here()
    models.configure(configs)
    with models.borrow("toy"):
        models.configure([])
        assert models.statuses("toy")[2].state is State.UNLOADING
        models.configure(configs)
        assert models.statuses("toy")[2].state is State.AVAILABLE
    assert models.statuses("toy")[2].state is State.AVAILABLE
    models.close()
    assert models.statuses("toy")[2].state is State.END
    with pytest.raises(ServingError, match="not found"), models.borrow("toy"):
        pass
