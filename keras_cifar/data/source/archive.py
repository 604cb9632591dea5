"""CIFAR-10's binary or Python archive, packed or extracted, -> examples in memory.

Nothing is extracted to the disk, so no name in an archive can lead anywhere.
"""

import gzip
import hashlib
import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import IMAGE_SHAPE, PYTHON_BATCHES_MD5, DatasetFacts
from keras_cifar.data.examples import Examples, Splits, checked_labels

_TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST_BATCH = "test_batch"
_BATCHES = (*_TRAIN_BATCHES, _TEST_BATCH)
_IMAGE_BYTES = math.prod(IMAGE_SHAPE)
# Image, label and, in the Python version, file name.
_MAX_BYTES_PER_EXAMPLE = 4096
# What tarfile lets out of a header that is nonsense (Python 3.10 to 3.12).
_OF_A_HEADER = (IndexError, OverflowError, RecursionError)


def read_archive(
    path: Path, *, dataset: DatasetFacts, pickles: Mapping[str, str] = PYTHON_BATCHES_MD5
) -> Splits:
    """Reads either archive, told apart by what is in it.

    Args:
        path: of the archive, gzipped or not, or of a folder with its files; whatever its name.
        dataset: how many examples there must be; each training batch has a fifth.
        pickles: MD5 of each batch of the Python archive. No other pickle is opened.

    Returns:
        The examples in the archive's order, their content not yet checked.

    Raises:
        OSError: it is missing, cut off, or not laid out as the original.
    """
    try:
        batches = _read_batches(path, dataset=dataset, pickles=pickles)
        train = [batches[name] for name in _TRAIN_BATCHES]
        return Splits(
            train=Examples(*(np.concatenate(parts) for parts in zip(*train, strict=True))),
            test=batches[_TEST_BATCH],
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file. Give an archive that exists.") from error
    except KeyError as error:
        raise _unusable(path, f"{error.args[0]} is missing from it") from error
    except (EOFError, tarfile.ReadError) as error:
        raise _unusable(path, "it is cut off") from error
    except (OSError, ValueError, tarfile.TarError, zlib.error) as error:
        raise _unusable(path, str(error)) from error


def _unusable(path: Path, reason: str) -> OSError:
    return OSError(
        f"{path}: cannot be read as CIFAR-10 ({reason}). Expected cifar-10-binary.tar.gz or "
        "cifar-10-python.tar.gz, as https://www.cs.toronto.edu/~kriz/cifar.html has them, "
        "or a folder with the files of one of them."
    )


def _read_batches(
    path: Path, *, dataset: DatasetFacts, pickles: Mapping[str, str]
) -> dict[str, Examples]:
    """Returns the examples of each batch, by its name."""
    max_bytes = _MAX_BYTES_PER_EXAMPLE * (dataset.train.examples + dataset.test.examples)
    batches: dict[str, Examples] = {}
    for file in _files_in_folder(path) if path.is_dir() else _files_in_tar(path, max_bytes):
        batch = _batch_name(file.name)
        is_test = batch == _TEST_BATCH
        examples = dataset.test.examples if is_test else dataset.train.examples // 5
        try:
            if file.size > _MAX_BYTES_PER_EXAMPLE * examples:
                raise ValueError(f"its {file.size} bytes are too many for {examples} examples")
            content = file.stream.read()
            if file.name.endswith(".bin"):
                batches[batch] = _read_binary(content, examples=examples)
            else:
                batches[batch] = _read_pickle(content, md5=pickles.get(batch))
        except ValueError as error:
            raise ValueError(f"{file.name} in it: {error}") from error
    return batches


def _batch_name(name: str) -> str:
    return PurePath(name).name.removesuffix(".bin")


class _File(NamedTuple):
    name: str
    size: int
    stream: IO[bytes]


def _files_in_folder(folder: Path) -> Iterator[_File]:
    for path in sorted([*folder.glob("*"), *folder.glob("cifar-10-batches-*/*")]):
        if _batch_name(path.name) in _BATCHES and path.is_file():
            with path.open("rb") as stream:
                yield _File(str(path.relative_to(folder)), path.stat().st_size, stream)


def _files_in_tar(path: Path, max_bytes: int) -> Iterator[_File]:
    # A stream is read once, front to back, and never further than the limit, headers included.
    with _unpacked(path) as stream, _open_tar(_Bounded(stream, limit=max_bytes)) as archive:
        for member in _members(archive):
            # To pass over a member, tarfile reads as often as its header says, past the end too.
            if member.size > max_bytes:
                raise ValueError(f"{member.name} in it unpacks to more than CIFAR-10")
            if _batch_name(member.name) not in _BATCHES:
                continue
            file = archive.extractfile(member) if member.isreg() else None
            # A sparse file's size may be anything, and its holes cost the archive nothing.
            if file is None or member.issparse():
                raise ValueError(f"{member.name} in it is not an ordinary file")
            yield _File(member.name, member.size, file)


def _unpacked(path: Path) -> gzip.GzipFile | io.BufferedReader:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if is_gzip else path.open("rb")


class _Bounded:
    """A stream that refuses to give more than an archive of CIFAR-10 holds."""

    def __init__(self, stream: gzip.GzipFile | io.BufferedReader, *, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int) -> bytes:
        """Returns at most `size` bytes; raises ValueError past the limit."""
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("it unpacks to more than CIFAR-10")
        return content


def _open_tar(stream: _Bounded) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=stream, mode="r|")  # type: ignore[call-overload, no-any-return]
    except (tarfile.ReadError, *_OF_A_HEADER) as error:
        raise ValueError("it is no tar archive") from error


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    try:
        yield from archive
    except _OF_A_HEADER as error:
        raise tarfile.TarError(f"one of its headers is nonsense: {error}") from error


def _read_binary(content: bytes, *, examples: int) -> Examples:
    """Each record is the label's byte and then the image's."""
    expected = examples * (1 + _IMAGE_BYTES)
    if len(content) != expected:
        raise ValueError(f"it has {len(content)} bytes instead of {expected}")
    records = np.frombuffer(content, np.uint8).reshape(examples, 1 + _IMAGE_BYTES)
    return _examples(records[:, 1:], records[:, 0])


def _read_pickle(content: bytes, *, md5: str | None) -> Examples:
    # MD5 lets its user make two files of one digest. The published digests are of files from 2009:
    # a hostile file needs a second preimage, and the fastest attack known takes 2^123 steps.
    # "usedforsecurity" would make Python refuse it on machines where MD5 is not allowed.
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError("it is not the published file, and no other pickle is opened")
    batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    return _examples(batch[b"data"], np.array(batch[b"labels"]))


class _Unpickler(pickle.Unpickler):
    """A second lock behind the digests: finds the three names in the published files, no other."""

    _names: ClassVar = {
        # The true one moves from version to version of NumPy. The pickle fills the array later.
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: np.empty(0, np.uint8),
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            raise ValueError(f"it contains code ({module}.{name}), which was not run")
        return self._names[module, name]


def _examples(planes: npt.NDArray[np.uint8], labels: npt.NDArray[np.generic]) -> Examples:
    """Takes uint8 (n, 3072): of each image the red, then the green, then the blue pixels."""
    height, width, channels = IMAGE_SHAPE
    images = planes.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return Examples(np.ascontiguousarray(images), checked_labels(labels))
