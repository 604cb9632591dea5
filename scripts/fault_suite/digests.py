"""What files say, but for moments and durations: equal digests, equal to the bit."""

import functools
import hashlib
import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
from fault_suite.disk import State, is_unfinished
from google.protobuf.message import DecodeError

from keras_cifar.history import COLUMNS

_DIGEST_BYTES = 32
# By name of the file, what differs between two runs that are the same: a moment, or a duration.
_DATES = {"metadata.json": "date_saved", "origin.json": "exported"}
# Of all that is read, most is read again soon; the whole suite reads tens of GB.
_REMEMBERED = 100
# Keras numbers what layers share by where it lies in memory.
_ADDRESSES = re.compile(rb'"shared_object_id": [0-9]+')
_PNG_END = b"IEND\xaeB`\x82"


def digests(state: State) -> dict[Path, str]:
    """Returns what the finished files of a state are, by path."""
    return {
        path: digest(path, content)
        for path, content in state.items()
        if content is not None and not is_unfinished(path) and path.name != ".lock"
    }


def state_key(state: State) -> frozenset[tuple[Path, str]]:
    """Returns what makes a state another one: not what is in something unfinished."""
    names = {_up_to_unfinished(path) for path in state}
    return frozenset([*((name, "") for name in names), *digests(state).items()])


def _up_to_unfinished(path: Path) -> Path:
    """Returns a path without its random name, and without what comes after that."""
    for number, part in enumerate(path.parts):
        if is_unfinished(Path(part)):
            return Path(*path.parts[:number], "unfinished")
    return path


@functools.lru_cache(_REMEMBERED)
def digest(path: Path, content: bytes) -> str:
    """Returns a digest of what a file says, but for moments and durations."""
    if path.suffix == ".ckpt":
        parts = _checkpoint_parts(content)
    elif path.suffix == ".keras":
        parts = _archive_parts(content)
    elif path.name == "history.csv":
        seconds = COLUMNS.index("seconds")
        rows = [line.split(b",") for line in content.splitlines(keepends=True)]
        parts = [b",".join(row[:seconds] + row[seconds + 1 :]) for row in rows]
        parts.append(content[-1:])
    elif path.suffix == ".png":
        parts = [b"" if content.endswith(_PNG_END) else content]
    elif path.name == "fingerprint.pb":
        parts = [_without_random_number(content)]
    else:
        parts = [_without_dates(path.name, content)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_whole_checkpoint(content: bytes) -> bool:
    """Tells whether a checkpoint begins with the digest of the rest."""
    return hashlib.sha256(content[_DIGEST_BYTES:]).digest() == content[:_DIGEST_BYTES]


def _checkpoint_parts(content: bytes) -> list[bytes]:
    if not is_whole_checkpoint(content):
        return [content]
    with np.load(io.BytesIO(content[_DIGEST_BYTES:])) as arrays:
        progress = json.loads(str(arrays["progress"]))
        for row in progress["history"]:
            del row["seconds"]
        values = [arrays[name] for name in sorted(arrays.files) if name != "progress"]
    described = [f"{value.dtype}{value.shape}".encode() for value in values]
    return [json.dumps(progress).encode(), *described, *(value.tobytes() for value in values)]


def _archive_parts(content: bytes) -> list[bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name, archive.read(name)) for name in sorted(archive.namelist())]
    except zipfile.BadZipFile:
        return [content]
    return [
        part
        for name, read in members
        for part in (name.encode(), _ADDRESSES.sub(b"", _without_dates(name, read)))
    ]


def _without_dates(name: str, content: bytes) -> bytes:
    if name not in _DATES:
        return content
    try:
        return json.dumps({**json.loads(content), _DATES[name]: None}).encode()
    except ValueError:
        return content


def _without_random_number(content: bytes) -> bytes:
    """Returns what TensorFlow writes of a SavedModel, but for the random number in it."""
    # Here, since it brings TensorFlow, which `start_tensorflow` is to start.
    from tensorflow.core.protobuf.fingerprint_pb2 import FingerprintDef

    try:
        fingerprint = FingerprintDef.FromString(content)
    except DecodeError:
        return content
    fingerprint.uuid = ""
    return bytes(fingerprint.SerializeToString())
