"""Downloads and archives -> verified examples in memory."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click

from keras_cifar.cifar10 import DatasetFacts
from keras_cifar.data.examples import Splits, check, in_canonical_order
from keras_cifar.data.source.archive import read_archive
from keras_cifar.data.source.download import DownloadError, download
from keras_cifar.data.source.parquet import read_parquet

# Where CIFAR-10 is downloaded from, tried in this order. What ends in .tar.gz is one of the
# original's archives; below any other URL lie the two Parquet files.
SOURCES = (
    # Measured by its users at 30 to 40 MB/s in 2026.
    "https://huggingface.co/datasets/uoft-cs/cifar10/resolve/main/plain_text",
    # The original host, throttled to less than 0.1 MB/s since June 2026: half an hour or more.
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
)
PARQUET_FILES = ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")

# The bare pixels are 3 kB an example, and every packing of them is smaller than twice that.
_MAX_BYTES_PER_EXAMPLE = 6144


def fetch_archive(path: Path, *, dataset: DatasetFacts) -> tuple[Splits, str]:
    """Reads and verifies an archive that the user has, as `fetch_first` does a download."""
    return _verified(read_archive(path, dataset=dataset), dataset, origin=path), ""


def fetch_first(
    sources: Sequence[str], *, dataset: DatasetFacts, folder: Path
) -> tuple[Splits, str]:
    """Downloads from the first source that gives `dataset`, and says on stderr what it does.

    Args:
        sources: URLs like those of `SOURCES`.
        dataset: what the content must be.
        folder: exists; takes the downloaded files.

    Returns:
        The splits, verified, in the source's order; and the `id_prefix` that `write_folder` takes.

    Raises:
        OSError: none of them gives it, or the disk does not take it.
    """
    failures = []
    for source in sources:
        click.echo(f"Downloading {dataset.name} from {source}", err=True)
        try:
            return _fetch(source, dataset=dataset, folder=folder)
        except DownloadError as error:
            click.echo(str(error), err=True)
            failures.append(str(error))
    raise OSError(
        f"{dataset.name} could not be downloaded. {'; '.join(failures)}. Give a folder that holds "
        "it (--data-dir), an archive that you have (keras-cifar data --archive FILE), "
        "or use the small part that is installed already (--dataset sample)."
    )


def _fetch(source: str, *, dataset: DatasetFacts, folder: Path) -> tuple[Splits, str]:
    is_archive = urlsplit(source).path.endswith(".tar.gz")
    urls = [source] if is_archive else [f"{source.rstrip('/')}/{name}" for name in PARQUET_FILES]
    max_bytes = _MAX_BYTES_PER_EXAMPLE * (dataset.train.examples + dataset.test.examples)
    files = [download(url, folder=folder, max_bytes=max_bytes) for url in urls]
    try:
        if is_archive:
            splits, id_prefix = read_archive(files[0], dataset=dataset), ""
        else:
            splits, id_prefix = read_parquet(files[0], files[1], dataset=dataset), "parquet_"
        return _verified(splits, dataset, origin=source), id_prefix
    except OSError as error:
        # Complete but wrong: a later call would only stumble over the same files.
        for file in files:
            file.unlink()
        raise DownloadError(f"{error} The download was removed") from error


def _verified(splits: Splits, dataset: DatasetFacts, *, origin: Path | str) -> Splits:
    """Returns `splits` if they are those of `dataset`; raises OSError otherwise."""
    for name, examples in splits._asdict().items():
        try:
            check(*in_canonical_order(examples), facts=getattr(dataset, name))
        except ValueError as error:
            raise OSError(
                f"{origin}: its {name} split is not {dataset.name}'s ({error})."
            ) from error
    return splits
