"""List runs."""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import click

from keras_cifar.cli.options import PATH, json_option
from keras_cifar.errors import printable
from keras_cifar.recipes import RECIPES
from keras_cifar.run_dir import RUNS
from keras_cifar.runs import SORTS, STATES, format_table, list_runs, sort_rows


@click.command()
@click.argument("folder", type=PATH, default=RUNS)
@click.option("--recipe", type=click.Choice(tuple(RECIPES)), help="Only runs of this recipe.")
@click.option("--state", type=click.Choice(STATES), help="Only runs in this state.")
@click.option("--sort", "by", type=click.Choice(SORTS), default="started", help="Lowest first.")
@click.option("--reverse", is_flag=True, help="Highest first.")
@json_option
def runs(
    folder: Path, recipe: str | None, state: str | None, by: str, reverse: bool, as_json: bool
) -> None:
    """List the runs in FOLDER (default: runs), those of groups too, or of the group that it is.

    A narrow terminal has no room for all columns; --json tells everything.
    """
    if folder != RUNS and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder. Name one that holds runs.")
    found = list_runs(folder)
    chosen = [row for row in found if recipe in (None, row.recipe) and state in (None, row.state)]
    rows = sort_rows(chosen, by=by)
    if reverse:
        rows.reverse()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
    elif rows:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        click.echo(format_table(rows, width=width))
    elif found:
        click.echo(f"{folder}: none of its {len(found)} runs is of that kind.", err=True)
    else:
        click.echo(f"{folder}: no run here. Train one: keras-cifar train", err=True)
    for row in rows:
        if row.error and not as_json:
            click.echo(f"Warning: {printable(row.error)}", err=True)
