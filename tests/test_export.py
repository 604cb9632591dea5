"""A version that was published is what TensorFlow Serving takes, and answers as the model does."""

import hashlib
import io
import json
import math
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.client import predict_files, prepare_image
from keras_cifar.evaluate import evaluate
from keras_cifar.export import export, saved_model
from keras_cifar.model.article import build_model
from keras_cifar.model.inference import inference_model
from keras_cifar.model.load import load_model
from keras_cifar.model.tta import with_views
from keras_cifar.model_dir import versions
from keras_cifar.run_dir import RunDir
from keras_cifar.serving import BATCHING, WARMUP_FILE

SCRIPTS = Path(__file__).parent.parent / "scripts"
OUTPUTS = {"probabilities", "label", "class_id"}


@pytest.fixture(scope="module")
def loaded(exported):
    """A session and the graph in it, by the loader that TensorFlow Serving uses."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(exported.version))
    yield session, graph
    session.close()


@pytest.fixture(scope="module")
def meta_graph(loaded):
    return loaded[1]


@pytest.fixture(scope="module")
def served(loaded):
    """Runs a signature as TensorFlow Serving does."""
    session, meta_graph = loaded

    def run(name, value):
        signature = meta_graph.signature_def[name]
        (given,) = signature.inputs.values()
        outputs = {key: info.name for key, info in signature.outputs.items()}
        return session.run(outputs, {given.name: value})

    return run


@pytest.fixture
def copied_run(trained_run, tmp_path):
    """A run of its own, for a test that changes it."""
    return RunDir(shutil.copytree(trained_run.path, tmp_path / "run"))


def expected_probabilities(run, images):
    return tf.nn.softmax(load_model(run.model).predict(images, verbose=0)).numpy()


def png(image, *, size=None):
    file = io.BytesIO()
    picture = Image.fromarray(image)
    (picture.resize(size) if size else picture).save(file, "PNG")
    return file.getvalue()


# Answers


@pytest.mark.parametrize("number", [1, 5, 64])
def test_pixels_get_the_keras_models_answer(served, trained_run, sample, number):
    images = sample.images[100 : 100 + number]
    expected = expected_probabilities(trained_run, images)
    found = served("serving_default", images)
    assert set(found) == OUTPUTS
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(found["class_id"], expected.argmax(axis=1))
    labels = [label.decode() for label in found["label"]]
    assert labels == [CLASS_NAMES[i] for i in expected.argmax(axis=1)]


def test_encoded_images_get_the_same_answer_as_their_pixels(served, sample):
    images = sample.images[:9]
    from_pixels = served("serving_default", images)
    from_bytes = served("image_bytes", [png(image) for image in images])
    for name in ("label", "class_id"):
        np.testing.assert_array_equal(from_bytes[name], from_pixels[name])
    np.testing.assert_allclose(from_bytes["probabilities"], from_pixels["probabilities"], atol=1e-5)


def test_images_of_any_size_are_prepared_as_predict_does(served, trained_run, sample, tmp_path):
    sizes = [(32, 32), (90, 60), (20, 41), (300, 300)]
    files = [png(image, size=size) for image, size in zip(sample.images, sizes, strict=False)]
    found = served("image_bytes", files)["probabilities"]
    prepared = np.stack([prepare_image(file) for file in files])
    expected = served("serving_default", prepared)["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    paths = [tmp_path / f"{i}.png" for i in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    for prediction, row in zip(predict_files(paths, model=trained_run.path), found, strict=True):
        assert prediction.label == CLASS_NAMES[row.argmax()]
        expected = [prediction.probabilities[name] for name in CLASS_NAMES]
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_bytes_that_are_no_image_are_an_invalid_argument(served):
    with pytest.raises(tf.errors.InvalidArgumentError, match="image"):
        served("image_bytes", [b"no image"])


def test_all_test_images_of_the_sample_get_the_keras_models_labels(exported, trained_run):
    command = [sys.executable, SCRIPTS / "compare_export.py", trained_run.path, exported.version]
    result = subprocess.run(
        [*command, "--dataset", "sample"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("labels 500 of 500 the same") == 3


# What a server meets in the file


def test_signatures_have_the_documented_names_types_and_shapes(meta_graph):
    saved_model.check_graph(meta_graph)
    assert meta_graph.signature_def["serving_default"].method_name == ("tensorflow/serving/predict")


def test_a_graph_with_another_signature_is_refused(meta_graph):
    changed = type(meta_graph)()
    changed.CopyFrom(meta_graph)
    outputs = changed.signature_def["serving_default"].outputs
    outputs["probabilities"].dtype = tf.bfloat16.as_datatype_enum
    with pytest.raises(RuntimeError, match=r"signatures: got .*bfloat16"):
        saved_model.check_graph(changed)


@pytest.mark.parametrize("place", ["graph", "function"])
def test_a_graph_that_a_server_cannot_run_is_refused(meta_graph, place):
    for spoil, message in (
        (lambda node: setattr(node, "op", "PyFunc"), "got PyFunc, which runs Python"),
        (lambda node: setattr(node.attr["_XlaMustCompile"], "b", True), "has _XlaMustCompile"),
    ):
        changed = type(meta_graph)()
        changed.CopyFrom(meta_graph)
        graph = changed.graph_def
        spoil(graph.node[-1] if place == "graph" else graph.library.function[-1].node_def[-1])
        with pytest.raises(RuntimeError, match=message):
            saved_model.check_graph(changed)


def test_every_weight_is_stored_once(exported, meta_graph, trained_run):
    prefix = str(exported.version / "variables" / "variables")
    shapes = [shape for _, shape in tf.train.list_variables(prefix)]
    folded = inference_model(load_model(trained_run.model), precision="float32")
    assert sum(map(math.prod, shapes)) - shapes.count([]) == folded.count_params() == 5_851_338
    graph = meta_graph.graph_def
    nodes = [*graph.node, *(n for function in graph.library.function for n in function.node_def)]
    constants = [
        math.prod(tf.make_ndarray(n.attr["value"].tensor).shape) for n in nodes if n.op == "Const"
    ]
    assert max(constants) < 100
    warmup = (exported.version / WARMUP_FILE).stat().st_size
    assert exported.size - warmup < 1.02 * 4 * folded.count_params()


def test_what_tensorflow_cannot_clear_up_is_not_published(trained_run, tmp_path):
    leftover = tmp_path / "variables" / "variables_temp"
    leftover.mkdir(parents=True)
    (leftover / "of another").touch()  # so TensorFlow cannot remove the folder
    model = inference_model(load_model(trained_run.model), precision="float32")
    saved_model.write(model, tmp_path)
    assert (tmp_path / "saved_model.pb").exists()
    assert not leftover.exists()


def test_it_loads_in_python_too(exported, trained_run, sample):
    loaded = tf.saved_model.load(str(exported.version))
    images = sample.images[:8]
    found = loaded.signatures["serving_default"](image=tf.constant(images))
    expected = expected_probabilities(trained_run, images)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    layer = keras.layers.TFSMLayer(str(exported.version), call_endpoint="serving_default")
    np.testing.assert_array_equal(layer(images)["class_id"], expected.argmax(axis=1))


def test_with_test_time_augmentation_it_gives_the_mean_answer(copied_run, sample, tmp_path, capsys):
    evaluate(copied_run, split="validation", data_dir=None)
    version = export(copied_run, tmp_path / "models", views=6).version
    origin = json.loads((version / "origin.json").read_text())
    # What was measured is another model: of one view.
    assert (origin["views"], origin["evaluated"]) == (6, None)
    assert (
        f"exporting without accuracy: {copied_run.metrics}: measured with other views of an image. "
        f"Measure it again: keras-cifar evaluate --tta {copied_run.path}\n"
    ) in capsys.readouterr().err
    model = with_views(load_model(copied_run.model), 6)
    images = sample.images[:8]
    expected = tf.nn.softmax(model.predict(images, verbose=0)).numpy()
    found = tf.saved_model.load(str(version)).signatures["serving_default"](tf.constant(images))
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    alone = expected_probabilities(copied_run, images)
    assert np.abs(expected - alone).max() > 1e-3


# Warm-up


@pytest.fixture(scope="module")
def warmup(exported):
    records = tf.data.TFRecordDataset(str(exported.version / WARMUP_FILE))
    return [prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in records]


def test_warm_up_has_a_request_for_each_signature_and_batch_size(warmup):
    requests = [log.predict_log.request for log in warmup]
    found = sorted(
        (request.model_spec.signature_name, len(tf.make_ndarray(tensor)))
        for request in requests
        for tensor in request.inputs.values()
    )
    sizes = {size for each in BATCHING.values() for size in each.allowed_batch_sizes}
    # A server refuses larger requests, its own too, and then the whole version.
    assert all(max(sizes) <= each.max_batch_size for each in BATCHING.values())
    expected = [(name, size) for name in ("image_bytes", "serving_default") for size in sizes]
    assert found == sorted(expected)
    assert {request.model_spec.name for request in requests} == {"cifar10"}
    assert len(requests) <= 1000


def test_the_server_can_answer_its_own_warm_up_requests(warmup, served):
    for log in warmup:
        request = log.predict_log.request
        ((name, tensor),) = request.inputs.items()
        assert name == {"serving_default": "image"}.get(request.model_spec.signature_name, name)
        value = tf.make_ndarray(tensor)
        assert len(served(request.model_spec.signature_name, value)["label"]) == len(value)


def test_warm_up_requests_are_what_the_official_classes_write(warmup):
    for log in warmup:
        again = prediction_log_pb2.PredictionLog()
        again.predict_log.request.CopyFrom(log.predict_log.request)
        assert again == log


# Where it comes from


def test_the_origin_is_written_down(copied_run, tmp_path):
    metrics = evaluate(copied_run, split="validation", data_dir=None)
    exported = export(copied_run, tmp_path / "models")
    origin = json.loads((exported.version / "origin.json").read_text())
    assert origin["run"] == str(copied_run.path)
    assert origin["settings"] == json.loads(copied_run.config.read_text())["settings"]
    assert origin["trained_with"]["versions"]["tensorflow"] == tf.__version__
    assert origin["exported_with"]["keras"] == keras.__version__
    assert origin["model_sha256"] == hashlib.sha256(copied_run.model.read_bytes()).hexdigest()
    assert origin["evaluated"] == {
        "split": "validation",
        "examples": 400,
        "loss": metrics.loss,
        "accuracy": metrics.accuracy,
    }
    assert origin["agreement"]["images"] == 72
    assert origin["agreement"]["largest_difference"] == exported.difference <= 1e-5
    assert origin["classes"] == list(CLASS_NAMES)


def test_a_run_that_was_not_evaluated_says_so(exported):
    assert json.loads((exported.version / "origin.json").read_text())["evaluated"] is None


@pytest.fixture(scope="module")
def half_of_a_damaged_run(trained_run, tmp_path_factory):
    """Its model in bfloat16, and what was said; metrics.json is not what evaluate writes."""
    run = RunDir(shutil.copytree(trained_run.path, tmp_path_factory.mktemp("damaged") / "run"))
    evaluate(run, split="validation", data_dir=None)
    run.metrics.write_text(json.dumps(json.loads(run.metrics.read_text()) | {"loss": math.nan}))
    with redirect_stderr(io.StringIO()) as said:
        return export(run, run.path.parent / "models", precision="bfloat16"), said.getvalue()


@pytest.fixture
def half(half_of_a_damaged_run):
    return half_of_a_damaged_run[0]


def test_metrics_that_evaluate_did_not_write_are_left_out(half_of_a_damaged_run):
    half, said = half_of_a_damaged_run
    assert json.loads((half.version / "origin.json").read_text())["evaluated"] is None
    assert re.search("exporting without accuracy: .*/metrics.json: not the metrics of a run", said)


# bfloat16


def test_bfloat16_halves_the_weights_and_gives_float32(trained_run, exported, sample, half):
    assert half.size < 0.6 * exported.size
    assert 1e-5 < half.difference <= 1e-2
    found = saved_model.probabilities(half.version, [sample.images[:64]])
    expected = expected_probabilities(trained_run, sample.images[:64])
    for (probabilities,) in found.values():
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, expected, atol=2e-2)


def test_answers_that_differ_too_much_are_not_published(copied_run, tmp_path, sample):
    model = load_model(copied_run.model)
    # Where no class is ahead of the others, what bfloat16 rounds off, enlarged, decides the answer.
    logits = model.get_layer("logits")
    mean = model.predict(sample.images[:64], verbose=0).mean(axis=0)
    kernel, bias = logits.get_weights()
    logits.set_weights([100 * kernel, 100 * (bias - mean)])
    model.save(copied_run.model)
    with pytest.raises(
        FloatingPointError,
        match=r"^Nothing was published: probabilities in bfloat16 differ by \S+ from the Keras "
        r"model's, more than the 1e-02 that are allowed. Export it in float32.$",
    ):
        export(copied_run, tmp_path / "models", precision="bfloat16")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


def test_a_model_whose_training_diverged_is_not_published(copied_run, tmp_path):
    model = build_model(seed=0)
    logits = model.get_layer("logits")
    logits.set_weights([np.nan * value for value in logits.get_weights()])
    model.save(copied_run.model)
    with pytest.raises(FloatingPointError, match="Its training diverged"):
        export(copied_run, tmp_path / "models")
    assert versions(tmp_path / "models") == {}


# Processes


def test_the_command_prints_where_and_how_closely_and_what_comes_next(
    command, trained_run, tmp_path
):
    ended = command("export", trained_run.path, tmp_path / "models")
    assert ended.returncode == 0, ended.stderr
    version = tmp_path / "models" / "1"
    assert re.fullmatch(
        re.escape(str(version))
        + r": verified, probabilities within \d\.\de-0\d of the Keras model's, 25\.\d MB\n",
        ended.stdout,
    )
    assert ended.stderr.splitlines() == [
        "writing the model as saved_model in float32",
        "verifying it on 72 images",
        f"Deploy it: keras-cifar deploy {tmp_path / 'models'} models-server",
    ]


@pytest.mark.slow
def test_two_exports_at_once_get_numbers_of_their_own(command, trained_run, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(command, "export", trained_run.path, tmp_path / "models") for _ in "ab"]
    assert [run.result().returncode for run in runs] == [0, 0], [run.result() for run in runs]
    assert list(versions(tmp_path / "models")) == [1, 2]
    for version in versions(tmp_path / "models").values():
        saved_model.probabilities(version, [])
    assert not list((tmp_path / "models").glob(".unfinished-*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_an_export_that_is_ended_in_the_middle_leaves_no_version(
    in_a_process, trained_run, tmp_path, name
):
    model_dir = tmp_path / "models"
    ended = in_a_process(
        # Not earlier: in the callbacks by which Python clears away TensorFlow's graphs, it drops
        # what a signal's handler raises.
        "from keras_cifar.export import saved_model",
        "def loaded(*arguments, load=saved_model.load_saved_model):",
        "    graph = load(*arguments)",
        f"    os.kill(os.getpid(), signal.{name})",
        "    return graph",
        "saved_model.load_saved_model = loaded",
        "from keras_cifar.cli import main",
        f"main(['export', {str(trained_run.path)!r}, {str(model_dir)!r}])",
    )
    expected = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}[name]
    assert ended.returncode == expected, ended.stderr
    assert "verifying it" in ended.stderr
    assert versions(model_dir) == {}
    left = list(model_dir.glob(".unfinished-*"))
    assert bool(left) == (name == "SIGKILL")
    export(trained_run, model_dir)
    assert [path.name for path in sorted(model_dir.iterdir())] == [".lock", "1"]


@pytest.mark.slow
def test_a_server_that_polls_never_sees_half_a_version(trained_run, tmp_path):
    command = [sys.executable, SCRIPTS / "poll_exports.py", trained_run.path, "--exports", "2"]
    result = subprocess.run(
        [*command, "--work-dir", tmp_path], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "each one whole from its first sight to the end" in result.stdout


def test_weights_that_are_gone_when_it_is_verified_are_one_line(exported, sample, tmp_path):
    version = shutil.copytree(exported.version, tmp_path / "1")
    shutil.rmtree(version / "variables")
    with pytest.raises(OSError, match=rf"^{version}: cannot be read again \(.*not a valid"):
        saved_model.probabilities(version, [sample.images[:1]])
