"""The wheel: what is in it, and that it works where the checkout is not."""

import fnmatch
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("keras_cifar", "pyproject.toml", "README.md", "LICENSE")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that KERAS_CIFAR_WHEEL names, as in a release; otherwise one that is built here.

    It is built from a copy: setuptools takes what an earlier build has left in the checkout. The
    build uses this environment's setuptools, and needs no network.
    """
    if given := os.environ.get("KERAS_CIFAR_WHEEL"):
        return Path(given).resolve()
    source, built = (tmp_path_factory.mktemp(name) for name in ("source", "built"))
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", built, source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = built.iterdir()
    return wheel


@pytest.fixture(scope="module")
def contents(wheel):
    """The names of the wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of an environment with the wheel's package; the others come from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--no-index", "--no-deps", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    (site_packages,) = folder.glob("lib/python3.*/site-packages")
    others = [path for path in sys.path if path.endswith("-packages")]
    (site_packages / "others.pth").write_text("\n".join(others))
    return folder


def run(program, *arguments, cwd):
    """Runs a program of the environment, and returns what it prints."""
    hidden = ("PYTHONPATH", "TFDS_DATA_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    result = subprocess.run(
        [program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_wheel_holds_the_package_and_its_metadata_and_nothing_else(contents, wheel):
    metadata = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    assert {name.split("/")[0] for name in contents} == {"keras_cifar", metadata}
    assert f"{metadata}/licenses/LICENSE" in contents


def test_the_wheel_holds_each_file_of_the_package(contents):
    files = (path for path in (ROOT / "keras_cifar").rglob("*") if path.is_file())
    expected = {str(path.relative_to(ROOT)) for path in files if path.parent.name != "__pycache__"}
    assert {name for name in contents if name.startswith("keras_cifar/")} == expected


@pytest.mark.parametrize(
    "name", ["py.typed", "*/dataset_info.json", "*/docker-compose.yml", "*/index.html"]
)
def test_the_wheel_holds_types_sample_templates_and_page(contents, name):
    assert fnmatch.filter(contents, f"keras_cifar/{name}")


def test_the_wheel_is_small_enough_to_install_on_a_whim(wheel):
    assert wheel.stat().st_size < 8e6


def test_the_installed_package_is_the_one_of_the_wheel(installed, tmp_path):
    python = installed / "bin" / "python"
    where = run(python, "-c", "import keras_cifar; print(keras_cifar.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed)


def test_the_installed_command_tells_its_version(installed, wheel, tmp_path):
    printed = run(installed / "bin" / "keras-cifar", "--version", cwd=tmp_path)
    assert wheel.name.split("-")[1] in printed


def test_the_installed_command_reads_the_sample(installed, tmp_path):
    printed = run(installed / "bin" / "keras-cifar", "data", "--dataset", "sample", cwd=tmp_path)
    assert [line.split() for line in printed.splitlines() if line.startswith("all")] == [
        ["all", "1,600", "400", "500"]
    ]
