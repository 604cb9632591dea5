"""TensorFlow Serving's behaviour, case by case, over real sockets.

The numbers are those of a list of cases taken from TensorFlow Serving's sources and tests, in
sections: A URLs, B choice of a model, C bodies, D answers, E classify and regress, F status and
metadata, G HTTP, H gRPC. Versions and batching have test files of their own.
"""

import base64
import gzip
import http.client
import itertools
import json
import math
import shutil
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import any_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from keras_cifar.export import export
from keras_cifar.model.load import load_model
from keras_cifar.run_dir import RunDir
from keras_cifar.serve.models.tensors import to_proto
from keras_cifar.serving import WARMUP_FILE

INVALID = grpc.StatusCode.INVALID_ARGUMENT
TOO_DEEP = "JSON Parse error: Arrays and objects are nested too deep."
# What is not as there, and why.
DIFFERENT = {
    "A13": "the page is at /",
    "C15": "a number that a type cannot hold is refused, in place of another number",
    "C40": "what is nested a thousand levels deep is refused, also under a key that nobody reads",
    "C39": "an image is looked at before it is decoded, and the text says what is wrong with it",
    "G8": "metrics are on without a configuration, and off by one that says so",
    "H12": "no flag for tensor_content in answers",
    "H18": "messages are limited to 64 MiB, and --max-body-bytes",
    "H28": "health checks are on without a flag, and turn NOT_SERVING when the server stops",
}


# Models


def spec(*shape, dtype=tf.float32, name="x"):
    return tf.TensorSpec(shape, dtype, name)


ANY = tf.TensorSpec(None, tf.float32, "x")


def save(folder, **signatures):
    """Writes a SavedModel: by signature, a function and what it takes."""
    module = tf.Module()
    functions = {
        name: tf.function(function, input_signature=specs)
        for name, (function, *specs) in signatures.items()
    }
    tf.saved_model.save(module, str(folder), signatures=functions)


def half_plus_two(x):
    return 0.5 * x + 2


def parsed(examples):
    features = {"x": tf.io.FixedLenFeature([1], tf.float32)}
    return half_plus_two(tf.io.parse_example(examples, features)["x"])


def save_half_plus_two(folder):
    inputs = spec(None, dtype=tf.string, name="inputs")
    save(
        folder,
        serving_default=(lambda x: {"y": half_plus_two(x)}, ANY),
        regress_x_to_y=(lambda inputs: {"outputs": parsed(inputs)}, inputs),
        classify_x_to_y=(lambda inputs: {"scores": parsed(inputs)}, inputs),
    )


def save_classifiers(folder):
    """Classes and scores as they should be, and as they should not."""
    inputs = spec(None, dtype=tf.string, name="inputs")

    def classes(inputs, names=("car", "bike", "bus")):
        return tf.tile([names], [tf.size(inputs), 1])

    def scores(inputs, values=(0.2, 0.7, 0.1)):
        return tf.tile([values], [tf.size(inputs), 1])

    def wrong(**outputs):
        return (lambda inputs: {name: make(inputs) for name, make in outputs.items()}, inputs)

    save(
        folder,
        good=wrong(classes=classes, scores=scores),
        classes_are_numbers=wrong(classes=scores, scores=scores),
        scores_are_words=wrong(classes=classes, scores=classes),
        other_batch=wrong(classes=lambda inputs: classes(inputs)[:-1], scores=scores),
        other_width=wrong(classes=lambda inputs: classes(inputs)[:, 1:], scores=scores),
    )


def save_echo(folder, wait):
    """Gives back what it is given, in many types, and some constants."""

    def echo(dtype):
        return (lambda x: {"y": tf.identity(x)}, tf.TensorSpec(None, dtype, "x"))

    def constant(value, name="y"):
        return (lambda x: {name: tf.constant(value) + 0 * x[0]}, spec(None))

    strings = tf.TensorSpec(None, tf.string, "x")
    numbers = [9e6, 999999.0, 0.5, 0.0003, 3e-5, 555557.5]
    save(
        folder,
        serving_default=echo(tf.float32),
        double=echo(tf.float64),
        int32=echo(tf.int32),
        uint8=echo(tf.uint8),
        bool=echo(tf.bool),
        half=echo(tf.half),
        string=echo(tf.string),
        string_bytes=(lambda x: {"y_bytes": tf.identity(x)}, strings),
        numbers=constant(numbers),
        odd_numbers=constant([math.nan, math.inf, 3.0, -math.inf]),
        nothing=(lambda x: {"y": x[:0]}, spec(None)),
        scalar=(lambda x: {"y": tf.reduce_sum(x)}, spec(None)),
        complex=(lambda x: {"y": tf.cast(x, tf.complex64)}, spec(None)),
        half_out=(lambda x: {"y": tf.cast(x, tf.half)}, spec(None)),
        bfloat16_out=(lambda x: {"y": tf.cast(x, tf.bfloat16)}, spec(None)),
        two_out=(lambda x: {"double": 2 * x, "label": tf.as_string(x, precision=1)}, spec(None)),
        other_sizes=(lambda x: {"y": x, "z": tf.concat([x, x], 0)}, spec(None)),
        two_in=(lambda x, z: {"y": x + z}, spec(None), spec(None, name="z")),
        slow=(lambda x: {"y": x + wait(x[0])}, spec(None)),
    )


def surer(run, folder):
    """Copies a run; its model is surer of what it says, so that a test can tell the two apart."""
    shutil.copytree(run.path, folder)
    copy = RunDir(folder)
    model = load_model(copy.model)
    kernel = model.layers[-1].kernel
    kernel.assign(1.5 * kernel)
    model.save(copy.model)
    return copy


