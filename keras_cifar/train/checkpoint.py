"""Checkpoints that are whole or noticed: what a run needs to go on as if it had never stopped."""

import hashlib
import io
import json
import tokenize
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import click
import keras
import numpy as np
import numpy.typing as npt

from keras_cifar.errors import first_line
from keras_cifar.files import TEMPORARY, remove_path, replacing, sync

# The newest and the one before it, to fall back on.
KEPT = 2
_DIGEST_BYTES = hashlib.sha256().digest_size
# What NumPy raises for an archive of something else: a digest proves no more than that it is whole.
_OTHER_CONTENT = (
    *(AttributeError, EOFError, LookupError, OSError, OverflowError, RuntimeError, SyntaxError),
    *(TypeError, ValueError, tokenize.TokenError, zipfile.BadZipFile),
)


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: epochs done.
        history: a row for each of them; its keys are the columns of history.csv.
        best_epoch: the epoch whose model was chosen, counted from 1; 0 before there is one.
        best_accuracy: validation accuracy of that epoch.
        settings: of the run, to notice that config.json was changed.
    """

    epoch: int = 0
    history: list[dict[str, float | None]] = field(default_factory=list)
    best_epoch: int = 0
    best_accuracy: float = -1.0
    settings: dict[str, Any] = field(default_factory=dict)


class Checkpoint(NamedTuple):
    """A run's progress and the value of every variable of model and optimiser, in their order."""

    progress: Progress
    variables: list[npt.NDArray[Any]]


def save(folder: Path, *, model: keras.Model, progress: Progress) -> None:
    """Writes a checkpoint beside the last good ones, then removes all but two.

    The file is a SHA-256 followed by an .npz, which it is of.

    Raises:
        OSError: the disk is full, for one; the earlier checkpoints are as they were.
    """
    arrays = {f"variable_{n}": value.numpy() for n, value in enumerate(variables(model))}
    content = io.BytesIO()
    np.savez(content, progress=np.array(json.dumps(asdict(progress))), **arrays)
    with replacing(folder / f"epoch-{progress.epoch:05d}.ckpt") as path:
        path.write_bytes(hashlib.sha256(content.getbuffer()).digest() + content.getbuffer())
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()


def variables(model: keras.Model) -> list[keras.Variable]:
    """All that training changes: weights, moving moments, dropout's generators, the optimiser."""
    return [*model.variables, *model.optimizer.variables]


def _newest_first(folder: Path) -> list[Path]:
    found = folder.glob("epoch-*.ckpt")
    return sorted((path for path in found if path.is_file()), reverse=True)


def load_newest(folder: Path) -> Checkpoint | None:
    """Returns the newest checkpoint that is whole; says aloud which ones are not.

    Those are removed: `save` would take them for the newest and keep them in place of its own.

    Returns:
        None where there is none: the run starts with its first epoch, to the same end.
    """
    found = _newest_first(folder)
    for path in found:
        try:
            return read(path)
        except ValueError as error:
            left = path != found[-1]
            way_on = "Going back to the one before it" if left else "Starting with the first epoch"
            click.echo(f"{error} {way_on}.", err=True)
            path.unlink()
    return None


def read(path: Path) -> Checkpoint:
    """Reads one checkpoint.

    Raises:
        ValueError: it is torn, was altered or is none.
        OSError: it needs more memory than there is, or claims to.
    """
    content = path.read_bytes()
    digest, archive = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(archive).digest() != digest:
        raise ValueError(f"{path}: torn or altered.")
    try:
        with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
            # A run from elsewhere could unpack to any size: packed, or the same bytes many times.
            entries = arrays.zip.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("it is compressed")
            if sum(entry.file_size for entry in entries) > len(archive):
                raise ValueError("it unpacks to more than it holds")
            progress = Progress(**json.loads(str(arrays["progress"])))
            return Checkpoint(progress, [arrays[f"variable_{n}"] for n in range(len(arrays) - 1)])
    except _OTHER_CONTENT as error:
        raise ValueError(f"{path}: not a checkpoint ({first_line(error)}).") from error
    except MemoryError as error:
        raise OSError(f"{path}: cannot be read ({first_line(error)}).") from error


def restore(checkpoint: Checkpoint, *, model: keras.Model) -> None:
    """Gives every variable of a compiled model its value from the checkpoint.

    The optimiser is built already: Keras's LossScaleOptimizer, that of float16, gets variables
    anew each time that it is.

    Raises:
        OSError: the model is another one. The settings are the same, so the code has changed.
    """
    there = variables(model)
    if [of.shape for of in there] != [of.shape for of in checkpoint.variables]:
        raise OSError(
            f"The checkpoint of epoch {checkpoint.progress.epoch} is of another network or "
            "optimizer than this keras-cifar builds. Train anew in another --run-dir."
        )
    for variable, value in zip(there, checkpoint.variables, strict=True):
        variable.assign(value)


def remove(folder: Path) -> None:
    """Removes all checkpoints and the folder, which tells that the run has ended well."""
    # Renamed first: a kill half-way must not leave a folder that looks like an unfinished run's.
    gone = folder.with_name(f"{TEMPORARY}{folder.name}")
    folder.rename(gone)
    # Nor must a power cut, which may keep the removals and lose the rename.
    sync(gone.parent)
    remove_path(gone)
    sync(gone.parent)
