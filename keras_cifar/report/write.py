"""Runs -> a page or a model card, written whole."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from keras_cifar.files import replacing, require_writable
from keras_cifar.report.facts import gather
from keras_cifar.report.render import render
from keras_cifar.report.run_page import page_of
from keras_cifar.report.runs_page import page_of_runs
from keras_cifar.run_dir import RunDir

Format = Literal["html", "markdown"]
_SUFFIXES = {"html": ".html", "markdown": ".md"}


def report(
    runs: Sequence[RunDir], *, path: Path, kind: Format = "html", data_dir: Path | None = None
) -> Path:
    """Writes what is known of a run, or of several side by side.

    Args:
        runs: at least one.
        path: to write to, and returned.
        kind: "html" for a page that stands alone, or "markdown" for a model card.
        data_dir: as `keras_cifar.measure.predictions.load_model_and_split` takes it.

    Raises:
        ValueError: no run, one twice, or a path of another suffix.
        OSError: one of these is no run, the data cannot be had, or the page cannot be written.
    """
    if not runs:
        raise ValueError("runs: got none, expected at least one run.")
    for run in runs:
        run.read_record()  # before the minutes that the models take
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder. Make it, or name another file.")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder. Name a file in it.")
    if path.suffix.lower() != _SUFFIXES[kind]:  # it might be a run's other file
        raise ValueError(
            f"path: got {path.name!r}, expected a name that ends in {_SUFFIXES[kind]}."
        )
    require_writable(path.parent, name="--output")
    if len(runs) == 1:
        name, page = "run", page_of(gather(runs[0], data_dir=data_dir))
    else:
        _check_each_once(runs)
        name, page = "runs", page_of_runs(runs, data_dir=data_dir)
    text = render(f"{name}{_SUFFIXES[kind]}", package_version=version("keras-cifar"), **page)
    with replacing(path) as temporary:
        # A folder's name need not be Unicode, nor what config.json says.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def _check_each_once(runs: Sequence[RunDir]) -> None:
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"runs: got {twice} twice, expected each run once.")
