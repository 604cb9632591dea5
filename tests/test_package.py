"""The package as a whole: what imports what, and how long it takes to say a word."""

import ast
import importlib.metadata
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import keras_cifar

PACKAGE = Path(keras_cifar.__file__).parent
# A layer may import what stands below it, and nothing of its own (but its own subpackage).
LAYERS = (
    ("cli", "__main__"),
    ("train", "evaluate", "plot", "client", "export", "deploy", "serve", "doctor"),
    ("data", "model", "optimize", "image", "history", "model_dir", "tf1_loader", "run_dir"),
    ("config",),
    ("cifar10", "fast", "serving", "machine", "files", "errors"),
)
COMMANDS = ("data", "train", "evaluate", "plot", "predict", "export", "deploy", "serve", "doctor")


def stage_of(module):
    return module.split(".")[1]


def layer_of(stage):
    return next(number for number, layer in enumerate(LAYERS) if stage in layer)


def imports():
    """Every (importing module, imported module) of the package, also inside functions."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_cifar"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from ((module, name) for name in names)


def test_imports_point_downwards_and_no_stage_imports_another():
    arrows = {(stage_of(source), stage_of(target)) for source, target in imports()}
    assert ("cli", "train") in arrows
    wrong = {
        (source, target)
        for source, target in arrows
        if source != target and layer_of(source) >= layer_of(target)
    }
    allowed = {("__main__", "cli"), ("config", "config"), ("data", "data")}
    assert not wrong - allowed


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_loads_no_tensorflow_numpy_or_matplotlib(command):
    code = (
        "import sys\n"
        "from keras_cifar.cli import main\n"
        f"main([*{command!r}, '--help'], standalone_mode=False)\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'matplotlib', 'tensorflow_datasets'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout


def test_help_answers_within_0_3_seconds():
    """The median of five, as a busy machine may be slow for once."""
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "keras_cifar", "train", "--help"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds.append(time.perf_counter() - started)
    assert statistics.median(seconds) < 0.3


def test_the_version_is_the_packages():
    result = subprocess.run(
        [sys.executable, "-m", "keras_cifar", "--version"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert importlib.metadata.version("keras-cifar") in result.stdout


def test_the_types_and_the_sample_come_with_the_package():
    assert (PACKAGE / "py.typed").is_file()
    sample = PACKAGE / "data" / "sample"
    assert 4e6 < sum(path.stat().st_size for path in sample.rglob("*")) < 6.5e6
