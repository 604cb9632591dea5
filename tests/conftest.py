"""Real CIFAR-10 images for all tests, and a real run to look at."""

import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from filelock import FileLock
from fork_server import Fork, ForkServer
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, expect, sync_playwright

from keras_cifar.cifar10 import CIFAR10, DATASETS, SAMPLE, DatasetFacts, SplitFacts
from keras_cifar.run_dir import RunDir
from keras_cifar.start import start_tensorflow

# Without AVX-512, TensorFlow leaves oneDNN off, which trains 1.3 to 1.9 times as fast there too
# (AMD EPYC with AVX2, November 2026). Elsewhere it is on anyway. No test is about the choice.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Every command sets it, for good if it runs in this process. Set now, it is that of all forks.
os.environ.setdefault("MPLBACKEND", "agg")
start_tensorflow()
# A shell lets what it starts with "&" ignore Ctrl-C, and nohup the end of the terminal, and the
# processes of the tests inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# How long an example takes says more about what else the machine does than about the code.
settings.register_profile(
    "no deadline", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("no deadline")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from keras_cifar.data.examples import Examples, Splits, in_canonical_order  # noqa: E402
from keras_cifar.data.prepare import load  # noqa: E402
from keras_cifar.data.tfds_folder import (  # noqa: E402
    dataset_folder,
    is_prepared,
    write_folder,
)
from keras_cifar.export import Exported, export  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, or one process would be left with them at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


_KERAS_CIFAR = "import runpy; runpy.run_module('keras_cifar', run_name='__main__', alter_sys=True)"


def _environment_as_it_was() -> Iterator[None]:
    """Takes back what a command, or a library that it imports, sets for good in this process."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


_environment_of_a_test = pytest.fixture(_environment_as_it_was, autouse=True)
_environment_of_a_file = pytest.fixture(_environment_as_it_was, autouse=True, scope="module")


@pytest.fixture(scope="session")
def sample() -> Examples:
    """The 2,000 training images that come with the package."""
    return load(SAMPLE, split="train", data_dir=None)


class Tiny(NamedTuple):
    """A dataset of its own, for tests about training that do not ask what it learns.

    Attributes:
        data_dir: where TFDS finds it.
        examples: its training images.
        code: what has another process know it.
    """

    data_dir: Path
    examples: Examples
    code: str


@pytest.fixture(scope="session")
def tiny(sample: Examples, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """400 images of the sample, 40 of each class, as the dataset "tiny"."""
    chosen = np.concatenate([np.flatnonzero(sample.labels == label)[:40] for label in range(10)])
    examples, sha256 = in_canonical_order(sample.take(chosen))
    split = SplitFacts(len(chosen), sha256)
    facts = DatasetFacts("cifar10_tiny", "1.0.0", train=split, test=split)
    DATASETS["tiny"] = facts
    data_dir = tmp_path_factory.mktemp("data")
    write_folder(Splits(examples, examples), dataset=facts, data_dir=data_dir, id_prefix="")
    code = (
        "from keras_cifar.cifar10 import DATASETS, DatasetFacts, SplitFacts\n"
        f"DATASETS['tiny'] = {facts!r}"
    )
    return Tiny(data_dir, examples, code)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer | None]:
    """Starts Python with TensorFlow imported; None where forks may not use what they inherit."""
    if sys.platform != "linux":
        yield None
        return
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def in_a_process(
    fork_server: ForkServer | None, tiny: Tiny
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python, with the names that training needs, in a process of its own."""
    names = (
        "import os, pathlib, signal, keras_cifar.start",
        "keras_cifar.start.start_tensorflow()",
        "import tensorflow as tf",
        tiny.code,
        f"data_dir = pathlib.Path({str(tiny.data_dir)!r})",
        "from keras_cifar.recipes import TrainConfig",
        "from keras_cifar.run_dir import RunDir",
        "from keras_cifar.train import checkpoint, resume, train",
    )

    def run(*lines: str, env: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess[str]:
        code = "\n".join((*names, *lines))
        if fork_server and fork_server.can_start(env):
            return fork_server.run(code, environment=env)
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def full_data_dir() -> Path:
    """Where the complete CIFAR-10 is; without it, the test cannot run."""
    folder = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    if not is_prepared(dataset_folder(CIFAR10, data_dir=folder)):
        pytest.skip("needs the complete CIFAR-10: set TFDS_DATA_DIR or run keras-cifar data")
    return folder


@pytest.fixture(scope="session")
def command(fork_server: ForkServer | None) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs keras-cifar in a process of its own."""

    def run(
        *arguments: object, input: str = "", env: Mapping[str, str] = os.environ
    ) -> subprocess.CompletedProcess[str]:
        words = list(map(str, arguments))
        if fork_server and fork_server.can_start(env):
            return fork_server.run(_KERAS_CIFAR, words, environment=env, given=input)
        command = [sys.executable, "-m", "keras_cifar", *words]
        return subprocess.run(
            command, input=input, env=env, capture_output=True, text=True, check=False
        )

    return run


def _start(
    fork_server: ForkServer | None,
    code: str,
    words: list[str],
    *,
    stdout: int,
    stderr: int,
    environment: Mapping[str, str] = os.environ,
) -> Fork | subprocess.Popen[bytes]:
    if fork_server and fork_server.can_start(environment):
        streams = [0, stdout, stderr]
        return fork_server.start(code, words, environment=environment, streams=streams)
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(command, env=environment, stdout=stdout, stderr=stderr)


@pytest.fixture(scope="session")
def start_python() -> Callable[..., Fork | subprocess.Popen[bytes]]:
    """`_start`, for tests, which cannot import it."""
    return _start


def _made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Has the first of the processes that run tests make a folder, and the others wait for it."""
    done = folder / "done"
    with FileLock(folder.with_suffix(".lock")):
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of pytest-xdist have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def training(
    command: Callable[..., subprocess.CompletedProcess[str]], shared_folder: Path
) -> subprocess.CompletedProcess[str]:
    """The process that trained `trained_run`: what it printed, and how it ended."""

    def train(folder: Path) -> None:
        path = folder / "two-epochs"
        ended = command("train", "--dataset", "sample", "--epochs", 2, "--run-dir", path)
        (folder / "process.pickle").write_bytes(pickle.dumps(ended))

    made = _made_once(shared_folder / "runs", train)
    ended = pickle.loads((made / "process.pickle").read_bytes())
    assert isinstance(ended, subprocess.CompletedProcess)
    return ended


@pytest.fixture(scope="session")
def trained_run(training: subprocess.CompletedProcess[str]) -> RunDir:
    """A run of two epochs on the sample, trained by the command."""
    assert training.returncode == 0, training.stderr
    return RunDir(Path(training.args[-1]))


@pytest.fixture(scope="session")
def exported(
    trained_run: RunDir, shared_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Version 1 of `trained_run`'s model, a SavedModel; each process has a copy of its own."""

    def publish(folder: Path) -> None:
        published = export(trained_run, folder / "cifar10")
        (folder / "exported.pickle").write_bytes(pickle.dumps(published))

    made = _made_once(shared_folder / "models", publish)
    published = pickle.loads((made / "exported.pickle").read_bytes())
    assert isinstance(published, Exported)
    model_dir = tmp_path_factory.mktemp("models") / "cifar10"
    shutil.copytree(published.version.parent, model_dir)
    return published._replace(version=model_dir / published.version.name)


@dataclass
class Server:
    """A running keras-cifar serve.

    Attributes:
        url: of REST.
        grpc: address of gRPC.
        process: the server's.
        log: the file with its stderr.
    """

    url: str
    grpc: str
    process: Fork | subprocess.Popen[bytes]
    log: Path


@contextmanager
def run_server(
    fork_server: ForkServer | None,
    folder: Path,
    *arguments: object,
    constants: Mapping[str, float] | None = None,
) -> Iterator[Server]:
    """Runs keras-cifar serve on free ports; afterwards it must end well.

    Args:
        fork_server: starts it, if it can.
        folder: for its log.
        arguments: its arguments, ports aside.
        constants: other values for the constants of modules, by their full names: a test need not
            wait as long as a client.
    """
    program = []
    if constants:
        program = ["import keras_cifar.start", "keras_cifar.start.start_tensorflow()"]
        for name, value in constants.items():
            program += [f"import {name.rpartition('.')[0]}", f"{name} = {value}"]
    code = "\n".join([*program, _KERAS_CIFAR])
    words = ["serve", *map(str, arguments), "--rest-port", "0", "--grpc-port", "0"]
    log = folder / "server.log"
    read, write = os.pipe()
    with os.fdopen(read) as announced, log.open("w") as stderr:
        process = _start(fork_server, code, words, stdout=write, stderr=stderr.fileno())
        os.close(write)
        try:
            lines = announced.readline() + announced.readline()
            found = re.search(r": (https?://\S+)\ngRPC: (\S+)\n", lines)
            assert found, log.read_text()
            yield Server(found[1], found[2], process, log)
            if process.poll() is None:
                process.terminate()
            assert process.wait(timeout=600) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def serving(fork_server: ForkServer | None) -> Callable[..., Any]:
    """`run_server`, for tests, which cannot import it."""
    return partial(run_server, fork_server)


@pytest.fixture(scope="session")
def server(
    serving: Callable[..., Any], exported: Exported, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of `exported`, under the name cifar10."""
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, exported.version.parent, "--access-log", "off") as running:
        yield running


def _wait(seconds: tf.Tensor) -> tf.Tensor:
    """Waits in a graph, and leaves the CPU to others; returns 0."""
    end = tf.timestamp() + tf.cast(seconds, tf.float64)
    types: dict[str, Any] = {"output_types": [tf.int64], "output_shapes": [[]]}

    def nap(_: tf.Tensor) -> list[tf.Tensor]:
        one = tf.raw_ops.RangeDataset(start=0, stop=1, step=1, **types)
        late = tf.raw_ops.SleepDataset(input_dataset=one, sleep_microseconds=10_000, **types)
        with tf.control_dependencies(tf.raw_ops.DatasetToSingleElement(dataset=late, **types)):
            return [tf.timestamp()]

    (now,) = tf.while_loop(lambda now: now < end, nap, [tf.timestamp()])
    return 0 * tf.cast(now, tf.float32)


@pytest.fixture(scope="session")
def wait() -> Callable[[tf.Tensor], tf.Tensor]:
    """`_wait`, for tests, which cannot import it."""
    return _wait


def _save_toy(
    version: Path,
    *,
    answer: float = 0.0,
    only: Collection[str] | None = None,
    megabytes: int = 0,
) -> None:
    """Writes a version in one step: a SavedModel that tells by its answers which one it is.

    Args:
        version: its folder, which a server sees at once and whole.
        answer: what each signature adds to the numbers it is given.
        only: the signatures that it is to have; None for all. Each takes its time to be loaded.
        megabytes: of weights, which no signature uses.
    """
    module = tf.Module()
    module.answer = tf.Variable(float(answer))
    module.weights = tf.Variable(tf.ones([megabytes, 2**18]))

    def slow(x: tf.Tensor) -> dict[str, tf.Tensor]:
        """As many seconds as the largest number says."""
        return {"y": x + module.answer + _wait(tf.reduce_max(x))}

    def parsed(inputs: tf.Tensor) -> tf.Tensor:
        features = {"x": tf.io.FixedLenFeature([1], tf.float32)}
        return tf.io.parse_example(inputs, features)["x"] + module.answer

    numbers, examples = tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([None], tf.string)
    rows, words = tf.TensorSpec([None, None], tf.float32, "x"), tf.TensorSpec([None], tf.string)
    signatures = {
        "serving_default": tf.function(lambda x: {"y": x + module.answer}, [numbers]),
        "slow": tf.function(slow, [numbers]),
        "rows": tf.function(lambda x: {"y": tf.reduce_sum(x, 1) + module.answer}, [rows]),
        "words": tf.function(lambda words: {"y": tf.strings.length(words)}, [words]),
        "classify": tf.function(lambda inputs: {"scores": parsed(inputs)}, [examples]),
        "regress": tf.function(lambda inputs: {"outputs": parsed(inputs)}, [examples]),
    }
    version.parent.mkdir(parents=True, exist_ok=True)
    folder = version.with_name(f".{version.name}")
    chosen = {name: signatures[name] for name in only or signatures}
    tf.saved_model.save(module, str(folder), signatures=chosen)
    folder.rename(version)


@pytest.fixture(scope="session")
def save_toy() -> Callable[..., None]:
    """`_save_toy`, for tests, which cannot import it."""
    return _save_toy


def _eventually(is_so: Callable[[], Any], *, seconds: float = 300.0) -> Any:
    """Waits until something is so, and returns it."""
    end = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """`_eventually`, for tests, which cannot import it."""
    return _eventually


@pytest.fixture
def nobody() -> Iterator[socket.socket]:
    """A socket of 127.0.0.1 that keeps its port from all others, and does not listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def _rest_of(terminal: int) -> bytes:
    """Reads a terminal until the other side hangs up, which Linux reports as an error."""
    parts = []
    with suppress(OSError):
        while part := os.read(terminal, 10_000):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts)


@pytest.fixture(scope="session")
def rest_of() -> Callable[[int], bytes]:
    """`_rest_of`, for tests, which cannot import it."""
    return _rest_of


# For test_page.py and test_report.py. Not for the session: while it is there, asyncio is taken.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium; without one, the test cannot run."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    expect.set_options(timeout=60_000)  # a busy machine may be late
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags, timeout=300_000)
        yield browser
        browser.close()
