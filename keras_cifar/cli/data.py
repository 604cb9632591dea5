"""Prepare the data."""

import json
from pathlib import Path
from typing import Any

import click

from keras_cifar.cifar10 import DATASETS
from keras_cifar.cli.options import (
    PATH,
    config_from,
    data_dir_option,
    dataset_option,
    default_of,
    given,
    json_option,
    wrong_usage,
)
from keras_cifar.start import start_tensorflow


@click.command()
@data_dir_option
@dataset_option
@click.option(
    "--archive", type=PATH, help="Prepare from this cifar-10-{binary,python}.tar.gz or its folder."
)
@click.option("--mirror", metavar="URL", help="Download from here: an archive, or Parquet files.")
@click.option("--grid", type=PATH, metavar="FILE.png", help="Draw 10 images of each class.")
@click.option("--seed", type=int, help="Of the split and of the grid." + default_of("seed"))
@click.option(
    "--validation-fraction",
    type=float,
    help="Share of the training images kept for validation." + default_of("validation_fraction"),
)
@json_option
def data(
    data_dir: Path | None,
    archive: Path | None,
    mirror: str | None,
    grid: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Prepare CIFAR-10 where it is missing, verify it, and print how it is split."""
    # However few images are left to train on: none is trained on here.
    config = config_from({**given(options), "batch_size": 1})
    if archive and mirror:
        raise click.UsageError("--archive and --mirror each say where from: give one of them.")
    if config.dataset == "sample" and (archive or mirror):
        raise click.UsageError(
            "--dataset sample comes with the package: leave out --archive and --mirror."
        )
    if grid:
        from keras_cifar.plot import check_path

        # Before the work, not after it.
        with wrong_usage(path="--grid"):
            check_path(grid)
    start_tensorflow()
    from keras_cifar.data.prepare import prepare
    from keras_cifar.data.split import format_table, split_stratified, split_table
    from keras_cifar.data.tfds_folder import read_split

    facts = DATASETS[config.dataset]
    with wrong_usage():
        folder = prepare(facts, data_dir=data_dir, mirror=mirror, archive=archive)
    examples = read_split(folder, split="train", dataset=facts)
    training, validation = split_stratified(
        examples, validation_fraction=config.validation_fraction, seed=config.seed
    )
    test = read_split(folder, split="test", dataset=facts)
    table = split_table({"train": training, "validation": validation, "test": test})
    click.echo(json.dumps(table) if as_json else format_table(table))
    if grid:
        from keras_cifar.plot import draw_grid

        click.echo(f"wrote {draw_grid(examples, path=grid, seed=config.seed)}", err=True)
