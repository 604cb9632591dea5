"""Examples in memory -> an ordinary TFDS folder, which appears whole or not at all."""

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_cifar.cifar10 import CLASS_NAMES, IMAGE_SHAPE, DatasetFacts
from keras_cifar.data.examples import Examples, Splits
from keras_cifar.data.read import dataset_folder, read_split
from keras_cifar.errors import first_line
from keras_cifar.files import TEMPORARY


def write_folder(splits: Splits, *, dataset: DatasetFacts, data_dir: Path, id_prefix: str) -> Path:
    """Writes `splits` as TFDS would, reads them back, and only then gives them their name.

    Args:
        splits: in the order in which they are numbered.
        dataset: name, version and content.
        data_dir: exists. Temporary files go there too, as a rename needs the same file system.
        id_prefix: an example's `id` is this, its split, "_" and its number. Empty for the order of
            the original archive, whose ids TFDS's users rely on.

    Returns:
        DATA_DIR/NAME/VERSION.

    Raises:
        OSError: it could not be written, or reads back as something else. Nothing is left then.
    """
    folder = dataset_folder(dataset, data_dir=data_dir)
    try:
        with _temporary_folder(data_dir, dataset=dataset) as temporary:
            builder = _Builder(splits, dataset=dataset, data_dir=temporary, id_prefix=id_prefix)
            _build(builder)
            unfinished = dataset_folder(dataset, data_dir=temporary)
            read_split(unfinished, split="train", dataset=dataset)
            read_split(unfinished, split="test", dataset=dataset)
            _sync_files(unfinished)
            folder.parent.mkdir(exist_ok=True)
            unfinished.replace(folder)
    except (OSError, tf.errors.OpError) as error:
        reason = first_line(error)
        raise OSError(
            f"{folder}: could not be written ({reason}). "
            "Make room or give another folder with --data-dir."
        ) from error
    return folder


def remove_unfinished_folders(data_dir: Path, *, dataset: DatasetFacts) -> None:
    """Removes what killed processes left; the caller holds the lock, so none is in use."""
    for leftover in data_dir.glob(f"{TEMPORARY}{dataset.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _temporary_folder(data_dir: Path, *, dataset: DatasetFacts) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{dataset.name}-", dir=data_dir))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]
    """Has TFDS write what is in memory, with the features of TFDS's own CIFAR-10."""

    def __init__(
        self, splits: Splits, *, dataset: DatasetFacts, data_dir: Path, id_prefix: str
    ) -> None:
        self.name = dataset.name
        self.VERSION = tfds.core.Version(dataset.version)
        self._splits = splits
        self._id_prefix = id_prefix
        super().__init__(data_dir=data_dir)

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description="CIFAR-10: 32x32 colour images in 10 classes, or a part of them.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=IMAGE_SHAPE),
                    "label": tfds.features.ClassLabel(names=CLASS_NAMES),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        splits = self._splits._asdict()
        return {split: self._generate_examples(split, splits[split]) for split in splits}

    def _generate_examples(self, split: str, examples: Examples) -> Iterator[Any]:
        with click.progressbar(
            zip(examples.images, examples.labels, strict=True),
            length=len(examples.labels),
            label=f"Writing the {split} split",
            file=sys.stderr,
        ) as bar:
            for number, (image, label) in enumerate(bar):
                example_id = f"{self._id_prefix}{split}_{number:05d}"
                yield number, {"id": example_id, "image": image, "label": label}


def _build(builder: _Builder) -> None:
    # TFDS greets on stdout, which is for results, and draws bars of its own over ours.
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except RuntimeError as error:
        # TFDS wraps some of what the disk says in these.
        if isinstance(error.__cause__, OSError | tf.errors.OpError):
            raise error.__cause__ from error
        raise
    finally:
        tfds.enable_progress_bar()


def _sync_files(folder: Path) -> None:
    # So that a power cut after the rename does not leave a folder of empty files.
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
