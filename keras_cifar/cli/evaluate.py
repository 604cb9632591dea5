"""Measure a model: on a split, under corruptions, or to find labels that are wrong."""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import click

from keras_cifar.cli.options import (
    PATH,
    FloatRange,
    data_dir_option,
    json_option,
    tta_option,
    wrong_usage,
)
from keras_cifar.recipes.config import SPLITS
from keras_cifar.run_dir import RunDir, RunGroup, is_group, newest_run
from keras_cifar.start import provide_temporary_folder, start_tensorflow

_SUSPECTS_SHOWN = 20


@click.command()
@click.argument("run", type=PATH, required=False)
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default="test",
    help="Which images; train and validation are the run's own parts.",
)
@tta_option
@click.option(
    "--tta-share",
    "views_share",
    type=FloatRange(0, 1, min_open=True),
    default=1.0,
    help="With --tta: the share of the images, the least certain, that get six views.",
)
@click.option(
    "--corruptions",
    is_flag=True,
    help="Measure under 15 corruptions at 5 severities instead; write corruptions.json.",
)
@click.option(
    "--corruption-images",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --corruptions: how many images of the split.  [default: all]",
)
@click.option(
    "--suspect-labels",
    is_flag=True,
    help="Find labels that are probably wrong instead; write suspects.json.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"With --suspect-labels: how many.  [default: {_SUSPECTS_SHOWN}]",
)
@data_dir_option
@json_option
def evaluate(
    run: Path | None,
    split: Literal["test", "validation", "train"],
    views: int,
    views_share: float,
    corruptions: bool,
    corruption_images: int | None,
    suspect_labels: bool,
    top: int | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Measure a run's model (default: the newest run's) and write its metrics.json.

    Of a group of runs, measure each, and print mean ± standard deviation over the seeds.
    """
    if views_share < 1 and views == 1:
        raise click.UsageError("--tta-share: is the share of the images for --tta; give both.")
    if corruptions and suspect_labels:
        raise click.UsageError("--corruptions and --suspect-labels: give one of them.")
    if corruption_images and not corruptions:
        raise click.UsageError("--corruption-images: is for --corruptions; give both.")
    if top and not suspect_labels:
        raise click.UsageError("--top: is for --suspect-labels; give both.")
    run_dir = RunDir(run) if run else newest_run()
    options: Any = {
        "split": split,
        "views": views,
        "views_share": views_share,
        "data_dir": data_dir,
    }
    provide_temporary_folder(run_dir.path)
    if corruptions:
        _print_corruptions(run_dir, as_json=as_json, corruption_images=corruption_images, **options)
    elif suspect_labels:
        _print_suspects(run_dir, as_json=as_json, top=top or _SUSPECTS_SHOWN, **options)
    elif is_group(run_dir.path):
        _print_group(RunGroup(run_dir.path), as_json=as_json, **options)
    else:
        _print_metrics(run_dir, as_json=as_json, **options)


def _print_metrics(run_dir: RunDir, *, as_json: bool, **options: Any) -> None:
    start_tensorflow()
    from keras_cifar import evaluate as stage

    with wrong_usage():
        metrics = stage.evaluate(run_dir, **options)
    click.echo(json.dumps(asdict(metrics)) if as_json else stage.format_table(metrics))


def _print_group(group: RunGroup, *, as_json: bool, **options: Any) -> None:
    start_tensorflow()
    from keras_cifar import evaluate as stage

    with wrong_usage():
        measured = stage.evaluate_group(group, **options)
    table = stage.format_group_table(measured)
    click.echo(json.dumps(stage.group_as_json(measured)) if as_json else table)


def _print_corruptions(run_dir: RunDir, *, as_json: bool, **options: Any) -> None:
    _require_modules("--corruptions", "scipy")
    start_tensorflow()
    from keras_cifar import robustness as stage

    with wrong_usage():
        robustness = stage.evaluate_corruptions(run_dir, **options)
    click.echo(json.dumps(asdict(robustness)) if as_json else stage.format_table(robustness))


def _require_modules(option: str, *modules: str) -> None:
    """Ends the command in one line where the extra that an option needs is not installed."""
    if any(importlib.util.find_spec(module) is None for module in modules):
        raise click.ClickException(f"{option} needs more: pip install 'keras-cifar[report]'")


def _print_suspects(run_dir: RunDir, *, as_json: bool, **options: Any) -> None:
    _require_modules("--suspect-labels", "cleanlab")
    start_tensorflow()
    from keras_cifar import suspects as stage

    with wrong_usage():
        found = stage.find_suspects(run_dir, **options)
    click.echo(json.dumps(asdict(found)) if as_json else stage.format_table(found))
