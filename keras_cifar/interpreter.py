"""How this process starts Python for work of its own."""

import sys
from collections.abc import Sequence


def python(program: str, arguments: Sequence[str] = ()) -> list[str]:
    """Returns the command of a Python process that imports from where this one does.

    `-c` and `-m` add the working folder, where a user's random.py takes the place of Python's.
    """
    # Of Python 3.11 and later, `-P` does the same.
    path = [*map(str, sys.path)]
    return [sys.executable, "-c", f"import sys; sys.path[:] = {path!a}\n{program}", *arguments]
