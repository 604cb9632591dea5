"""Templates filled in. All are written before the first of them takes its name."""

import json
import re
import string
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from keras_cifar.errors import printable
from keras_cifar.files import replacing, require_writable

TEMPLATES = Path(__file__).parent / "templates"


class _Template(string.Template):
    """With "@" in place of "$", which Docker Compose and the shell have their own use for."""

    delimiter = "@"


def write_filled(
    templates: Sequence[Path],
    values: Mapping[str, object],
    *,
    out_dir: Path,
    existing: Literal["refuse", "replace"],
) -> list[Path]:
    """Writes each template, filled in, under its own name.

    Args:
        templates: where they are.
        values: by the names in them.
        out_dir: made where it is missing.
        existing: what to do with files of the same names in `out_dir`.

    Returns:
        The files, README.md first.

    Raises:
        OSError: `out_dir` has such files or cannot be written.
    """
    require_writable(out_dir, name="OUT_DIR")
    contents = {
        out_dir / path.name: _Template(path.read_text()).substitute(values)
        for path in sorted(templates)
    }
    if existing == "refuse":
        _refuse_existing(out_dir, list(contents))
    out_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(replacing(path)).write_text(content, encoding="utf-8")
    return sorted(contents, key=lambda path: (path.name != "README.md", path.name))


def refuse_undecodable(words: Sequence[str]) -> None:
    """Raises OSError for a word that no file of text can hold."""
    for word in words:
        if word != word.encode(errors="replace").decode():
            raise OSError(
                f"{printable(word)}: is not UTF-8, as the files that name it are. Rename it."
            )


def yaml_string(text: str) -> str:
    """Returns a text as a string of YAML, which a string of JSON is.

    Docker Compose would put a variable in the place of "$NAME", and Kubernetes of "$(NAME)".
    """
    quoted = json.dumps(text.replace("$", "$$"), ensure_ascii=False)
    # JSON would write two escapes for what is beyond 16 bits, which YAML takes for two characters.
    return re.sub("[^ -~]", lambda found: f"\\U{ord(found[0]):08x}", quoted)


def _refuse_existing(out_dir: Path, paths: list[Path]) -> None:
    present = [path.name for path in paths if path.exists()]
    if present:
        raise FileExistsError(
            f"{out_dir}: has {', '.join(present)} already. Replace them by --overwrite, "
            "or name another OUT_DIR."
        )
