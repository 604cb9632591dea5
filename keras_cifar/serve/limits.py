"""How much one request may ask of a server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Beyond these, a request is refused before it can exhaust the machine.

    Attributes:
        body_bytes: of a request, unpacked; of each of its tensors too.
        pixels: that an encoded image claims. A decoder needs about 15 bytes for each.
        seconds: until a request over REST must have its answer.
        requests: at work or waiting at the same time.
    """

    body_bytes: int = 64 * 2**20
    pixels: int = 50_000_000
    seconds: float = 30.0
    requests: int = 256
