"""What the package imports is declared: a package that another one brings may go with it."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 knows few modules' packages either")

ROOT = Path(__file__).parents[1]
# What a stage may import besides the dependencies: the package of an extra that it asks for.
EXTRAS_OF_STAGES = {
    "client": ["serve"],
    "export": ["litert", "onnx"],
    "measure": ["report"],
    "report": ["report"],
    "serve": ["serve"],
    "suspects.py": ["report"],
}


def names(requirements):
    """The packages that these lines of pyproject.toml name for this Python and machine."""
    parsed = [Requirement(line) for line in requirements]
    return {canonicalize_name(r.name) for r in parsed if not r.marker or r.marker.evaluate()}


def third_party_imports(path):
    """Every module of another package that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module]
        else:
            continue
        yield from {module.split(".")[0] for module in modules} - {*sys.stdlib_module_names}


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    distributions = {**packages_distributions(), "keras_cifar": ["keras-cifar"]}
    undeclared = set()
    for path in (ROOT / "keras_cifar").rglob("*.py"):
        stage = path.relative_to(ROOT / "keras_cifar").parts[0]
        allowed = {"keras-cifar"} | names(project["dependencies"])
        for extra in EXTRAS_OF_STAGES.get(stage, []):
            allowed |= names(project["optional-dependencies"][extra])
        for module in third_party_imports(path):
            if not allowed & {canonicalize_name(name) for name in distributions[module]}:
                undeclared.add((stage, module))
    assert not undeclared
