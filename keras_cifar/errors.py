"""How errors speak: the one line of a failure that a person reads."""

import os

# Of a path: more than a person's have, and less than a stranger's request may.
_MAX_CHARACTERS = 500


def described(error: OSError) -> str:
    """Returns a failure of the file system in one line: which file, and what is wrong with it."""
    if error.strerror is None:
        return str(error)
    if error.filename is None:
        return error.strerror
    return f"{shortened(os.fsdecode(error.filename))}: {error.strerror}"


def shortened(path: object) -> str:
    """Returns the beginning and the end of a path that is longer than a person would read."""
    text = str(path)
    half = _MAX_CHARACTERS // 2
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:half]}...{text[-half:]}"


def printable(text: str) -> str:
    """Returns a text without signs that a terminal obeys: it may quote a file from anywhere."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says, without its full stop, or else its name."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .:") if lines else type(error).__name__


def root_cause(error: BaseException) -> BaseException:
    """Returns what an error of the network came from: libraries wrap it several times."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error
