"""Finds CIFAR-10 in a TFDS folder, or makes that folder: from a download or from an archive."""

import errno
import os
import shutil
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import click

from keras_cifar.cifar10 import DatasetFacts
from keras_cifar.data.examples import Examples
from keras_cifar.data.source.fetch import SOURCES, fetch_archive, fetch_first
from keras_cifar.data.tfds_folder import (
    dataset_folder,
    is_prepared,
    read_split,
    remove_unfinished_folders,
    write_folder,
)
from keras_cifar.files import locked, make_folder

_SHIPPED = Path(__file__).parent / "sample"


def load(
    dataset: DatasetFacts, *, split: Literal["train", "test"], data_dir: Path | None
) -> Examples:
    """Loads a split of `dataset`, preparing it first where it is missing.

    Args:
        dataset: CIFAR10 or SAMPLE.
        split: of the original data set; "train" holds what becomes training and validation.
        data_dir: as for `prepare`.

    Returns:
        All examples of the split, in an order that only their content decides.

    Raises:
        OSError: it cannot be had, or what is there is damaged.
    """
    return read_split(prepare(dataset, data_dir=data_dir), split=split, dataset=dataset)


def prepare(
    dataset: DatasetFacts,
    *,
    data_dir: Path | None,
    mirror: str | None = None,
    archive: Path | None = None,
) -> Path:
    """Returns the TFDS folder of `dataset`, made from an archive or a download if it is missing.

    What has been prepared before is never touched. What comes from elsewhere is verified by
    content, and its folder appears whole or not at all.

    Args:
        dataset: CIFAR10 or SAMPLE.
        data_dir: TFDS's data folder; None for TFDS_DATA_DIR or, without it, TFDS's own default.
        mirror: URL to download from in place of `SOURCES`, of the kinds that these are.
        archive: cifar-10-binary.tar.gz, cifar-10-python.tar.gz, or a folder with the files of one
            of them; needs no network.

    Returns:
        DATA_DIR/NAME/VERSION, or the folder in this package that holds the sample.

    Raises:
        ValueError: `mirror` is no URL.
        OSError: it cannot be had from anywhere, or cannot be written.
    """
    if mirror is not None and not _is_url(mirror):
        raise ValueError(f"mirror: got {mirror!r}, expected a URL: https://... or http://...")
    shipped = dataset_folder(dataset, data_dir=_SHIPPED)
    is_shipped = is_prepared(shipped) and mirror is None and archive is None
    if is_shipped and data_dir is None:
        return shipped
    data_dir = default_data_dir() if data_dir is None else data_dir
    folder = dataset_folder(dataset, data_dir=data_dir)
    if is_prepared(folder):
        if archive or mirror:
            click.echo(
                f"{folder}: is prepared already, so {archive or mirror} is not read. "
                "To prepare from it, move that folder away.",
                err=True,
            )
        return folder
    if is_shipped:
        return shipped
    _require_vacant(folder)
    _make_writable(data_dir)
    sources = SOURCES if mirror is None else (mirror,)
    waiting = f"Another process is preparing {folder}; waiting for it"
    with locked(
        data_dir / f".{dataset.name}.lock", when_busy=lambda: click.echo(waiting, err=True)
    ) as is_held:
        if is_held:
            remove_unfinished_folders(data_dir, dataset=dataset)
        # Whoever held the lock may have prepared it.
        if not is_prepared(folder):
            _make(dataset, data_dir=data_dir, archive=archive, sources=sources)
    return folder


def _is_url(text: str) -> bool:
    try:
        return urlsplit(text).scheme in ("http", "https")
    except ValueError:  # of brackets that are not those of IPv6
        return False


def is_at_hand(dataset: DatasetFacts, *, data_dir: Path | None) -> bool:
    """Tells whether `prepare` finds the dataset and has nothing to fetch."""
    places = (_SHIPPED, default_data_dir() if data_dir is None else data_dir)
    return any(is_prepared(dataset_folder(dataset, data_dir=place)) for place in places)


def default_data_dir() -> Path:
    """Returns the data folder that TFDS uses when it is not told one.

    Raises:
        OSError: TFDS_DATA_DIR is a URL, or there is no home folder.
    """
    text = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    path = os.path.expanduser(text)  # noqa: PTH111 (Path's raises for a home of nobody)
    if "://" in path or path.startswith("~"):
        raise OSError(
            f"{text}: no folder on this machine. Give one with --data-dir, or by TFDS_DATA_DIR."
        )
    return Path(path)


def _require_vacant(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder}: is in the way, and holds no prepared dataset. "
            "Move it away, or give another folder with --data-dir."
        )


def _make_writable(data_dir: Path) -> None:
    try:
        make_folder(data_dir)
        if not os.access(data_dir, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "not writable")
    except OSError as error:
        raise OSError(
            f"{data_dir}: cannot hold the data ({error.strerror}). "
            "Give another folder with --data-dir."
        ) from error


def _make(
    dataset: DatasetFacts, *, data_dir: Path, archive: Path | None, sources: tuple[str, ...]
) -> None:
    """Makes the folder."""
    downloads = data_dir / "downloads" / "keras-cifar" / dataset.name
    if archive is None:
        downloads.mkdir(parents=True, exist_ok=True)
        splits, id_prefix = fetch_first(sources, dataset=dataset, folder=downloads)
    else:
        click.echo(f"Reading {archive}", err=True)
        splits, id_prefix = fetch_archive(archive, dataset=dataset)
    folder = write_folder(splits, dataset=dataset, data_dir=data_dir, id_prefix=id_prefix)
    click.echo(f"Prepared {folder}", err=True)
    shutil.rmtree(downloads, ignore_errors=True)
