"""The wire format of protobuf, looked through before it is decoded."""

from typing import Any

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


def count_fields(content: bytes, descriptor: Any, *, most: int) -> int:
    """Returns how many fields a message and the messages in it have.

    Decoded, a field of two bytes may be an object of a hundred; and decoding lets no other thread
    run until it is through.

    Args:
        content: what is no message counts as far as it can be read.
        descriptor: of the message.
        most: beyond, it is not counted on.
    """
    count, messages = 0, [(0, len(content), descriptor)]
    try:
        while messages:
            position, end, descriptor = messages.pop()
            while position < end and count <= most:
                count += 1
                tag, position = _varint(content, position)
                number, kind = tag >> 3, tag & 7
                if kind == _VARINT:
                    _, position = _varint(content, position)
                elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
                    position += 8 if kind == _EIGHT_BYTES else 4
                elif kind == _LENGTH:
                    length, position = _varint(content, position)
                    field = descriptor.fields_by_number.get(number)
                    if field is not None and field.message_type is not None:
                        inner_end = min(position + length, end)
                        messages.append((position, inner_end, field.message_type))
                    position += length
    except IndexError:  # it is cut off
        pass
    return count


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Returns a number and where it ends; raises IndexError if that is not within 10 bytes."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise IndexError
