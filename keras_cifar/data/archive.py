"""cifar-10-binary.tar.gz or cifar-10-python.tar.gz -> examples in memory.

Nothing is extracted to the disk, so no name in an archive can lead anywhere.
"""

import gzip
import math
import tarfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import IMAGE_SHAPE, NUM_CLASSES, DatasetFacts
from keras_cifar.data.examples import Examples, Splits
from keras_cifar.data.unpickle import read_batch

_TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST_BATCH = "test_batch"
_BINARY, _PYTHON = "cifar-10-batches-bin/{}.bin", "cifar-10-batches-py/{}"
_IMAGE_BYTES = math.prod(IMAGE_SHAPE)
# Image, label and, in the Python version, file name.
_MAX_BYTES_PER_EXAMPLE = 4096


def read_archive(path: Path, *, dataset: DatasetFacts) -> Splits:
    """Reads either archive, told apart by what is in it.

    Args:
        path: of the archive, whatever its name.
        dataset: how many examples there must be; each training batch has a fifth.

    Returns:
        The examples in the archive's order, their content not yet checked.

    Raises:
        OSError: it is missing, cut off, or not laid out as the original.
    """
    try:
        batches = _read_batches(path, dataset=dataset)
        train = [batches[name] for name in _TRAIN_BATCHES]
        return Splits(
            train=Examples(*(np.concatenate(parts) for parts in zip(*train, strict=True))),
            test=batches[_TEST_BATCH],
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file. Give an archive that exists.") from error
    except KeyError as error:
        raise _unusable(path, f"{error.args[0]} is missing from it") from error
    except EOFError as error:
        raise _unusable(path, "it is cut off") from error
    except (OSError, ValueError, tarfile.TarError, zlib.error) as error:
        raise _unusable(path, str(error)) from error


def _unusable(path: Path, reason: str) -> OSError:
    return OSError(
        f"{path}: cannot be read as CIFAR-10 ({reason}). Expected cifar-10-binary.tar.gz or "
        "cifar-10-python.tar.gz, as https://www.cs.toronto.edu/~kriz/cifar.html has them."
    )


class _Bounded:
    """A gzip stream that refuses to unpack more than an archive of CIFAR-10 holds."""

    def __init__(self, stream: gzip.GzipFile, *, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int) -> bytes:
        """Returns at most `size` bytes; raises ValueError past the limit."""
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("it unpacks to more than CIFAR-10")
        return content


def _read_batches(path: Path, *, dataset: DatasetFacts) -> dict[str, Examples]:
    """Returns the examples of each batch file, by its name without folder and ending."""
    limit = _MAX_BYTES_PER_EXAMPLE * (dataset.train.examples + dataset.test.examples)
    batches: dict[str, Examples] = {}
    # A stream is read once, front to back, and never further than the limit, headers included.
    with (
        gzip.open(path) as unpacked,
        tarfile.open(fileobj=_Bounded(unpacked, limit=limit), mode="r|") as archive,  # type: ignore[call-overload]
    ):
        for member in archive:
            batch = _batch_of(member.name.removeprefix("./"))
            if batch is None:
                continue
            # A sparse file's size may be anything, and its holes cost the archive nothing.
            if not member.isreg() or member.issparse():
                raise ValueError(f"{member.name} in it is not an ordinary file")
            try:
                examples = _examples_in(batch, dataset=dataset)
                batches[batch] = _read_batch(archive, member, examples=examples)
            except ValueError as error:
                raise ValueError(f"{member.name} in it: {error}") from error
    return batches


def _batch_of(name: str) -> str | None:
    for batch in (*_TRAIN_BATCHES, _TEST_BATCH):
        if name in (_BINARY.format(batch), _PYTHON.format(batch)):
            return batch
    return None


def _examples_in(batch: str, *, dataset: DatasetFacts) -> int:
    if batch == _TEST_BATCH:
        return dataset.test.examples
    return dataset.train.examples // len(_TRAIN_BATCHES)


def _read_batch(archive: tarfile.TarFile, member: tarfile.TarInfo, *, examples: int) -> Examples:
    file = archive.extractfile(member)
    if file is None or member.size > _MAX_BYTES_PER_EXAMPLE * examples:
        raise ValueError(f"its {member.size} bytes are too many for {examples} examples")
    read = _read_binary if member.name.endswith(".bin") else _read_python
    return read(file.read(), examples=examples)


def _read_binary(content: bytes, *, examples: int) -> Examples:
    """Each record is the label's byte and then the image's."""
    expected = examples * (1 + _IMAGE_BYTES)
    if len(content) != expected:
        raise ValueError(f"it has {len(content)} bytes instead of {expected}")
    records = np.frombuffer(content, np.uint8).reshape(examples, 1 + _IMAGE_BYTES)
    return _examples(records[:, 1:], records[:, 0])


def _read_python(content: bytes, *, examples: int) -> Examples:
    batch = read_batch(content, examples=examples, bytes_per_image=_IMAGE_BYTES)
    return _examples(batch.data, batch.labels)


def _examples(planes: npt.NDArray[np.uint8], labels: npt.ArrayLike) -> Examples:
    """Takes uint8 (n, 3072): of each image the red, then the green, then the blue pixels."""
    height, width, channels = IMAGE_SHAPE
    label_array = np.asarray(labels)
    if label_array.dtype.kind not in "iu" or not np.isin(label_array, range(NUM_CLASSES)).all():
        raise ValueError(f"its labels are not all 0 to {NUM_CLASSES - 1}")
    images = planes.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return Examples(np.ascontiguousarray(images), label_array.astype(np.int64))
