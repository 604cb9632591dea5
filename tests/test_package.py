"""The package as a whole: what imports what, and how long it takes to say a word."""

import ast
import importlib.metadata
import resource
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import keras_cifar

PACKAGE = Path(keras_cifar.__file__).parent
# A part may import what stands below its layer, and itself.
LAYERS = (
    ("__main__",),
    ("cli",),
    (
        *("train", "evaluate", "robustness", "suspects", "report", "runs"),
        *("client", "export", "deploy", "serve", "doctor", "launch"),
    ),
    ("plot",),
    ("measure",),
    ("run_dir",),
    ("run_record",),
    ("recipes",),
    ("accelerate", "optimize"),
    ("model", "distribute"),
    ("data",),
    ("history", "image", "model_dir", "rate_curve", "start", "tf1_loader"),
    ("cifar10", "serving", "machine", "usable_memory", "interpreter", "files", "errors"),
)
COMMANDS = (
    "data",
    "train",
    "launch",
    "runs",
    "evaluate",
    "plot",
    "report",
    "predict",
    "export",
    "deploy",
    "serve",
    "doctor",
)


def part_of(module):
    return module.split(".")[1]


def layer_of(part):
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def arrows():
    """Every (importing part, imported part) of the package, also inside functions."""
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            yield from ((part, part_of(name)) for name in names if name.startswith("keras_cifar."))


def test_imports_point_downwards_and_no_stage_imports_another():
    found = {(source, target) for source, target in arrows() if source != target}
    assert {("cli", "train"), ("recipes", "model")} <= found
    wrong = {(source, target) for source, target in found if layer_of(source) >= layer_of(target)}
    assert not wrong


def test_no_file_name_has_two_meanings():
    """But that a command, and the recipe of a network, are named for what they are about."""
    names = Counter(
        path.stem
        for path in PACKAGE.rglob("*.py")
        if path.stem != "__init__" and path.parent.name != "cli"
    )
    assert {name for name, count in names.items() if count > 1} == {"article"}


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


def processor_seconds(*arguments):
    """Of a Python process, which waiting for a busy processor does not add to."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_help_takes_at_most_five_times_what_importing_click_takes():
    """In alternation, the median of five: 2.4 times in November 2026, 0.14 s in all."""
    ratios = [
        processor_seconds("-m", "keras_cifar", "train", "--help")
        / processor_seconds("-c", "import click")
        for _ in range(5)
    ]
    assert statistics.median(ratios) < 5


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
