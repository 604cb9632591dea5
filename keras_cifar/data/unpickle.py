"""Reads the one kind of pickle that CIFAR-10's Python archive holds, and runs nothing from it.

The files were pickled by Python 2. Whatever a pickle names is replaced by a stand-in that only
keeps what it is given, so not even NumPy's functions can be called with a stranger's arguments.
"""

import io
import pickle
import pickletools
import struct
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

# What a broken or hostile pickle makes the unpickler raise.
_BROKEN = (
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)
# The files are of protocol 2, and later ones can reserve memory that they do not fill.
_OPCODES = {ord(opcode.code) for opcode in pickletools.opcodes if opcode.proto <= 2}


class _Array:
    """Stands in for numpy.ndarray: keeps the state that the pickle gives it."""

    state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype:
    """Stands in for numpy.dtype."""

    def __init__(self, code: Any, *ignored: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Ignores the byte order: one byte has none."""


def _reconstruct(*ignored: Any) -> _Array:
    return _Array()


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _CodeError(ValueError):
    pass


# The unpickler in Python, as the one in C reserves whatever memory the pickle tells it to.
class _Unpickler(pickle._Unpickler):
    dispatch: ClassVar = {
        opcode: load for opcode, load in pickle._Unpickler.dispatch.items() if opcode in _OPCODES
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise _CodeError(f"it contains code ({module}.{name}), which was not run")
        return _STAND_INS[module, name]


class Batch(NamedTuple):
    """One file of the Python archive.

    Attributes:
        data: uint8 (n, 3072): of each image the red, then the green, then the blue pixels.
        labels: as the file has them; not checked.
    """

    data: npt.NDArray[np.uint8]
    labels: list[Any]


def read_batch(content: bytes, *, examples: int, bytes_per_image: int) -> Batch:
    """Reads one pickled batch.

    Args:
        content: of the file.
        examples: how many it must hold.
        bytes_per_image: width of its array.

    Raises:
        ValueError: it is broken, names anything but an array, or holds other than it should.
    """
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        array, labels = batch[b"data"], batch[b"labels"]
        _version, shape, dtype, _is_fortran, pixels = array.state
        code = dtype.code
    except _CodeError:
        raise
    except _BROKEN as error:
        raise ValueError(f"it is no pickle of a CIFAR-10 batch ({error!r:.100})") from error
    if code not in (b"u1", "u1") or shape != (examples, bytes_per_image):
        raise ValueError(f"its array is not uint8 ({examples}, {bytes_per_image})")
    if not isinstance(pixels, bytes) or len(pixels) != examples * bytes_per_image:
        raise ValueError("its array is cut off")
    if not isinstance(labels, list) or len(labels) != examples:
        raise ValueError(f"it does not hold {examples} labels")
    return Batch(np.frombuffer(pixels, np.uint8).reshape(examples, bytes_per_image), labels)
