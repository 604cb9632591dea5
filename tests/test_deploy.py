"""What `deploy` writes is read back by the format's own library, and by those who will run it."""

import contextlib
import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from pathlib import Path

import compose_pydantic
import kubernetes_validate
import pytest
import tensorflow as tf
import yaml
from click.testing import CliRunner
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from keras_cifar.cli import main
from keras_cifar.deploy import deploy
from keras_cifar.serving import BATCHING

FILES = {
    "README.md",
    "batching_parameters.txt",
    "docker-compose.yml",
    "kubernetes.yaml",
    "models.config",
    "monitoring.config",
    "prometheus.yml",
}
# The schemas of Kubernetes releases from 2023 and of 2026.
KUBERNETES_VERSIONS = ("1.27", "1.36")


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def device(request):
    return request.param


@pytest.fixture(scope="module")
def kit(exported, device, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit") / "a kit"
    deploy(exported.version.parent, folder, device=device)
    return folder


def compose(kit):
    return yaml.safe_load((kit / "docker-compose.yml").read_text())


def kubernetes(kit):
    documents = yaml.safe_load_all((kit / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


def flags(arguments):
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments)


# TensorFlow Serving's own files


def test_models_config_is_what_the_server_reads(kit):
    text = (kit / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("cifar10", "/models/cifar10")
    assert model.model_platform == "tensorflow"
    assert list(model.model_version_policy.specific.versions) == [1]
    assert dict(model.version_labels) == {"stable": 1, "canary": 1}
    assert not model.HasField("logging_config")


def parse(text, **fields):
    """Reads a text with a message class of these fields, each named with its type.

    For two messages that the package with TensorFlow Serving's stubs has not got. Their names and
    types are those of session_bundle_config.proto and monitoring_config.proto; the text form has
    no use for their numbers.
    """
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name="Message")
    for number, (name, kind) in enumerate(fields.items(), start=1):
        field = message.field.add(name=name, number=number, label="LABEL_OPTIONAL")
        if kind.endswith("Value"):
            field.type, field.type_name = field.TYPE_MESSAGE, f".google.protobuf.{kind}"
        elif kind == "repeated int64":
            field.type, field.label = field.TYPE_INT64, field.LABEL_REPEATED
        else:
            field.type = {"bool": field.TYPE_BOOL, "string": field.TYPE_STRING}[kind]
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return text_format.Parse(
        text, message_factory.GetMessageClass(pool.FindMessageTypeByName("Message"))()
    )


def test_batching_parameters_keep_the_servers_rules(kit, device):
    parameters = parse(
        (kit / "batching_parameters.txt").read_text(),
        max_batch_size="Int64Value",
        batch_timeout_micros="Int64Value",
        max_enqueued_batches="Int64Value",
        num_batch_threads="Int64Value",
        thread_pool_name="StringValue",
        allowed_batch_sizes="repeated int64",
        pad_variable_length_inputs="bool",
        enable_large_batch_splitting="BoolValue",
        max_execution_batch_size="Int64Value",
    )
    sizes = list(parameters.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) == list(BATCHING[device].allowed_batch_sizes)
    # The last one: of max_batch_size without splitting, of max_execution_batch_size with it.
    assert parameters.enable_large_batch_splitting.value
    assert sizes[-1] == parameters.max_execution_batch_size.value
    assert parameters.max_batch_size.value == BATCHING[device].max_batch_size
    assert parameters.num_batch_threads.value >= 1


def test_monitoring_config_names_the_path_that_prometheus_reads(kit):
    text = (kit / "monitoring.config").read_text()
    (inner,) = re.findall(r"prometheus_config \{(.*)\}", text, re.DOTALL)
    config = parse(inner, enable="bool", path="string")
    assert config.enable
    (job,) = yaml.safe_load((kit / "prometheus.yml").read_text())["scrape_configs"]
    assert job["metrics_path"] == config.path
    assert job["static_configs"][0]["targets"] == ["tensorflow-serving:8501"]
    annotations = kubernetes(kit)["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == config.path


def test_a_gpu_server_takes_memory_as_it_needs_it(kit, device):
    path = kit / "session.config"
    assert path.exists() == (device == "gpu")
    if device == "gpu":
        config = text_format.Parse(path.read_text(), tf.compat.v1.ConfigProto())
        assert config.gpu_options.allow_growth


# Docker Compose and Kubernetes


def test_compose_file_keeps_the_schema(kit):
    compose_pydantic.ComposeSpecification.model_validate(compose(kit))
    spoiled = compose(kit)
    spoiled["services"]["tensorflow-serving"]["imgae"] = "x"
    with pytest.raises(ValueError, match="imgae"):
        compose_pydantic.ComposeSpecification.model_validate(spoiled)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_file_keeps_the_schema(kit, version):
    documents = kubernetes(kit)
    assert set(documents) == {
        "PersistentVolumeClaim",
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    }
    for document in documents.values():
        kubernetes_validate.validate(document, version, strict=True)
    spoiled = documents["Deployment"]
    spoiled["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(spoiled, version, strict=True)


def test_compose_finds_model_and_configuration_where_the_files_say(kit, exported, device):
    server = compose(kit)["services"]["tensorflow-serving"]
    assert server["entrypoint"] == ["tensorflow_model_server"]
    models, config = server["volumes"]
    assert (kit / models["source"]).resolve() == exported.version.parent
    assert models["target"] == "/models/cifar10"
    assert (config["source"], config["target"]) == (".", "/config")
    assert models["read_only"]
    assert config["read_only"]
    assert_flags_name_files(flags(server["command"]), kit)
    image = "tensorflow/serving:2.20.0" + ("-gpu" if device == "gpu" else "")
    assert server["image"] == f"${{TF_SERVING_IMAGE:-{image}}}"
    assert ("deploy" in server) == (device == "gpu")


def assert_flags_name_files(given, kit):
    paths = [Path(value) for name, value in given.items() if name.endswith("_file")]
    assert len(paths) >= 3
    for path in paths:
        assert path.parent == Path("/config")
        assert (kit / path.name).is_file()
    assert given["enable_batching"] == "true"
    assert given["allow_version_labels_for_unavailable_models"] == "true"
    assert (given["port"], given["rest_api_port"]) == ("8500", "8501")


def test_kubernetes_runs_the_server_as_compose_does(kit, device):
    pod = kubernetes(kit)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = flags(container["args"])
    assert_flags_name_files(given, kit)
    del given["grpc_channel_arguments"]
    assert given == flags(compose(kit)["services"]["tensorflow-serving"]["command"])
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (device == "gpu")
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert {"/models/cifar10", "/config", "/tmp"} == set(mounts)
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}


def test_kubernetes_waits_for_a_loaded_version_and_lets_requests_end(kit):
    pod = kubernetes(kit)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] == "/v1/models/cifar10/metadata"
    assert "tcpSocket" in container["livenessProbe"]
    (_, seconds) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert int(seconds) < pod["terminationGracePeriodSeconds"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_kubernetes_objects_mean_one_another(kit):
    documents = kubernetes(kit)
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert documents["Service"]["spec"]["selector"] == labels
    assert documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    scaled = documents["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert scaled["name"] == documents["Deployment"]["metadata"]["name"]
    volumes = documents["Deployment"]["spec"]["template"]["spec"]["volumes"]
    claim = next(v["persistentVolumeClaim"] for v in volumes if "persistentVolumeClaim" in v)
    assert claim["claimName"] == documents["PersistentVolumeClaim"]["metadata"]["name"]


# The commands that the files and README show


@contextlib.contextmanager
def server(status):
    """Answers every request with `status`, as long as the block lasts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    asked = []
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield httpd.server_port, asked
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (404, False)])
def test_the_health_check_asks_whether_a_version_is_loaded(kit, status, is_healthy):
    kind, *command = compose(kit)["services"]["tensorflow-serving"]["healthcheck"]["test"]
    assert kind == "CMD"
    with server(status) as (port, asked):
        here = [part.replace("/8501", f"/{port}") for part in command]
        result = subprocess.run(here, capture_output=True, check=False, timeout=300)
    assert (result.returncode == 0) == is_healthy
    assert asked == ["/v1/models/cifar10/metadata"]


def test_the_health_check_fails_where_nothing_listens(kit, nobody):
    _, *command = compose(kit)["services"]["tensorflow-serving"]["healthcheck"]["test"]
    here = [part.replace("/8501", f"/{nobody.getsockname()[1]}") for part in command]
    assert subprocess.run(here, capture_output=True, check=False, timeout=300).returncode


def shell_blocks(kit):
    return re.findall(r"```sh\n(.*?)```", (kit / "README.md").read_text(), re.DOTALL)


def test_the_readme_names_every_file_and_leaves_no_placeholder(kit, device):
    readme = (kit / "README.md").read_text()
    for path in kit.iterdir():
        assert "@{" not in path.read_text()
        assert path.name == "README.md" or f"`{path.name}`" in readme
    assert ("session.config" in readme) == (device == "gpu")


def test_the_readmes_commands_are_shell_commands(kit):
    for block in shell_blocks(kit):
        subprocess.run(["bash", "-n", "-c", block], check=True)


def test_the_readmes_request_is_the_one_that_the_signature_takes(kit, tmp_path):
    """Run with curl replaced by a command that prints what it is given to send."""
    (block,) = [block for block in shell_blocks(kit) if "b64" in block]
    (tmp_path / "cat.png").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "curl").write_text("#!/bin/sh\ncat\n")
    (tmp_path / "curl").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", "-c", block]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    request = json.loads(result.stdout)
    assert request["signature_name"] == "image_bytes"
    (instance,) = request["instances"]
    assert len(instance["b64"]) == -(-256 * 20 // 3) * 4


def test_the_readmes_config_map_holds_what_the_server_is_told_to_read(kit):
    (block,) = [block for block in shell_blocks(kit) if "configmap" in block]
    given = {Path(word.partition("=")[2]).name for word in block.split() if "--from-file" in word}
    (container,) = kubernetes(kit)["Deployment"]["spec"]["template"]["spec"]["containers"]
    told = flags(container["args"]).items()
    assert given == {Path(value).name for name, value in told if name.endswith("_file")}


def test_the_readmes_upload_pod_is_one_and_copies_the_version(kit, exported):
    (block,) = [block for block in shell_blocks(kit) if "kubectl cp" in block]
    (manifest,) = re.findall(r"<<'END'\n(.*?)\nEND", block, re.DOTALL)
    kubernetes_validate.validate(yaml.safe_load(manifest), KUBERNETES_VERSIONS[-1], strict=True)
    (copy,) = [line for line in block.splitlines() if line.startswith("kubectl cp")]
    source, target = shlex.split(copy)[2:]
    assert (kit / source).resolve() == exported.version
    assert target.endswith(":/models/.unfinished-1")


# Choices


def test_the_files_are_returned_and_nothing_else_is_written(exported, tmp_path):
    files = deploy(exported.version.parent, tmp_path / "a" / "b")
    assert {path.name for path in files} == FILES == {p.name for p in files[0].parent.iterdir()}
    assert files[0].name == "README.md"


def test_a_name_and_an_image_of_ones_own(exported, tmp_path):
    deploy(exported.version.parent, tmp_path, model_name="My_net.v2", image="me/serving:1.0-arm")
    assert "/models/My_net.v2" in (tmp_path / "models.config").read_text()
    deployment = kubernetes(tmp_path)["Deployment"]
    assert deployment["metadata"]["name"] == "my-net-v2"
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "me/serving:1.0-arm"
    for document in kubernetes(tmp_path).values():
        kubernetes_validate.validate(document, KUBERNETES_VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", ["$HOME", "it's", 'a "quoted" {name}', "ümlaut: yes", "😀"])
def test_folders_with_signs_of_yaml_shell_and_compose(exported, tmp_path, folder):
    model_dir = tmp_path / folder
    (model_dir / "3").mkdir(parents=True)
    (model_dir / "3" / "saved_model.pb").touch()
    kit = tmp_path / "kit"
    deploy(model_dir, kit)
    source = compose(kit)["services"]["tensorflow-serving"]["volumes"][0]["source"]
    assert "$" not in source.replace("$$", "")
    assert (kit / source.replace("$$", "$")).resolve() == model_dir.resolve()
    test_the_readmes_commands_are_shell_commands(kit)


def test_a_folder_whose_name_is_no_text_is_refused(exported, tmp_path):
    model_dir = shutil.copytree(exported.version.parent, tmp_path / "m\udcff")
    with pytest.raises(OSError, match=r"m\\udcff: is not UTF-8, as the files that name it are"):
        deploy(model_dir, tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


def test_the_highest_version_is_served(exported, tmp_path):
    for name in ("2", "010", "9"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "saved_model.pb").touch()
    deploy(tmp_path / "models", tmp_path / "kit")
    assert "versions: 10\n" in (tmp_path / "kit" / "models.config").read_text()
    assert "add `versions: 11` below `versions: 10`" in (tmp_path / "kit" / "README.md").read_text()


def test_files_are_replaced_only_when_told_so(exported, tmp_path):
    (tmp_path / "models.config").write_text("mine")
    with pytest.raises(FileExistsError, match=r"has models.config already. Replace them by --ov"):
        deploy(exported.version.parent, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["models.config"]
    assert (tmp_path / "models.config").read_text() == "mine"
    (tmp_path / "notes.txt").write_text("mine too")
    deploy(exported.version.parent, tmp_path, existing="replace")
    assert "model_config_list" in (tmp_path / "models.config").read_text()
    assert (tmp_path / "notes.txt").read_text() == "mine too"


@pytest.mark.parametrize(
    "name", ["", "a/b", "../x", "-a", "1st", "a b", "a.", "é", "a\n", "x" * 51]
)
def test_a_model_name_that_is_none_is_refused(exported, tmp_path, name):
    with pytest.raises(ValueError, match=r"^model_name: got .*, expected at most 50 letters"):
        deploy(exported.version.parent, tmp_path / "kit", model_name=name)
    assert not (tmp_path / "kit").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device: got 'tpu', expected one of cpu, gpu"),
        ({"image": "a b"}, "image: got 'a b', expected a name such as tensorflow/serving:2.20.0"),
        ({"image": "x}${Y"}, "image: got"),
    ],
)
def test_other_values_that_cannot_be_are_refused(exported, tmp_path, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        deploy(exported.version.parent, tmp_path, **options)


def test_a_model_that_the_servers_user_cannot_read_is_named_with_the_way_out(exported, tmp_path):
    model_dir = shutil.copytree(exported.version.parent, tmp_path / "models")
    for path in (model_dir, *model_dir.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    command = ["deploy", str(model_dir), str(tmp_path / "kit")]
    said = CliRunner().invoke(main, command).output
    found = re.search(r"(\S+): other users cannot read it, .+ Open it: (chmod .+)", said)
    assert found, said
    assert found[1] == str(model_dir)
    subprocess.run(shlex.split(found[2]), check=True)
    assert "cannot read" not in CliRunner().invoke(main, [*command, "--overwrite"]).output
