"""The Parquet files of the Hugging Face hub -> examples in memory."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from keras_cifar.cifar10 import DatasetFacts, SplitFacts
from keras_cifar.data.examples import Examples, Splits, checked_labels
from keras_cifar.data.options import without_autotune
from keras_cifar.data.png import decode_png
from keras_cifar.errors import first_line

# A PNG of a 32x32 image has at most this many bytes, the columns beside it included.
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
        table = _read_table(path, facts=facts)
        pngs = pc.struct_field(table["img"], "bytes").to_pylist()
        labels = table["label"].to_numpy()
        return Examples(_decode_pngs(pngs), checked_labels(labels))
    except _DAMAGED as error:
        raise OSError(f"{path}: is no Parquet file of CIFAR-10 ({first_line(error)}).") from error


def _read_table(path: Path, *, facts: SplitFacts) -> pa.Table:
    # Memory is taken for the file once its own account of its size has been looked at. Arrow takes
    # some for each row that a group claims.
    with pq.ParquetFile(path) as file:
        rows = file.metadata.num_rows
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
        if rows != facts.examples:
            raise ValueError(f"it has {rows} rows instead of {facts.examples}")
        if not all(0 <= group.num_rows <= rows for group in groups):
            raise ValueError(f"a row group claims more than all {rows} rows")
        if size > rows * _MAX_BYTES_PER_EXAMPLE:
            raise ValueError(f"it unpacks to {size} bytes")
        return file.read(columns=["img", "label"])


def _decode_pngs(pngs: list[bytes]) -> npt.NDArray[np.uint8]:
    decoded = (
        tf.data.Dataset.from_tensor_slices(pngs)
        .map(decode_png, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(1000)
        .with_options(without_autotune())
    )
    return np.concatenate([batch.numpy() for batch in decoded])
