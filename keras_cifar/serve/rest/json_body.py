"""Reads the JSON of a request as TensorFlow Serving's parser does."""

import json
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from grpc import StatusCode

from keras_cifar.serve.serving_error import ServingError, invalid

_SPACE = " \t\n\r"


def _float(text: str) -> float:
    return float(text)


# With a function of Python's own for them, other threads may run between two floats. Some of a few
# dozen digits take two microseconds each, far longer than any integer (Intel Xeon, November 2026).
_DECODER = json.JSONDecoder(parse_float=_float)
# What each value of JSON has one of, its opening bracket or the comma before it; and what a key or
# an escape takes: each a step of the parser, which lets no other thread run until it is through.
_STEPS = b",[{:\\"
# Bytes of a gzip file, and of its content, in a piece.
_PACKED, _UNPACKED = 2**16, 2**20


def unzipped(body: bytes | bytearray, *, max_bytes: int, hold: Callable[[int], None]) -> bytearray:
    """Returns what a gzip file holds; nothing for one that is broken, or holds more than that.

    Args:
        body: the file.
        max_bytes: of its content.
        hold: is told how many bytes there will be more in memory.
    """
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    content = bytearray()
    try:
        for piece in _pieces(unpacker, memoryview(body)):
            hold(len(piece))
            content += piece
            if len(content) > max_bytes:
                return bytearray()
    except zlib.error:
        return bytearray()
    return content if unpacker.eof else bytearray()


def _pieces(unpacker: Any, packed: memoryview) -> Iterator[bytes]:
    """Unpacks a piece at a time; zlib copies what it has not come to yet, hence small ones."""
    for start in range(0, len(packed), _PACKED):
        rest: Any = packed[start : start + _PACKED]
        is_more = True
        while is_more and not unpacker.eof:
            piece = unpacker.decompress(rest, _UNPACKED)
            rest = unpacker.unconsumed_tail
            is_more = bool(rest) or len(piece) == _UNPACKED
            yield piece


def parse_body(body: bytes | bytearray, *, max_values: int) -> dict[str, Any]:
    """Parses the first JSON value of a body, which must be an object; what follows is ignored.

    NaN, Infinity and -Infinity are numbers.

    Args:
        body: UTF-8, with or without the byte order mark that Windows writes.
        max_values: that it may have; keys and escapes count too.

    Raises:
        ServingError: there is none, or it has too many values.
    """
    _check_values(body, most=max_values)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding at offset: {error.start}") from error
    start = len(text) - len(text.lstrip(_SPACE))
    if start == len(text):
        raise invalid("JSON Parse error: The document is empty. at offset: 0")
    try:
        value, _ = _DECODER.raw_decode(text, start)
    except RecursionError as error:
        # The parser counts its levels: 1,000 in Python 3.10 and 3.11, 10,000 in 3.13. Those take
        # less than 2 MiB of a thread's 8 (tried in November 2026), and no tensor needs over 32.
        raise invalid("JSON Parse error: Arrays and objects are nested too deep.") from error
    except ValueError as error:
        # An integer of over 640 digits is a ValueError without a place.
        position = error.pos if isinstance(error, json.JSONDecodeError) else 0
        raise invalid(f"JSON Parse error: Invalid value. at offset: {position}") from error
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {shortened(value)} Is not object")
    return value


def _check_values(body: bytes | bytearray, *, most: int) -> None:
    if len(body) > most and sum(map(body.count, _STEPS)) > most:
        raise ServingError(
            StatusCode.INVALID_ARGUMENT,
            f"JSON of over {most} values, keys and escapes; no more are read",
            http_status=413,
        )


def shortened(value: Any) -> str:
    """Returns a value as JSON, for a message: at most 256 characters of it."""
    # Only as far as needed: what Python can just read, nested deep, it cannot write as a whole.
    text = "".join(islice(json.JSONEncoder().iterencode(value), 257))
    return text if len(text) <= 256 else f"{text[:253]}..."
