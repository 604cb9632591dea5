"""Tests with the lowest and the highest versions that pyproject.toml allows, on each Python.

    python scripts/check_dependencies.py
    python scripts/check_dependencies.py --python 3.12 --resolution lowest-direct

Each combination gets a virtual environment, in which a few tests run that together use every
dependency. "lowest-direct" takes the lowest version of what pyproject.toml names, and of what
those bring the highest; "highest" takes what pip would. Needs uv (`pip install uv`), which finds
the Pythons of this machine, and network access to a package index.
"""

import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
RESOLUTIONS = ("lowest-direct", "highest")
TESTS = (
    "tests/test_package.py",
    "tests/test_load.py",
    "tests/test_plot.py",
    "tests/test_data_archive.py",
    "tests/test_data_read.py",
    "tests/test_data_prepare.py",
    "tests/test_export_formats.py",
    "tests/test_serve_cases.py",
    "tests/test_serve_security.py",
    "tests/test_corruptions.py",
    # Single ones: others of these files need click 8.2, whose test runner keeps stderr apart.
    "tests/test_suspects.py::test_labels_that_were_made_wrong_are_found_with_the_right_one",
    "tests/test_report.py::test_the_page_has_a_picture_of_each_kind",
    "tests/test_train.py::test_tensorboard_gets_the_curves_and_changes_nothing",
)


@click.command()
@click.option("--python", "pythons", multiple=True, default=PYTHONS, help="Version or path.")
@click.option("--resolution", "resolutions", multiple=True, default=RESOLUTIONS)
@click.option("--test", "tests", multiple=True, default=TESTS, help="File or test, as for pytest.")
@click.option(
    "--environments",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder where the environments stay.  [default: a temporary one]",
)
def main(
    pythons: Sequence[str],
    resolutions: Sequence[str],
    tests: Sequence[str],
    environments: Path | None,
) -> None:
    """Prints a line for each combination; fails unless all of them pass."""
    if shutil.which("uv") is None:
        raise click.ClickException("needs uv: pip install uv")
    failed = False
    for python, resolution in itertools.product(pythons, resolutions):
        with tempfile.TemporaryDirectory() as temporary:
            name = f"{Path(python).name}-{resolution}"
            environment = (environments or Path(temporary)).absolute() / name
            outcome = check(python, resolution, tests=tests, environment=environment)
        click.echo(f"Python {python}, {resolution}: {outcome}")
        failed |= outcome != "passed"
    if failed:
        raise click.exceptions.Exit(1)


def check(python: str, resolution: str, *, tests: Sequence[str], environment: Path) -> str:
    """Makes an environment and runs the tests in it; returns what became of that."""
    find = ["--python", python, "--no-python-downloads", "--allow-existing"]
    if not _runs("uv", "venv", "--quiet", *find, environment):
        return "no such Python here"
    inside = environment / "bin" / "python"
    install = ["pip", "install", "--quiet", "--python", inside, "--resolution", resolution]
    if not _runs("uv", *install, f"{ROOT}[test]"):
        return "cannot be installed"
    settings = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider"]
    # An old package may use what a new one warns of.
    run = [inside, "-m", "pytest", "-q", "--exitfirst", "-W", "default", *settings]
    # Elsewhere, or the tests would import the source beside them.
    passes = _runs(*run, *(ROOT / test for test in tests), folder=environment)
    return "passed" if passes else "tests failed"


def _runs(*command: object, folder: Path = ROOT) -> bool:
    arguments = [str(word) for word in command]
    return subprocess.run(arguments, stdout=sys.stderr, cwd=folder).returncode == 0


if __name__ == "__main__":
    main()
