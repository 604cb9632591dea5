"""TFDS folder -> examples in memory, verified."""

from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError

from keras_cifar.cifar10 import DatasetFacts
from keras_cifar.data.examples import Examples, check, in_canonical_order
from keras_cifar.data.options import without_autotune
from keras_cifar.errors import first_line

# What TFDS and TensorFlow raise for files that are damaged or describe something else.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, ParseError, tf.errors.OpError)


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
        examples, digest = in_canonical_order(_decode(folder, split=split))
        check(examples, digest, facts=getattr(dataset, split))
    except _DAMAGED as error:
        reason = first_line(error)
        raise OSError(
            f"{folder}: the {split} split is damaged or is not {dataset.name} ({reason}). "
            "Move that folder away and prepare it anew: keras-cifar data"
        ) from error
    return examples


def _decode(folder: Path, *, split: str) -> Examples:
    # The examples are kept in memory here; TFDS need not keep them a second time.
    read_config = tfds.ReadConfig(try_autocache=False, options=without_autotune())
    builder = tfds.builder_from_directory(folder)
    dataset = builder.as_dataset(split=split, batch_size=1000, read_config=read_config)
    batches = [(batch["image"].numpy(), batch["label"].numpy()) for batch in dataset]
    images, labels = zip(*batches, strict=True)
    return Examples(np.concatenate(images), np.concatenate(labels))
