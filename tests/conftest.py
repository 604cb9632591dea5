"""Real CIFAR-10 images for all tests, and a real run to look at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_cifar.cifar10 import CIFAR10, SAMPLE
from keras_cifar.config import RunDir
from keras_cifar.startup import start_tensorflow

start_tensorflow()

from keras_cifar.data.examples import Examples  # noqa: E402
from keras_cifar.data.prepare import load  # noqa: E402
from keras_cifar.data.read import dataset_folder, is_prepared  # noqa: E402


@pytest.fixture(scope="session")
def sample() -> Examples:
    """The 2,000 training images that come with the package."""
    return load(SAMPLE, split="train", data_dir=None)


@pytest.fixture(scope="session")
def full_data_dir() -> Path:
    """Where the complete CIFAR-10 is; without it, the test cannot run."""
    folder = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    if not is_prepared(dataset_folder(CIFAR10, data_dir=folder)):
        pytest.skip("needs the complete CIFAR-10: set TFDS_DATA_DIR or run keras-cifar data")
    return folder


def run_command(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs keras-cifar in a process of its own."""
    command = [sys.executable, "-m", "keras_cifar", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of two epochs on the sample, trained by the command."""
    path = tmp_path_factory.mktemp("runs") / "two-epochs"
    result = run_command("train", "--dataset", "sample", "--epochs", "2", "--run-dir", str(path))
    assert result.returncode == 0, result.stderr
    return RunDir(path)
