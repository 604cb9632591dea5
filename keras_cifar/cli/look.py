"""Look at what is there: the model's figures, its curves, and this machine."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import click

from keras_cifar.cli.doubts import SUSPECTS_SHOWN, print_corruptions, print_suspects
from keras_cifar.cli.options import PATH, data_dir_option, json_option, tta_option, wrong_usage
from keras_cifar.machine import provide_temporary_folder, start_tensorflow
from keras_cifar.recipes.config import SPLITS
from keras_cifar.run_dir import RunDir, RunGroup, is_group, newest_run, runs_at


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
    type=click.FloatRange(0, 1, min_open=True),
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
    help=f"With --suspect-labels: how many.  [default: {SUSPECTS_SHOWN}]",
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
        print_corruptions(
            run_dir,
            split=split,
            views=views,
            views_share=views_share,
            corruption_images=corruption_images,
            data_dir=data_dir,
            as_json=as_json,
        )
        return
    if suspect_labels:
        print_suspects(
            run_dir,
            split=split,
            views=views,
            views_share=views_share,
            top=top or SUSPECTS_SHOWN,
            data_dir=data_dir,
            as_json=as_json,
        )
        return
    start_tensorflow()
    from keras_cifar import evaluate as stage

    if is_group(run_dir.path):
        with wrong_usage():
            measured = stage.evaluate_group(RunGroup(run_dir.path), **options)
        table = stage.format_group_table(measured)
        click.echo(json.dumps(stage.group_as_json(measured)) if as_json else table)
        return
    with wrong_usage():
        metrics = stage.evaluate(run_dir, **options)
    click.echo(json.dumps(asdict(metrics)) if as_json else stage.format_table(metrics))


@click.command()
@click.argument("runs", metavar="[RUN]...", type=PATH, nargs=-1)
@click.option(
    "--output",
    type=PATH,
    help="A .png, .svg or .pdf file.  [default: history.png in the run, or here for several]",
)
def plot(runs: tuple[Path, ...], output: Path | None) -> None:
    """Draw loss and accuracy of a run (default: the newest), or of several in one picture.

    A group stands for its runs.
    """
    paths = runs or (newest_run().path,)
    # Those of a group that are in their first epoch have no curves.
    run_dirs = [
        run_dir
        for path in paths
        for run_dir in runs_at(path)
        if run_dir.history.is_file() or not is_group(path)
    ]
    path = output or (RunDir(paths[0]).plot if len(paths) == 1 else Path("history.png"))
    provide_temporary_folder(path.parent)
    from keras_cifar import plot as stage

    with wrong_usage(path="--output", run_dirs="RUN"):
        click.echo(str(stage.draw_history(run_dirs, path=path)))


@click.command()
@click.option("--speed", is_flag=True, help="Measure this machine as well, in under a minute.")
@data_dir_option
@json_option
def doctor(speed: bool, data_dir: Path | None, as_json: bool) -> None:
    """Tell what this machine has, what is missing, and how to get it."""
    start_tensorflow(trains=True)
    from keras_cifar import doctor as stage

    diagnosis = stage.diagnose(data_dir=data_dir)
    document = stage.as_json(diagnosis)
    if not as_json:
        click.echo(stage.format_diagnosis(diagnosis))
    if speed:
        # Here, since it brings all of training.
        from keras_cifar.train import speed as measurement

        click.echo("Measuring; other programs would disturb it", err=True)
        speeds = measurement.measure()
        document["speed"] = asdict(speeds)
        if not as_json:
            click.echo(f"\n{measurement.format_table(speeds)}")
    if as_json:
        click.echo(json.dumps(document))
