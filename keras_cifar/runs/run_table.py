"""Runs as a table that fits the terminal."""

from collections.abc import Sequence

from keras_cifar.errors import printable
from keras_cifar.runs.listing import Row

_GAP = "  "
_LEFT = ("name", "recipe", "settings", "state")
# What a narrow terminal has no room for, the first first: beside whole names, then short ones.
_LESS_THAN_NAMES = ("settings", "time", "recipe", "seed")
_LESS_THAN_SHORT_NAMES = ("epochs", "val", "test")
_SHORT_SETTINGS, _SHORT_NAME = 16, 16


def format_table(rows: Sequence[Row], *, width: int | None) -> str:
    """Returns a line a run.

    Args:
        rows: at least one.
        width: characters in a line. Columns that do not fit are left out, and names lose their
            beginnings. None for as wide as it takes.
    """
    cells = [_cells(row) for row in rows]
    names = list(cells[0])
    widths = {name: max(len(name), *(len(row[name]) for row in cells)) for name in names}
    if width is not None:
        _fit(widths, width=width)
    lines = [dict(zip(names, names, strict=True)), *cells]
    return "\n".join(_line(line, widths=widths) for line in lines)


def _cells(row: Row) -> dict[str, str]:
    views = " tta" if (row.test_views or 1) > 1 else ""
    return {
        "name": printable(row.name),
        "recipe": row.recipe or "",
        "settings": ", ".join(f"{name} {value}" for name, value in _settings(row).items()),
        "seed": "" if row.seed is None else str(row.seed),
        "epochs": "" if row.epochs is None else f"{row.epochs_done}/{row.epochs}",
        "val": "" if row.val_accuracy is None else f"{row.val_accuracy:.2%}",
        "test": "" if row.test_accuracy is None else f"{row.test_accuracy:.2%}{views}",
        "time": "" if row.seconds is None else _time(round(row.seconds)),
        "state": row.state,
    }


def _time(seconds: int) -> str:
    # A timedelta counts days and ends at some.
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _settings(row: Row) -> dict[str, object]:
    """Returns what the name of the recipe and the other columns do not tell."""
    optimizer = {"optimizer": row.optimizer} if row.optimizer else {}
    return optimizer | {name: of for name, of in row.settings.items() if name != "epochs"}


def _fit(widths: dict[str, int], *, width: int) -> None:
    """Makes columns narrower, or removes them, until a line has at most `width` characters."""

    def excess() -> int:
        return sum(widths.values()) + len(_GAP) * (len(widths) - 1) - width

    def shorten(name: str, *, to: int) -> None:
        widths[name] -= min(max(0, excess()), max(0, widths[name] - to))

    shorten("settings", to=_SHORT_SETTINGS)
    for name in _LESS_THAN_NAMES:
        if excess() > 0:
            del widths[name]
    shorten("name", to=_SHORT_NAME)
    for name in _LESS_THAN_SHORT_NAMES:
        if excess() > 0:
            del widths[name]
    shorten("name", to=1)


def _line(cells: dict[str, str], *, widths: dict[str, int]) -> str:
    parts = []
    for name, width in widths.items():
        text = cells[name]
        if len(text) > width:
            # The end of a name tells runs of a group apart.
            text = (
                f"…{text[len(text) - width + 1 :]}" if name == "name" else f"{text[: width - 1]}…"
            )
        parts.append(f"{text:<{width}}" if name in _LEFT else f"{text:>{width}}")
    return _GAP.join(parts).rstrip()
