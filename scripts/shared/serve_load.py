"""What benchmark_serve.py and soak_serve.py ask, and of whom: a server on free ports."""

import json
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from grpc import StatusCode
from shared.serve_connections import Answer, rest_request

from keras_cifar.serving import (
    BYTES_INPUT,
    BYTES_SIGNATURE,
    IMAGE_INPUT,
    IMAGE_SIGNATURE,
    MODEL_NAME,
)
from keras_cifar.start import start_tensorflow

# For the server to end, once it has been told to; its own patience is 30 s.
END_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """A keras-cifar serve at work."""

    rest_port: int
    grpc_port: int
    process: subprocess.Popen[str]


@contextmanager
def running_server(model_dir: Path, *, log: Path) -> Iterator[Server]:
    """Runs a server in a process of its own; afterwards it must end by itself, and well.

    Args:
        model_dir: that it serves.
        log: where its stderr goes.

    Raises:
        RuntimeError: it did not start, or did not end well.
    """
    command = [sys.executable, "-m", "keras_cifar", "serve", str(model_dir)]
    options = ["--rest-port", "0", "--grpc-port", "0", "--access-log", "off"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        try:
            announced = process.stdout.readline() + process.stdout.readline()
            found = re.search(r": http://\S+:(\d+)\ngRPC: \S+:(\d+)\n", announced)
            if found is None:
                raise RuntimeError(f"the server did not start: {log.read_text()}")
            yield Server(int(found[1]), int(found[2]), process)
            if process.poll() is None:
                process.terminate()
            if process.wait(END_SECONDS):
                raise RuntimeError(f"the server ended with {process.returncode}: {log.read_text()}")
        finally:
            process.kill()


class Question(NamedTuple):
    """A request, ready to be sent, and what its answer must be.

    Attributes:
        request: for a connection to send.
        status: of the answer.
        content: that the answer has in it.
    """

    request: bytes
    status: int
    content: bytes

    def fits(self, answer: Answer) -> bool:
        """Returns whether an answer is the one that must come."""
        return answer.status == self.status and self.content in answer.content


def rest_encoded(encoded: Sequence[bytes], labels: Sequence[str]) -> Question:
    """Asks about encoded images, in base64."""
    rows = [{"b64": b64encode(image).decode()} for image in encoded]
    return _rest({"signature_name": BYTES_SIGNATURE, "instances": rows}, labels)


def rest_pixels(images: Any, labels: Sequence[str]) -> Question:
    """Asks about pixels, uint8 (n, 32, 32, 3), in nested lists."""
    return _rest({"instances": images.tolist()}, labels)


def _rest(body: dict[str, Any], labels: Sequence[str]) -> Question:
    """Looks for the first label only, or looking would cost more than asking."""
    path = f"/v1/models/{MODEL_NAME}:predict"
    return Question(
        rest_request(path, json.dumps(body).encode()), 200, f'"label": "{labels[0]}"'.encode()
    )


def grpc_encoded(encoded: Sequence[bytes], labels: Sequence[str]) -> Question:
    """Asks about encoded images, as a tensor of strings."""
    return _grpc(BYTES_SIGNATURE, BYTES_INPUT, encoded, labels)


def grpc_pixels(images: Any, labels: Sequence[str]) -> Question:
    """Asks about pixels, uint8 (n, 32, 32, 3), as the bytes of a tensor."""
    return _grpc(IMAGE_SIGNATURE, IMAGE_INPUT, images, labels)


def _grpc(signature: str, name: str, value: Any, labels: Sequence[str]) -> Question:
    # Imported here: processes of clients need no TensorFlow.
    start_tensorflow()
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL_NAME
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    # As string_val is written: number and kind of the field, length, text; for each image.
    content = b"".join(bytes((0x42, len(label))) + label.encode() for label in labels)
    return Question(request.SerializeToString(), StatusCode.OK.value[0], content)


def load_images(count: int) -> tuple[Any, list[bytes]]:
    """Returns real images, uint8 (count, 32, 32, 3), and the same as PNG."""
    start_tensorflow()
    import tensorflow as tf

    from keras_cifar.cifar10 import SAMPLE
    from keras_cifar.data.prepare import load

    images = load(SAMPLE, split="train", data_dir=None).images[:count]
    return images, [tf.io.encode_png(image).numpy() for image in images]


def load_alone(path: Path) -> Any:
    """Loads a SavedModel as servers do.

    Returns:
        A function of a signature and the name of an output; it returns a function from the
        signature's input to that output.
    """
    start_tensorflow()
    import tensorflow as tf

    from keras_cifar.tf1_loader import load_saved_model

    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        signatures = load_saved_model(session, path).signature_def

    def runner(signature: str, output: str) -> Any:
        (given,) = signatures[signature].inputs.values()
        wanted = signatures[signature].outputs[output].name
        return session.make_callable(wanted, feed_list=[given.name])

    return runner
