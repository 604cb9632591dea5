"""Changes an input: JSON by its values, anything else by its bytes."""

import copy
import json
from random import Random
from typing import Any

# Limits of numbers, what is empty, long, deep or no text, and names that mean something somewhere.
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 255, 256, 2**31, 2**63, 2**64, 10**400),
    *(0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "0", "\ud800", "\0", "../..", "x" * 2000, "\x1b[2J"),
    *([], {}, [[]], [{}], {"b64": "aGVsbG8="}, {"b64": "a\n"}, {"b64": 1}),
)
_BYTES = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\n",
    b'"',
    b"\\",
    b"[",
)


def mutated(content: bytes, random: Random) -> bytes:
    """Returns bytes with one to four changes."""
    for _ in range(random.randint(1, 4)):
        content = json_mutated(content, random) or _bytes_mutated(content, random)
    return content


def json_mutated(content: bytes, random: Random) -> bytes | None:
    """Changes a value of the JSON that the bytes end in; None where there is none.

    Half of the time it declines as well: what is no longer JSON is of interest too.
    """
    start = content.find(b"{")
    try:
        document = json.loads(content[start:]) if start >= 0 else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or random.random() < 0.5:
        return None
    _change(_place(document, random), random)
    return content[:start] + json.dumps(document).encode()


def _place(document: Any, random: Random) -> Any:
    """Walks down from the top of a document, and stops at any object or list."""
    place = document
    while random.random() < 0.8:
        children = place.values() if isinstance(place, dict) else place
        containers = [child for child in children if isinstance(child, dict | list)]
        if not containers:
            break
        place = random.choice(containers)
    return place


def _change(place: Any, random: Random) -> None:
    value = copy.deepcopy(random.choice(_VALUES))
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    if not keys:
        place.update(x=value) if isinstance(place, dict) else place.append(value)
        return
    key = random.choice(keys)
    kind = random.randrange(4)
    if kind == 0:
        del place[key]
    elif kind == 1:
        place[key] = copy.deepcopy(place[random.choice(keys)])
    elif kind == 2:
        place[key] = [place[key]] * random.choice((1, 2, 40))
    else:
        place[key] = value


def _bytes_mutated(content: bytes, random: Random) -> bytes:
    start = random.randint(0, len(content))
    end = min(len(content), start + random.choice((1, 2, 4, 32, 512)))
    kind = random.randrange(5)
    if kind == 0:  # cut out
        return content[:start] + content[end:]
    if kind == 1:  # cut off
        return content[:start]
    if kind == 2:  # repeat
        return content[:end] + content[start:end] * random.choice((1, 8, 64)) + content[end:]
    if kind == 3:  # insert
        return content[:start] + random.choice(_BYTES) + content[start:]
    replaced = random.choice((*_BYTES, bytes([random.randrange(256)])))
    return content[:start] + replaced + content[start + len(replaced) :]
