"""An ordinary TFDS folder: read and verified, or written so that it appears whole or not at all."""

import contextlib
import io
import json
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError

from keras_cifar.cifar10 import CLASS_NAMES, IMAGE_SHAPE, DatasetFacts
from keras_cifar.data.examples import Examples, Splits, check, in_canonical_order
from keras_cifar.data.options import without_autotune
from keras_cifar.data.png import decode_pngs
from keras_cifar.errors import first_line
from keras_cifar.files import TEMPORARY, sync, sync_tree, temporary_folder

_FEATURES = "tensorflow_datasets.core.features."
_RECORD_LENGTH = struct.Struct("<Q")
# What TFDS and TensorFlow raise for files that are damaged or describe something else.
DAMAGED = (OSError, ValueError, KeyError, TypeError, RuntimeError, ParseError, tf.errors.OpError)


def dataset_folder(dataset: DatasetFacts, *, data_dir: Path) -> Path:
    """Returns where TFDS keeps `dataset` under `data_dir`."""
    return data_dir / dataset.name / dataset.version


def is_prepared(folder: Path) -> bool:
    """Tells whether TFDS has prepared a dataset in `folder`: it writes this file last."""
    return (folder / "dataset_info.json").is_file()


def read_split(folder: Path, *, split: Literal["train", "test"], dataset: DatasetFacts) -> Examples:
    """Decodes one split and verifies its content.

    Args:
        folder: as `dataset_folder` gives it.
        split: of the original data set; "train" holds what becomes training and validation.
        dataset: what the content must be.

    Returns:
        All examples of the split, in an order that only their content decides.

    Raises:
        OSError: a file is missing, damaged or altered.
    """
    try:
        examples, digest = in_canonical_order(decode(folder, split=split))
        check(examples, digest, facts=getattr(dataset, split))
    except (NotImplementedError, ImportError) as error:
        raise OSError(
            f"{folder}: is in a format that TFDS cannot read here ({first_line(error)}). "
            "Prepare the data in another folder: keras-cifar data --data-dir FOLDER"
        ) from error
    except DAMAGED as error:
        reason = first_line(error)
        raise OSError(
            f"{folder}: the {split} split is damaged or is not {dataset.name} ({reason}). "
            "Move that folder away and prepare it anew: keras-cifar data"
        ) from error
    return examples


def decode(folder: Path, *, split: str) -> Examples:
    """Decodes one split in TFDS's order, unverified; raises ImportError and those of DAMAGED."""
    _refuse_foreign_code(folder / "features.json")
    builder = tfds.builder_from_directory(folder)
    _refuse_endless_records(builder, split=split)
    image = builder.info.features["image"]
    if image.shape != IMAGE_SHAPE or image.np_dtype != np.uint8:
        raise ValueError(f"its images are {image.np_dtype} {image.shape}")
    # TFDS would decode an image of any size.
    as_it_is = {"image": tfds.decode.SkipDecoding()}
    if builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD:  # not for tf.data
        source = builder.as_data_source(split=split, decoders=as_it_is)
        pngs, labels = zip(*((row["image"], row["label"]) for row in source), strict=True)
        rows = tf.data.Dataset.from_tensor_slices({"image": list(pngs), "label": list(labels)})
    else:
        # The examples are kept in memory here; TFDS need not keep them a second time.
        config = tfds.ReadConfig(try_autocache=False, options=without_autotune())
        rows = builder.as_dataset(split=split, read_config=config, decoders=as_it_is)
    return decode_pngs(rows)


def _refuse_foreign_code(features: Path) -> None:
    """Raises ValueError where features.json names other modules than TFDS's, which imports any."""

    def check(part: dict[str, Any]) -> dict[str, Any]:
        for key in ("pythonClassName", "python_class_name", "type"):
            name = part.get(key, _FEATURES)
            if not str(name).startswith(_FEATURES):
                raise ValueError(f"features.json names {name}, which is not of TFDS")
        return part

    json.loads(features.read_text(), object_hook=check)


def _refuse_endless_records(builder: tfds.core.DatasetBuilder, *, split: str) -> None:
    """Raises ValueError where a TFRecord claims to be longer than its file.

    TensorFlow would take memory for all of it, or end the process.
    """
    if builder.info.file_format is not tfds.core.FileFormat.TFRECORD:
        return
    for path in map(Path, builder.info.splits[split].filepaths):
        if not path.is_file():  # a pipe would be waited for
            raise ValueError(f"{path.name} is no file")
        size = path.stat().st_size
        with path.open("rb") as file:
            while head := file.read(_RECORD_LENGTH.size):
                (length,) = _RECORD_LENGTH.unpack(head.ljust(_RECORD_LENGTH.size, b"\0"))
                end = file.tell() + 4 + length + 4  # each with its checksum
                if end > size:
                    raise ValueError(f"{path.name} is cut off")
                file.seek(end)


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
        with temporary_folder(data_dir, prefix=f"{dataset.name}-") as temporary:
            builder = _Builder(splits, dataset=dataset, data_dir=temporary, id_prefix=id_prefix)
            _build(builder)
            unfinished = dataset_folder(dataset, data_dir=temporary)
            read_split(unfinished, split="train", dataset=dataset)
            read_split(unfinished, split="test", dataset=dataset)
            sync_tree(unfinished)
            folder.parent.mkdir(exist_ok=True)
            try:
                unfinished.replace(folder)
            except OSError:
                # Where there are no locks, another process may have been quicker.
                if not is_prepared(folder):
                    raise
            sync(folder.parent)
            sync(data_dir)
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
