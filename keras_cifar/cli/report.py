"""Explain runs: a page or a model card."""

import importlib.util
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from keras_cifar.cli.options import PATH, data_dir_option, wrong_usage
from keras_cifar.run_dir import RunDir, ended_runs_at, newest_run
from keras_cifar.start import provide_temporary_folder, start_tensorflow


@click.command()
@click.argument("runs", metavar="[RUN]...", type=PATH, nargs=-1)
@click.option(
    "--format",
    "kind",
    type=click.Choice(("html", "markdown")),
    default="html",
    help="A page, or a model card in Markdown.",
)
@click.option(
    "--output",
    type=PATH,
    help="The file.  [default: report.html or model_card.md in the run, or here for several]",
)
@click.option("--open", "opens", is_flag=True, help="Open it in the browser.")
@data_dir_option
def report(
    runs: tuple[Path, ...],
    kind: Literal["html", "markdown"],
    output: Path | None,
    opens: bool,
    data_dir: Path | None,
) -> None:
    """Explain a run (default: the newest) on one page, or compare several.

    A group stands for its runs that have ended.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise click.ClickException("report needs more: pip install 'keras-cifar[report]'")
    paths = runs or (newest_run().path,)
    run_dirs = [run for path in paths for run in ended_runs_at(path)]
    path = output or _default_path(paths, kind=kind)
    provide_temporary_folder(path.parent)
    start_tensorflow()
    from keras_cifar import report as stage

    with wrong_usage(runs="RUN", path="--output"):
        stage.report(run_dirs, path=path, kind=kind, data_dir=data_dir)
    click.echo(str(path))
    if opens and not webbrowser.open(path.resolve().as_uri()):
        click.echo(f"{path}: no browser here to open it with.", err=True)


def _default_path(paths: Sequence[Path], *, kind: str) -> Path:
    first = RunDir(paths[0])
    path = first.report if kind == "html" else first.model_card
    return path if len(paths) == 1 else Path(path.name)
