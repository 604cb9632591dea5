"""What `evaluate` does beside figures of a split: corrupted images, and labels in doubt."""

import importlib.util
import json
from dataclasses import asdict
from typing import Any

import click

from keras_cifar.cli.options import wrong_usage
from keras_cifar.machine import start_tensorflow
from keras_cifar.run_dir import RunDir, runs_at

SUSPECTS_SHOWN = 20


def require_modules(option: str, *modules: str) -> None:
    """Ends the command in one line where the extra that an option needs is not installed."""
    if any(importlib.util.find_spec(module) is None for module in modules):
        raise click.ClickException(f"{option} needs more: pip install 'keras-cifar[report]'")


def print_corruptions(run_dir: RunDir, *, as_json: bool, **options: Any) -> None:
    """Measures a run under corruptions, and prints that."""
    require_modules("--corruptions", "scipy")
    runs = runs_at(run_dir.path)
    if len(runs) > 1:
        raise click.UsageError(f"--corruptions: takes one run. Name one: {runs[0].path}")
    start_tensorflow()
    from keras_cifar import robustness as stage

    with wrong_usage():
        robustness = stage.evaluate_corruptions(run_dir, **options)
    click.echo(json.dumps(asdict(robustness)) if as_json else stage.format_table(robustness))


def print_suspects(run_dir: RunDir, *, as_json: bool, **options: Any) -> None:
    """Finds labels that are probably wrong, and prints them."""
    require_modules("--suspect-labels", "cleanlab")
    start_tensorflow()
    from keras_cifar import suspects as stage

    with wrong_usage():
        found = stage.find_suspects(run_dir, **options)
    click.echo(json.dumps(asdict(found)) if as_json else stage.format_table(found))
