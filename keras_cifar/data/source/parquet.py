"""The Parquet files of the Hugging Face hub -> examples in memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from keras_cifar.cifar10 import DatasetFacts, SplitFacts
from keras_cifar.data.examples import Examples, Splits, checked_labels
from keras_cifar.data.png import decode_pngs
from keras_cifar.errors import first_line

# A PNG of a 32x32 image has at most this many bytes, the label included.
_MAX_BYTES_PER_EXAMPLE = 8192

# What a damaged file, or one of another layout, makes Arrow, NumPy and TensorFlow raise.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, pa.ArrowException, tf.errors.OpError)


def read_parquet(train: Path, test: Path, *, dataset: DatasetFacts) -> Splits:
    """Reads the file of each split, whose columns are `img` (struct of `bytes`, a PNG) and `label`.

    Each must hold as many examples as `dataset` says.

    Returns:
        The examples in the files' order, their content not yet checked.

    Raises:
        OSError: a file is damaged or not laid out like this.
    """
    return Splits(
        train=_read_file(train, facts=dataset.train), test=_read_file(test, facts=dataset.test)
    )


def _read_file(path: Path, *, facts: SplitFacts) -> Examples:
    try:
        pngs, labels = zip(*_rows(path, facts=facts), strict=True)
        columns = {"image": list(pngs), "label": checked_labels(np.array(labels))}
        return decode_pngs(tf.data.Dataset.from_tensor_slices(columns))
    except _DAMAGED as error:
        raise OSError(f"{path}: is no Parquet file of CIFAR-10 ({first_line(error)}).") from error


def _rows(path: Path, *, facts: SplitFacts) -> Iterator[tuple[bytes, int]]:
    with pq.ParquetFile(path) as file:
        rows, schema = file.metadata.num_rows, file.schema_arrow
        if rows != facts.examples:
            raise ValueError(f"it has {rows} rows instead of {facts.examples}")
        image, label = schema.field("img").type, schema.field("label").type
        if not (pa.types.is_struct(image) and pa.types.is_binary(image.field("bytes").type)):
            raise ValueError(f"its column img is {image}")
        if not pa.types.is_integer(label):
            raise ValueError(f"its column label is {label}")
        # One at a time: a file of 50 KB can have a megabyte in each of a thousand rows, and claim
        # more rows than there is memory for. Threads would take longer for each than it does.
        columns = ["img.bytes", "label"]
        batches = file.iter_batches(batch_size=1, columns=columns, use_threads=False)
        for number, row in enumerate(batches, start=1):
            if number > rows:
                raise ValueError(f"it has more than the {rows} rows that it claims")
            if row.nbytes > _MAX_BYTES_PER_EXAMPLE:
                raise ValueError(f"one of its rows has {row.nbytes} bytes")
            yield row["img"].field("bytes")[0].as_py(), row["label"][0].as_py()