@pytest.fixture(scope="module")
def model_dirs(trained_run, exported, wait, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(exported.version, folder / "cifar10" / "1")
    second = export(surer(trained_run, folder / "run"), folder / "cifar10", number=2)
    (second.version / WARMUP_FILE).unlink()  # one warm-up is enough
    for name, write in (
        ("half_plus_two", save_half_plus_two),
        ("classifiers", save_classifiers),
        ("echo", lambda folder: save_echo(folder, wait)),
    ):
        write(folder / name / "1")
    odd = folder / ODD_NAME.replace("/", "_")
    save(odd / "1", serving_default=(lambda x: {"y": x}, ANY))
    return folder


ODD_NAME = "modelname!#$%&'()*+,/:;=?@[]"
QUOTED = "modelname%21%23%24%25%26%27%28%29%2A%2B%2C%2F%3A%3B%3D%3F%40%5B%5D"


def model_config(name, path, *, policy="", labels=""):
    return f'config {{ name: "{name}" base_path: "{path}" {policy} {labels} }}'


@pytest.fixture(scope="module")
def serving_all(model_dirs, serving, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")

    def labels(**versions):
        entries = (f'{{ key: "{name}" value: {number} }}' for name, number in versions.items())
        return " ".join(f"version_labels {entry}" for entry in entries)

    both = "model_version_policy { specific { versions: 1 versions: 2 } }"
    odd_label = f'version_labels {{ key: "{ODD_NAME}" value: 1 }}'
    models = [
        model_config(
            "cifar10", model_dirs / "cifar10", policy=both, labels=labels(stable=1, canary=2)
        ),
        model_config("half_plus_two", model_dirs / "half_plus_two", labels=labels(stable=1)),
        model_config("classifiers", model_dirs / "classifiers"),
        model_config("echo", model_dirs / "echo"),
        model_config(ODD_NAME, model_dirs / ODD_NAME.replace("/", "_"), labels=odd_label),
    ]
    config = folder / "models.config"
    config.write_text(f"model_config_list {{ {' '.join(models)} }}")
    socket = folder / "grpc.sock"
    with serving(
        folder, "--models-config", config, "--timeout", 8, "--grpc-socket", socket
    ) as running:
        running.socket = socket
        yield running
    assert "Traceback" not in running.log.read_text()


# REST


def ask(server, method, path, body=None, **headers):
    """Sends a request whose path goes out as it stands."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, names)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


@pytest.fixture(scope="module")
def images(sample):
    return sample.images[:4]


@pytest.fixture(scope="module")
def values(images):
    """What stands for pictures in the bodies below: Z and Y, pixels; P and Q, encoded."""
    encoded = [base64.b64encode(tf.io.encode_png(i).numpy()).decode() for i in images]
    return {
        "Z": images[0].tolist(),
        "Y": images[1].tolist(),
        "Z31": images[0][:, :31].tolist(),
        "Z28": images[0][:28, :28].tolist(),
        "SHORT_ROW": [row if i != 5 else row[:31] for i, row in enumerate(images[0].tolist())],
        "P": encoded[0],
        "Q": encoded[1],
    }


def filled_in(body, values):
    """Replaces the names of `values` in a body by their values."""
    if isinstance(body, dict):
        return {key: filled_in(value, values) for key, value in body.items()}
    if isinstance(body, list):
        return [filled_in(value, values) for value in body]
    return values.get(body, body) if isinstance(body, str) else body


M = "/v1/models/cifar10"
ECHO = "/v1/models/echo:predict"
HALF = "/v1/models/half_plus_two"


def body_for(signature, **body):
    return {"signature_name": signature, **body}


MALFORMED = [
    ("A1", "GET", "/v1/foo"),
    ("A2", "POST", "/v1/foo"),
    ("A4", "POST", "/v1/models"),
    ("A5", "GET", "/v1/models/debug/model_name"),
    ("A6", "GET", f"{M}:predict"),
    ("A7", "POST", f"{M}/version/50:predict"),
    ("A8", "POST", f"{M}/versions/HELLO:regress"),
    ("A10", "POST", f"{M}/metadata"),
    ("A11", "POST", f"{M}/label/some_label:regress"),
    ("A12", "POST", f"{M}/versions/50/labels/x:regress"),
    ("A17", "POST", f"{M}:PREDICT"),
    ("A18", "POST", f"{M}:predict?x=1"),
    ("A19-PUT", "PUT", M),
    ("A19-DELETE", "DELETE", M),
    ("A19-PATCH", "PATCH", M),
    ("A20-POST", "POST", f"{M}:predict/"),
    ("A20-GET", "GET", f"{M}/"),
]
# Number, path, body, status, text of the error.
LOADERS = "__saved_model_init_op"  # a signature that is nobody's to call
REFUSED = [
    ("A9", f"{M}/versions/18446744073709551615:regress", {}, 400,
     "Failed to convert version: 18446744073709551615 to numeric."),
    ("B1", "/v1/models/foo:predict", {"instances": [1]}, 404,
     "Servable not found for request: Latest(foo)"),
    ("B2", "/v1/models/foo/versions/50:predict", {"instances": [1]}, 404,
     "Servable not found for request: Specific(foo, 50)"),
    ("B3", f"{M}/versions/99:predict", {"instances": ["Z"]}, 404,
     "Servable not found for request: Specific(cifar10, 99)"),
    ("B7", f"{M}/labels/nope:predict", {"instances": ["Z"]}, 400,
     "Unrecognized servable version label: nope"),
    ("B9", f"{M}:predict", body_for("nope", instances=["Z"]), 400,
     'Serving signature name: "nope" not found in signature def'),
    ("B9-loader", f"{M}:predict", {"signature_name": LOADERS, "inputs": {}}, 400,
     f'Serving signature name: "{LOADERS}" not found in signature def'),
    ("B10", f"{M}:predict", {"signature_name": 100}, 400,
     "'signature_name' key must be a string value."),
    ("B11", "/v1/models/foo:predict", b"", 400, "JSON Parse error: The document is empty"),
    ("B12", f"{M}/versions/0:predict", {"instances": ["Z"]}, 404,
     "Servable not found for request: Specific(cifar10, 0)"),
    ("C1", f"{M}:predict", b"", 400, "JSON Parse error: The document is empty"),
    ("C1-spaces", f"{M}:predict", b" \n", 400, "JSON Parse error: The document is empty"),
    ("C2", f"{M}:predict", b"instances = [1, 2]", 400,
     "JSON Parse error: Invalid value. at offset: 0"),
    ("C3", f"{M}:predict", ["Z"], 400, "Is not object"),
    ("C4", f"{M}:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
    ("C5", f"{M}:predict", {"instances": ["Z"], "inputs": ["Z"]}, 400,
     "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"),
    ("C6", f"{M}:predict", {"instances": 5}, 400, "Expecting 'instances' to be an list/array"),
    ("C7", f"{M}:predict", {"instances": []}, 400, "No values in 'instances' array"),
    ("C8", ECHO, {"instances": ["x", "y"]}, 400,
     "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
     'JSON Value: "x" Type: String is not of expected type: float'),
    ("C14", ECHO, body_for("uint8", instances=[1.5]), 400,
     "Type: Number is not of expected type: uint8"),
    ("C15-256", ECHO, body_for("uint8", instances=[1, 256]), 400,
     "JSON Value: 256 is out of the range of uint8: 0 to 255"),
    ("C15--1", ECHO, body_for("uint8", instances=[-1, 1]), 400,
     "JSON Value: -1 is out of the range of uint8: 0 to 255"),
    ("C15-huge", ECHO, body_for("uint8", instances=[10**30]), 400,
     f"JSON Value: {10**30} is out of the range of uint8: 0 to 255"),
    ("C16", f"{M}:predict", {"instances": ["Z", "Z31"]}, 400,
     "Expecting tensor size: 3072 but got: 2976"),
    ("C17", ECHO, {"instances": [[1, 2], [3, 4], [[5, 6]]]}, 400,
     "Expecting shape [2] but got: [1,2]"),
    ("C18", ECHO, {"instances": [1, [1]]}, 400, "Expecting shape [] but got: [1]"),
    ("C18-mixed", ECHO, {"inputs": [1, [1]]}, 400,
     "Encountered list at unexpected level: 1 expected < 1"),
    ("C18-short", ECHO, {"inputs": [[1], 1]}, 400, "found at incorrect level: 2"),
    ("C19", f"{M}:predict", {"instances": ["SHORT_ROW"]}, 400,
     "Encountered list at unexpected size: 31 at level: 1 expected size: 32"),
    ("C20", f"{M}:predict", {"instances": ["Z28"]}, 400,
     "input image: got shape [1, 28, 28, 3], expected [-1, 32, 32, 3]"),
    ("C22", f"{M}:predict", {"instances": [{"imge": "Z"}]}, 400,
     "JSON object: does not have named input: imge"),
    ("C23", f"{M}:predict", {"instances": [{}]}, 400, "keys must be equal to: image"),
    ("C24", f"{M}:predict", {"instances": [{"image": "Z"}, "Z"]}, 400,
     "Expecting object but got list at item 1 of input list"),
    ("C25", f"{M}:predict", {"instances": ["Z", {"image": "Z"}]}, 400,
     "Expecting value/list but got object at item 1 of input list"),
    ("C26", ECHO, body_for("two_in", instances=[1, 2]), 400,
     "instances is a plain list, but expecting list of objects"),
    ("C26-columns", ECHO, body_for("two_in", inputs=[1, 2]), 400,
     "inputs is a plain value/list, but expecting an object"),
    ("C29", f"{M}:predict", {"inputs": {"other": ["Z"]}}, 400,
     "Missing named input: image in 'inputs' object."),
    ("C34", f"{M}:predict", body_for("image_bytes", inputs={"image_bytes": {"b64": "P"}}), 400,
     "input image_bytes: got shape [], expected [-1]"),
    ("C35", f"{M}:predict", body_for("image_bytes", instances=[{"b64": "@@@"}]), 400,
     'Unable to base64 decode "@@@" to string'),
    ("C35-padding-too-long", ECHO, body_for("string", instances=[{"b64": "aGk=="}]), 400,
     'Unable to base64 decode "aGk==" to string'),
    ("C35-padding-within", ECHO, body_for("string", instances=[{"b64": "aA==aA=="}]), 400,
     'Unable to base64 decode "aA==aA==" to string'),
    ("C35-one-letter", ECHO, body_for("string", instances=[{"b64": "a"}]), 400,
     'Unable to base64 decode "a" to string'),
    ("C35-type", f"{M}:predict", body_for("image_bytes", instances=[{"b64": 1}]), 400,
     "Unable to base64 decode 1 to string"),
    ("C36", f"{M}:predict", {"instances": [{"b64": "P"}]}, 400,
     "Type: Object is not of expected type: uint8"),
    ("C37", f"{M}:predict", body_for("image_bytes", instances=[{"b64": "P", "x": 1}]), 400,
     "JSON object: does not have named input: b64"),
    ("C39", f"{M}:predict", body_for("image_bytes", instances=[{"b64": "P"}, {"b64": "aGk="}]),
     400, "image_bytes[1]: not an image that can be read"),
    ("C41", ECHO, b'{"signature_name":' + 500 * b"[" + 500 * b"]" + b"}", 400,
     "key must be a string value"),
    ("C41-deep", ECHO, b'{"signature_name":' + 500_000 * b"[" + 500_000 * b"]" + b"}", 400,
     TOO_DEEP),
    ("D12", ECHO, body_for("other_sizes", instances=[1, 2]), 400, "inconsistent batch size"),
    ("D13", ECHO, body_for("scalar", instances=[1, 2]), 400, "has no shape information"),
    ("D14-complex", ECHO, body_for("complex", instances=[1]), 400,
     "Failed to write JSON value for tensor type: complex64"),
    ("D14-half", ECHO, body_for("half_out", instances=[1]), 400,
     "Failed to write JSON value for tensor type: half"),
    ("D14-bfloat16", ECHO, body_for("bfloat16_out", instances=[1]), 400,
     "Failed to write JSON value for tensor type: bfloat16"),
    ("D14-input", ECHO, body_for("half", instances=[1]), 501,
     "Conversion of JSON Value: 1 to type: half"),
    ("E7", f"{HALF}:classify", {"signature_name": ["hello"], "examples": [{"x": 1.0}]}, 400,
     "'signature_name' key must be a string"),
    ("E8", f"{HALF}:classify", {}, 400,
     "When method is classify, key 'examples' is expected and was not found"),
    ("E9", f"{HALF}:classify", {"examples": {"x": 1.0}}, 400, "list/array"),
    ("E10", f"{HALF}:classify", {"examples": [[{"x": 1.0}]]}, 400, "Example must be JSON object"),
    ("E10-context", f"{HALF}:regress", {"context": [1], "examples": [{"x": 1.0}]}, 400,
     "Example must be JSON object"),
    ("E11", f"{HALF}:classify", {"examples": [{"names": [10, None]}]}, 400,
     "has element with unexpected JSON type: Null"),
    ("E12", f"{HALF}:classify", {"examples": [{"names": [10, 10.0]}]}, 400,
     "feature: names expecting type: int64"),
    ("E13", f"{HALF}:classify", {"examples": [{"x": [20, 18446744073709551603]}]}, 400,
     "Only int64_t is supported"),
    ("E15", f"{M}:classify", {"examples": [{"x": 1.0}]}, 400,
     "No classification inputs found in SignatureDef"),
    ("E15-regress", f"{M}:regress", {"examples": [{"x": 1.0}]}, 400,
     "No regression inputs found in SignatureDef"),
    ("E16", f"{HALF}:classify", {"signature_name": "nope", "examples": [{"x": 1.0}]}, 400,
     "No signature was found with the name: nope"),
    *(
        (f"E17-{name}", "/v1/models/classifiers:classify", body_for(name, examples=[{}, {}]), 400,
         text)
        for name, text in {
            "classes_are_numbers": "Expected classes Tensor of DT_STRING",
            "scores_are_words": "Expected scores Tensor of DT_FLOAT",
            "other_batch": "batch size",
            "other_width": "Tensors class and score should match in dim_size(1)",
        }.items()
    ),
    ("C40", ECHO, b'{"instances": [1, 2], "nested": ' + 500_000 * b"[" + 500_000 * b"]" + b"}", 400,
     TOO_DEEP),
    ("G12", ECHO, body_for("slow", instances=[9.0]), 504, "no answer within 8 s"),
]  # fmt: skip
# Number, path, body, answer.
ANSWERED = [
    ("C9", ECHO, body_for("int32", instances=[[1, 2], [3, 4], [5, 6]]),
     {"predictions": [[1, 2], [3, 4], [5, 6]]}),
    ("C10", ECHO, {"instances": [1, 2.0, 3, 5.003, 0.0]}, {"predictions": [1, 2, 3, 5.003, 0]}),
    ("C10-double", ECHO, body_for("double", instances=[1, 2.0, 3, 5.003, 0.0]),
     {"predictions": [1, 2, 3, 5.003, 0]}),
    ("C11", ECHO, {"instances": [1435774380, 1435774380.0]},
     {"predictions": [1435774336.0, 1435774336.0]}),
    ("C12", ECHO, {"instances": [1.79e308, -1.79e308]}, {"predictions": [math.inf, -math.inf]}),
    ("C12-integer", ECHO, {"instances": [10**400, -(10**400)]},
     {"predictions": [math.inf, -math.inf]}),
    ("C13", ECHO, b'{"instances": [NaN, Infinity, -Infinity, 1]}',
     {"predictions": [math.nan, math.inf, -math.inf, 1]}),
    ("C31", ECHO, body_for("string", instances=[{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]),
     {"predictions": ["hello", "world"]}),
    ("C33", ECHO, body_for("string", instances=[[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]),
     {"predictions": [["hello"], ["world"]]}),
    ("C35-unpadded", ECHO, body_for("string", instances=[{"b64": "aGVsbG8"}]),
     {"predictions": ["hello"]}),
    ("C35-lines", ECHO,
     body_for("string", instances=[{"b64": "aGVs\nbG8="}, {"b64": " aGVsbG8=\r\n"}]),
     {"predictions": ["hello", "hello"]}),
    ("C35-padding", ECHO, body_for("string", instances=[{"b64": "aGk= "}, {"b64": "aGk."}]),
     {"predictions": ["hi", "hi"]}),
    ("C38", ECHO, body_for("string", instances=["grüß", "x"]), {"predictions": ["grüß", "x"]}),
    ("C38-bool", ECHO, body_for("bool", instances=[True, False]), {"predictions": [True, False]}),
    ("C42", ECHO, b'{"instances": [1, 2]} and the rest', {"predictions": [1, 2]}),
    ("C42-mark", ECHO, b'\xef\xbb\xbf{"instances": [1, 2]}', {"predictions": [1, 2]}),
    ("C43", ECHO, {"instances": [1], "other": {"x": None}}, {"predictions": [1]}),
    ("D1", f"{HALF}:predict", {"instances": [[1.0, 2.0], [3.0, 4.0]]},
     {"predictions": [[2.5, 3.0], [3.5, 4.0]]}),
    ("D2", f"{HALF}:predict", {"instances": [2.0, 3.0, 4.0]}, {"predictions": [3.0, 3.5, 4.0]}),
    ("D3", f"{HALF}:predict", {"inputs": [2.0, 3.0, 4.0]}, {"outputs": [3.0, 3.5, 4.0]}),
    ("D4", ECHO, {"instances": [[1], [2]]}, {"predictions": [[1], [2]]}),
    ("D5", ECHO, body_for("two_out", instances=[1, 2]),
     {"predictions": [{"double": 2, "label": "1.0"}, {"double": 4, "label": "2.0"}]}),
    ("D6", ECHO, body_for("two_out", inputs=[1, 2]),
     {"outputs": {"double": [2, 4], "label": ["1.0", "2.0"]}}),
    ("D7", ECHO, body_for("string", instances=["cat"]), {"predictions": ["cat"]}),
    ("D8", ECHO, body_for("string_bytes", instances=["hello"]),
     {"predictions": [{"b64": "aGVsbG8="}]}),
    ("D9", ECHO, body_for("numbers", instances=[0]),
     {"predictions": [9e6, 999999.0, 0.5, 0.0003, 3e-5, 555557.5]}),
    ("D10", ECHO, body_for("odd_numbers", instances=[0]),
     {"predictions": [math.nan, math.inf, 3.0, -math.inf]}),
    ("D11", ECHO, body_for("nothing", instances=[1, 2]), {"predictions": []}),
    ("D13-columns", ECHO, body_for("scalar", inputs=[1, 2]), {"outputs": 3}),
    ("E1", f"{HALF}:classify", body_for("classify_x_to_y", examples=[{"x": 20.0}]),
     {"results": [[["", 12.0]]]}),
    ("E2", f"{HALF}:classify", body_for("classify_x_to_y", examples=[{"x": 2.0}]),
     {"results": [[["", 3.0]]]}),
    ("E3", f"{HALF}/labels/stable:classify", body_for("classify_x_to_y", examples=[{"x": 10.0}]),
     {"results": [[["", 7.0]]]}),
    *(
        (f"E4-{number}", f"{HALF}{way}:regress",
         body_for("regress_x_to_y", examples=[{"x": 80.0}]), {"results": [42.0]})
        for number, way in enumerate(("", "/versions/1", "/labels/stable"))
    ),
    ("E5", f"{HALF}:regress", body_for("regress_x_to_y", examples=[{"x": 2.0}]),
     {"results": [3.0]}),
    ("E6", "/v1/models/classifiers:classify", body_for("good", examples=[{}, {}]),
     {"results": [[["car", 0.2], ["bike", 0.7], ["bus", 0.1]]] * 2}),
    ("E14-context", f"{HALF}:regress",
     body_for("regress_x_to_y", context={"x": 2.0}, examples=[{}, {"x": 4.0}]),
     {"results": [3.0, 4.0]}),
    ("E14-types", f"{HALF}:regress",
     body_for("regress_x_to_y", examples=[
         {"x": 2.0, "flags": [True, 3, False], "names": ["a", {"b64": "aGVsbG8="}], "none": []}
     ]),
     {"results": [3.0]}),
    ("G3-none", f"{HALF}:predict", {"instances": [2.0]}, {"predictions": [3.0]}),
]  # fmt: skip


def rows(table):
    return [pytest.param(*row[1:], id=row[0]) for row in table]


def json_answer(response, content):
    assert response.getheader("content-type") == "application/json"
    return json.loads(content)


def as_floats(value):
    """Returns JSON with all its numbers as they are in float32."""
    if isinstance(value, dict):
        return {key: as_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_floats(item) for item in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    with np.errstate(over="ignore"):
        return float(np.float32(value)) if is_number else value


@pytest.mark.parametrize(("method", "path"), rows(MALFORMED))
def test_what_is_no_call_is_malformed(serving_all, method, path):
    response, content = ask(serving_all, method, path, "{}" if method == "POST" else None)
    assert response.status == 400
    assert json_answer(response, content) == {"error": f"Malformed request: {method} {path}"}


@pytest.mark.parametrize(("path", "body", "status", "error"), rows(REFUSED))
def test_a_call_is_refused(serving_all, values, path, body, status, error):
    content = body if isinstance(body, bytes) else json.dumps(filled_in(body, values))
    response, answer = ask(serving_all, "POST", path, content)
    found = json_answer(response, answer)
    assert response.status == status, found
    assert list(found) == ["error"]
    assert error in found["error"]
    assert len(found["error"]) < 1000


@pytest.mark.parametrize(("path", "body", "expected"), rows(ANSWERED))
def test_a_call_is_answered(serving_all, path, body, expected):
    content = body if isinstance(body, bytes) else json.dumps(body)
    response, answer = ask(serving_all, "POST", path, content)
    found = json_answer(response, answer)
    assert response.status == 200, found
    assert repr(as_floats(found)) == repr(as_floats(expected))


def test_a13_outside_of_v1_there_is_nothing_but_the_page(serving_all):
    for path in ("/statuspage", "/index", "/about.json/"):
        assert ask(serving_all, "GET", path)[0].status == 404
    response, content = ask(serving_all, "GET", "/")
    assert (response.status, content[:15]) == (200, b"<!doctype html>")


def test_a3_a_status_needs_a_name(serving_all):
    response, content = ask(serving_all, "GET", "/v1/models")
    assert response.status == 400
    assert json_answer(response, content) == {"error": "Missing model name in request."}


def test_a19_head_is_malformed(serving_all):
    assert ask(serving_all, "HEAD", M)[0].status == 400


def test_a14_a15_names_and_labels_are_decoded(serving_all):
    for way in ("", "/versions/1", f"/labels/{QUOTED}"):
        path = f"/v1/models/{QUOTED}{way}"
        response, content = ask(serving_all, "POST", f"{path}:predict", '{"instances": [1.5]}')
        assert json_answer(response, content) == {"predictions": [1.5]}
        assert ask(serving_all, "GET", path)[0].status == 200
        response, content = ask(serving_all, "GET", f"{path}/metadata")
        assert json_answer(response, content)["model_spec"]["name"] == ODD_NAME


@pytest.fixture(scope="module")
def versions_answers(model_dirs, images):
    """The probabilities of both versions for `images`, by TensorFlow without a server."""
    answers = {}
    for number in (1, 2):
        signature = tf.saved_model.load(model_dirs / "cifar10" / str(number)).signatures
        outputs = signature["serving_default"](image=tf.constant(images))
        answers[number] = outputs["probabilities"].numpy()
    assert np.abs(answers[1] - answers[2]).max() > 1e-4
    return answers


def predicted(server, path, body):
    response, content = ask(server, "POST", path, json.dumps(body))
    assert response.status == 200, content
    return json_answer(response, content)


@pytest.mark.parametrize(
    ("path", "version"),
    [
        pytest.param(f"{M}/versions/1:predict", 1, id="B4"),
        pytest.param(f"{M}:predict", 2, id="B5"),
        pytest.param(f"{M}/labels/stable:predict", 1, id="B6"),
        pytest.param(f"{M}/labels/canary:predict", 2, id="B6-canary"),
        pytest.param("/V1/MODELS/cifar10:predict", 2, id="A16"),
    ],
)
def test_the_version_that_was_asked_answers(serving_all, images, versions_answers, path, version):
    predictions = predicted(serving_all, path, {"instances": images.tolist()})["predictions"]
    found = [row["probabilities"] for row in predictions]
    np.testing.assert_allclose(found, versions_answers[version], atol=1e-5)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        pytest.param({"instances": ["Z", "Y"]}, 2, id="D5-image"),
        pytest.param(body_for("serving_default", instances=["Z"]), 1, id="B8"),
        pytest.param({"signature_name": "", "instances": ["Z"]}, 1, id="B8-empty"),
        pytest.param({"instances": [{"image": "Z"}, {"image": "Y"}]}, 2, id="C21"),
        pytest.param({"inputs": {"image": ["Z", "Y"]}}, 2, id="C27"),
        pytest.param({"inputs": ["Z", "Y"]}, 2, id="C28"),
        pytest.param({"inputs": {"image": ["Z"], "extra": 1}}, 1, id="C30"),
        pytest.param(body_for("image_bytes", instances=[{"b64": "P"}, {"b64": "Q"}]), 2, id="C31"),
        pytest.param(
            body_for("image_bytes", instances=[{"image_bytes": {"b64": "P"}}]), 1, id="C32"
        ),
        pytest.param(
            body_for("image_bytes", inputs=[{"b64": "P"}, {"b64": "Q"}]), 2, id="C32-columns"
        ),
    ],
)
def test_an_image_may_be_written_in_many_ways(serving_all, values, versions_answers, body, count):
    answer = predicted(serving_all, f"{M}:predict", filled_in(body, values))
    if "instances" in body:
        found = [row["probabilities"] for row in answer["predictions"]]
    else:
        found = answer["outputs"]["probabilities"]
    np.testing.assert_allclose(found, versions_answers[2][:count], atol=1e-5)


# Status and metadata


AVAILABLE = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


@pytest.mark.parametrize(
    ("path", "versions"),
    [
        pytest.param(M, {"1", "2"}, id="F1-F6"),
        pytest.param(f"{M}/versions/1", {"1"}, id="F2"),
        pytest.param(f"{M}/labels/stable", {"1", "2"}, id="F3"),
        pytest.param(f"{M}/labels/unknown", {"1", "2"}, id="F3-unknown"),
    ],
)
def test_status_lists_versions(serving_all, path, versions):
    response, content = ask(serving_all, "GET", path)
    found = json_answer(response, content)["model_version_status"]
    assert {entry.pop("version") for entry in found} == versions
    assert all(entry == AVAILABLE for entry in found)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        pytest.param("/v1/models/nope", "Could not find any versions of model nope", id="F4"),
        pytest.param(f"{M}/versions/99", "Could not find version 99 of model cifar10", id="F5"),
        pytest.param(
            "/v1/models/nope/metadata",
            "Servable not found for request: Latest(nope)",
            id="F11",
        ),
    ],
)
def test_status_of_what_there_is_not(serving_all, path, error):
    response, content = ask(serving_all, "GET", path)
    assert response.status == 404
    assert json_answer(response, content) == {"error": error}


@pytest.mark.parametrize(
    ("way", "version"),
    [
        pytest.param("", "2", id="F9"),
        pytest.param("/versions/1", "1", id="F10"),
        pytest.param("/labels/stable", "1", id="F10-label"),
    ],
)
def test_metadata_has_the_signatures(serving_all, way, version):
    response, content = ask(serving_all, "GET", f"{M}{way}/metadata")
    found = json_answer(response, content)
    assert found["model_spec"] == {"name": "cifar10", "signature_name": "", "version": version}
    signatures = found["metadata"]["signature_def"]["signature_def"]
    shape = {
        "dim": [{"name": "", "size": size} for size in ("-1", "32", "32", "3")],
        "unknown_rank": False,
    }
    image = signatures["serving_default"]["inputs"]["image"]
    assert (image["dtype"], image["tensor_shape"]) == ("DT_UINT8", shape)
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"
    assert signatures["serving_default"]["defaults"] == {}
    assert set(signatures["image_bytes"]["outputs"]) == {"probabilities", "label", "class_id"}


def test_f12_metadata_has_the_loaders_signature_too(serving_all):
    _, content = ask(serving_all, "GET", f"{M}/metadata")
    signatures = json.loads(content)["metadata"]["signature_def"]["signature_def"]
    output = signatures["__saved_model_init_op"]["outputs"]["__saved_model_init_op"]
    assert output["dtype"] == "DT_INVALID"


# HTTP


BODY = b'{"instances": [2.0]}'


def test_g1_a_body_may_be_compressed(serving_all):
    path = f"{HALF}:predict"
    response, content = ask(serving_all, "POST", path, gzip.compress(BODY), Content_Encoding="gzip")
    assert json_answer(response, content) == {"predictions": [3.0]}
    for broken in (gzip.compress(BODY)[:-4], b"no gzip"):
        response, content = ask(serving_all, "POST", path, broken, Content_Encoding="gzip")
        assert response.status == 400
        assert "The document is empty" in json_answer(response, content)["error"]


def test_g2_answers_are_not_compressed(serving_all):
    response, content = ask(serving_all, "GET", M, Accept_Encoding="gzip")
    assert response.getheader("content-encoding") is None
    assert json_answer(response, content)


def test_g3_the_type_of_a_body_does_not_matter(serving_all):
    response, content = ask(serving_all, "POST", f"{HALF}:predict", BODY, Content_Type="text/plain")
    assert json_answer(response, content) == {"predictions": [3.0]}


def test_g4_g5_a_preflight_names_a_web_origin(serving_all):
    response, content = ask(serving_all, "OPTIONS", f"{M}:predict", Origin="https://x.example")
    assert (response.status, content) == (200, b"")
    assert response.getheader("access-control-allow-origin") is None
    for headers in ({}, {"Origin": "ftp://x.example"}):
        response, content = ask(serving_all, "OPTIONS", f"{M}:predict", **headers)
        assert (response.status, content) == (400, b"")


METRICS = "/monitoring/prometheus/metrics"


def test_g7_g10_g11_metrics_are_in_prometheus_form(serving_all):
    before = count_of_ok(serving_all)
    for _ in range(3):
        predicted(serving_all, f"{HALF}:predict", {"instances": [2.0]})
    assert count_of_ok(serving_all) == before + 3
    response, content = ask(serving_all, "GET", METRICS)
    lines = content.decode().splitlines()
    assert response.status == 200
    assert response.getheader("content-type").startswith("text/plain")
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    name = ":tensorflow:serving:request_latency"
    labels = 'API="Predict",entrypoint="REST",le="{}",model_name="half_plus_two"'
    buckets = [line for line in lines if line.startswith(f"{name}_bucket{{")]
    for limit in ("10", "18", "+Inf"):
        assert any(labels.format(limit) in line for line in buckets), limit
    assert any(line.startswith(f"{name}_sum{{") for line in lines)
    assert any(line.startswith(f"{name}_count{{") for line in lines)
    response, content = ask(serving_all, "GET", f"{METRICS}?x=1")
    assert response.status == 400
    assert content.decode() == f"Unexpected path: {METRICS}?x=1. Should be {METRICS}"


def count_of_ok(server):
    _, content = ask(server, "GET", METRICS)
    start = ':tensorflow:serving:request_count{model_name="half_plus_two",status="OK"} '
    counts = [line for line in content.decode().splitlines() if line.startswith(start)]
    return float(counts[0].removeprefix(start)) if counts else 0


@pytest.mark.parametrize(
    ("monitoring", "path"),
    [
        pytest.param("prometheus_config { enable: false }", None, id="G8"),
        pytest.param('prometheus_config { enable: true path: "/other" }', "/other", id="G9"),
    ],
)
def test_metrics_are_where_the_configuration_says(model_dirs, serving, tmp_path, monitoring, path):
    config = tmp_path / "monitoring.config"
    config.write_text(monitoring)
    with serving(
        tmp_path, model_dirs / "half_plus_two", "--monitoring-config", config, "--cors"
    ) as server:
        assert ask(server, "GET", METRICS)[0].status == 404
        if path:
            assert b"# TYPE" in ask(server, "GET", path)[1]
        response, _ = ask(server, "GET", M)  # G6, of an error too
        assert response.getheader("access-control-allow-origin") == "*"
        assert response.getheader("access-control-allow-methods") == "POST, GET"
        assert response.getheader("access-control-allow-headers") == "Content-Type"


# gRPC


@pytest.fixture(scope="module")
def stub(serving_all):
    with grpc.insecure_channel(serving_all.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(name="cifar10", signature="", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


def filtered(*names):
    request = predict_request(image=np.zeros((1, 32, 32, 3), np.uint8))
    request.output_filter.extend(names)
    return request


def classification(signature="classify_x_to_y", *, name="half_plus_two", examples=(2.0,)):
    request = classification_pb2.ClassificationRequest()
    fill_examples(request, name, signature, examples)
    return request


def regression(signature="regress_x_to_y", *, name="half_plus_two", examples=(2.0,)):
    request = regression_pb2.RegressionRequest()
    fill_examples(request, name, signature, examples)
    return request


def fill_examples(request, name, signature, examples):
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    request.input.example_list.SetInParent()
    for x in examples:
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(x)


def several(*tasks, with_input=True):
    request = inference_pb2.MultiInferenceRequest()
    for name, signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = name, signature
    if with_input:
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(2.0)
    return request


REGRESS = ("half_plus_two", "regress_x_to_y", "regress")
CLASSIFY = ("half_plus_two", "classify_x_to_y", "classify")


def metadata_request(*fields, name="cifar10"):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if name:
        request.model_spec.name = name
    return request


WITH_CONTEXT = classification(examples=())
WITH_CONTEXT.input.example_list_with_context.context.SetInParent()
NO_MODEL = predict_pb2.PredictRequest()
NO_NAME = predict_pb2.PredictRequest()
NO_NAME.model_spec.SetInParent()
IMAGE = np.zeros((1, 32, 32, 3), np.uint8)
NOT_FOUND = grpc.StatusCode.NOT_FOUND
RPC_ERRORS = [
    ("H1", "Predict", NO_MODEL, INVALID, "Missing ModelSpec"),
    ("H2", "Predict", NO_NAME, INVALID, "ModelSpec has no name specified."),
    ("H3", "Predict", predict_request("intentionally_missing_model"), NOT_FOUND,
     "Servable not found for request: Latest(intentionally_missing_model)"),
    ("H4", "Predict", predict_request(), INVALID,
     "input size does not match signature: 0!=1 len({}) != len({image}). "
     "Sent extra: {}. Missing but required: {image}."),
    ("H5", "Predict", predict_request(key=IMAGE), INVALID,
     "input tensor alias not found in signature: key. "
     "Inputs expected to be in the set {image}."),
    ("H6", "Predict", predict_request(image=IMAGE.astype(np.float32)), INVALID,
     "input image: got type float32, expected uint8"),
    ("H7", "Predict", filtered("foo"), INVALID,
     "output tensor alias not found in signature: foo "
     "Outputs expected to be in the set {class_id,label,probabilities}."),
    ("H8", "Predict", filtered("label", "label"), INVALID,
     "duplicate output tensor alias: label"),
    ("H10", "Predict", predict_request(signature="nope", image=IMAGE),
     grpc.StatusCode.FAILED_PRECONDITION, 'Serving signature key "nope" not found.'),
    ("H10-loader", "Predict", predict_request(signature=LOADERS),
     grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{LOADERS}" not found.'),
    ("H19-loader", "Classify", classification(LOADERS), INVALID, "signature not found"),
    ("H22-input", "MultiInference", several(REGRESS, with_input=False), INVALID,
     "Input is empty"),
    ("H22-signature", "MultiInference", several(("half_plus_two", "nope", "regress")), INVALID,
     "signature not found"),
    ("H22-models", "MultiInference", several(REGRESS, ("echo", "classify_x_to_y", "classify")),
     INVALID, "must access the same model name"),
    ("H22-twice", "MultiInference", several(REGRESS, REGRESS), INVALID,
     "Duplicate evaluation of signature: regress_x_to_y"),
    ("H22-predict", "MultiInference", several(("half_plus_two", "serving_default", "predict")),
     grpc.StatusCode.UNIMPLEMENTED, "Unsupported signature"),
    ("H23-classify", "Classify", classification(examples=()), INVALID, "Input is empty"),
    ("H23-regress", "Regress", regression(examples=()), INVALID, "Input is empty"),
    ("H23-context", "Classify", WITH_CONTEXT, INVALID, "Input is empty"),
    ("H25-none", "GetModelMetadata", metadata_request(), INVALID,
     "GetModelMetadataRequest must specify at least one metadata_field"),
    ("H25-unknown", "GetModelMetadata", metadata_request("x"), INVALID,
     "Metadata field x is not supported"),
    ("H26-none", "GetModelMetadata", metadata_request("signature_def", name=None), INVALID,
     "Missing ModelSpec"),
    ("H26-unknown", "GetModelMetadata", metadata_request("signature_def", name="nope"), NOT_FOUND,
     "Servable not found for request: Latest(nope)"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "request_", "code", "text"), rows(RPC_ERRORS))
def test_a_procedure_is_refused(stub, method, request_, code, text):
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(request_)
    assert (caught.value.code(), text in caught.value.details()) == (code, True), caught.value


def test_h9_output_filter_chooses(stub):
    assert set(stub.Predict(filtered("label")).outputs) == {"label"}


def test_h11_h12_answers_name_who_gave_them_and_are_in_typed_fields(stub, images, versions_answers):
    response = stub.Predict(predict_request(image=images))
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (
        "cifar10", 2, "serving_default",
    )  # fmt: skip
    probabilities = response.outputs["probabilities"]
    assert not probabilities.tensor_content
    assert [dim.size for dim in probabilities.tensor_shape.dim] == [4, 10]
    found = np.reshape(probabilities.float_val, (4, 10))
    np.testing.assert_allclose(found, versions_answers[2], atol=1e-5)
    assert len(response.outputs["label"].string_val) == 4
    assert list(response.outputs["class_id"].int64_val) == list(found.argmax(axis=1))


def test_a_label_chooses_over_grpc(stub, images, versions_answers):
    request = predict_request(image=images)
    request.model_spec.version_label = "stable"
    response = stub.Predict(request)
    assert response.model_spec.version.value == 1
    found = np.reshape(response.outputs["probabilities"].float_val, (4, 10))
    np.testing.assert_allclose(found, versions_answers[1], atol=1e-5)


@pytest.mark.parametrize(
    ("signature", "array"),
    [
        ("serving_default", np.float32([[1.5, 2], [3, 4]])),
        ("double", np.float64([1.5])),
        ("int32", np.int32([1, -2])),
        ("uint8", np.uint8([[0, 255]])),
        ("half", np.float16([0.5, 65504])),
        ("bool", np.array([True, False])),
        ("string", np.array([b"a", b"\xff\x00"], object)),
    ],
)
def test_h13_both_forms_of_a_tensor_are_taken(stub, signature, array):
    typed = predict_request("echo", signature)
    typed.inputs["x"].CopyFrom(to_proto(array))
    assert not typed.inputs["x"].tensor_content
    packed = predict_request("echo", signature, x=array)
    if array.dtype != object:
        packed.inputs["x"].CopyFrom(tf.make_tensor_proto([], array.dtype, array.shape))
        packed.inputs["x"].tensor_content = array.tobytes()
    for request in (packed, typed):
        np.testing.assert_array_equal(tf.make_ndarray(stub.Predict(request).outputs["y"]), array)


def test_h13_a_value_may_stand_for_all(stub):
    request = predict_request("echo")
    tensor = request.inputs["x"]
    tensor.dtype = tf.float32.as_datatype_enum
    tensor.tensor_shape.dim.add(size=3)
    tensor.float_val.append(7.0)
    assert list(stub.Predict(request).outputs["y"].float_val) == [7.0, 7.0, 7.0]


def test_h14_h15_any_signature_can_be_asked_to_predict(stub):
    example = tf.train.Example()
    example.features.feature["x"].float_list.value.append(2.0)
    inputs = [example.SerializeToString()]
    for signature, output in (("regress_x_to_y", "outputs"), ("classify_x_to_y", "scores")):
        response = stub.Predict(predict_request("half_plus_two", signature, inputs=inputs))
        assert list(response.outputs[output].float_val) == [3.0]


def test_h16_long_errors_are_cut(stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(predict_request("x" * 3000))
    details = caught.value.details()
    assert details.startswith("Servable not found for request: Latest(xxx")
    assert details.endswith("xxx...TRUNCATED")
    assert len(details) == 1024 + len("...TRUNCATED")


def test_h17_a_deadline_is_kept(stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(predict_request("echo", "slow", x=[1.0]), timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_h18_messages_may_be_larger_than_clients_take_by_themselves(stub):
    request = predict_request("echo", x=np.zeros(2_000_000, np.float32))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request)
    assert "Received message larger than max" in caught.value.details()


def test_h19_h20_classify_and_regress(stub):
    response = stub.Classify(classification())
    ((entry,),) = [row.classes for row in response.result.classifications]
    assert (entry.label, entry.score) == ("", 3.0)
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "classify_x_to_y"
    response = stub.Regress(regression(examples=(2.0, 4.0)))
    assert [entry.value for entry in response.result.regressions] == [3.0, 4.0]
    assert response.model_spec.name == "half_plus_two"


def test_h21_several_inferences_at_once(stub):
    first, second = stub.MultiInference(several(REGRESS, CLASSIFY)).results
    assert first.regression_result.regressions[0].value == 3.0
    assert first.model_spec.signature_name == "regress_x_to_y"
    assert second.classification_result.classifications[0].classes[0].score == 3.0
    assert second.model_spec.signature_name == "classify_x_to_y"


def test_h24_metadata_over_grpc(stub):
    response = stub.GetModelMetadata(metadata_request("signature_def"))
    assert (response.model_spec.name, response.model_spec.version.value) == ("cifar10", 2)
    assert list(response.metadata) == ["signature_def"]
    assert isinstance(response.metadata["signature_def"], any_pb2.Any)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert "image_bytes" in signatures.signature_def


def test_h27_a_unix_socket_does_as_well(serving_all):
    with grpc.insecure_channel(f"unix:{serving_all.socket}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Predict(predict_request("half_plus_two", x=[2.0]))
    assert list(response.outputs["y"].float_val) == [3.0]


def test_h28_health_checks_know_the_services(serving_all):
    with grpc.insecure_channel(serving_all.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "ModelService", "PredictionService"):
            response = stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert response.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="tensorflow.serving.ModelService"))
        assert caught.value.code() is NOT_FOUND


def test_every_case_is_here(request):
    """Of the sections above, each number is somewhere in this file."""
    text = request.path.read_text().upper()
    last = {"A": 20, "B": 12, "C": 43, "D": 14, "E": 17, "F": 6, "G": 12, "H": 28}
    numbers = itertools.chain.from_iterable(
        (f"{section}{number}" for number in range(1, count + 1)) for section, count in last.items()
    )
    missing = [
        number
        for number in numbers
        if f'"{number}"' not in text
        and f'"{number}-' not in text
        and f"_{number}_" not in text
        and f"-{number}" not in text
        and f"# {number}," not in text
    ]
    assert not missing
