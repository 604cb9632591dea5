"""Look at what is there: a run's curves, and this machine."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from keras_cifar.cli.options import PATH, data_dir_option, json_option, wrong_usage
from keras_cifar.run_dir import RunDir, is_group, newest_run, runs_at
from keras_cifar.start import provide_temporary_folder, start_tensorflow


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
