"""Reads the JSON of a request as TensorFlow Serving's parser does."""

import json
import zlib
from itertools import islice
from typing import Any

from keras_cifar.serve.serving_error import invalid

_SPACE = " \t\n\r"
_DECODER = json.JSONDecoder()


def unzipped(body: bytes, *, max_bytes: int) -> bytes:
    """Returns what a gzip file holds; nothing for one that is broken, or holds more than that."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = unpacker.decompress(body, max_bytes + 1)
    except zlib.error:
        return b""
    return content if unpacker.eof and len(content) <= max_bytes else b""


def parse_body(body: bytes) -> dict[str, Any]:
    """Parses the first JSON value of a body, which must be an object; what follows is ignored.

    NaN, Infinity and -Infinity are numbers.

    Raises:
        ServingError: there is none.
    """
    try:
        text = body.decode().lstrip(_SPACE)
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding at offset: {error.start}") from error
    if not text:
        raise invalid("JSON Parse error: The document is empty. at offset: 0")
    try:
        value, _ = _DECODER.raw_decode(text)
    except RecursionError as error:
        # The parser counts its levels: 1,000 in Python 3.10 and 3.11, 10,000 in 3.13. Those take
        # less than 2 MiB of a thread's 8 (tried in November 2026), and no tensor needs over 32.
        raise invalid("JSON Parse error: Arrays and objects are nested too deep.") from error
    except ValueError as error:
        # An integer of over 4,300 digits is a ValueError without a place.
        position = error.pos if isinstance(error, json.JSONDecodeError) else 0
        raise invalid(f"JSON Parse error: Invalid value. at offset: {position}") from error
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {shortened(value)} Is not object")
    return value


def shortened(value: Any) -> str:
    """Returns a value as JSON, for a message: at most 256 characters of it."""
    # Only as far as needed: what Python can just read, nested deep, it cannot write as a whole.
    text = "".join(islice(json.JSONEncoder().iterencode(value), 257))
    return text if len(text) <= 256 else f"{text[:253]}..."
