"""Histories and images -> pictures worth putting in a paper."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from keras_cifar.cifar10 import CLASS_NAMES, IMAGE_SHAPE
from keras_cifar.data.examples import Examples
from keras_cifar.errors import printable
from keras_cifar.files import replacing, require_writable
from keras_cifar.history import History, read_history
from keras_cifar.measure.mosaic import mosaic
from keras_cifar.rate_curve import RateCurve
from keras_cifar.run_dir import RunDir

SUFFIXES = (".png", ".svg", ".pdf")
IMAGES_PER_CLASS = 10
_GAP = 3  # pixels of white between two images
# Okabe and Ito, Color Universal Design (2008): told apart whatever one's colour vision. Their
# yellow is too pale for lines, and black is the colour of the text.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_Colour = str | tuple[float, float, float, float]
_INK, _PALE = "#444444", "#B8B8B8"
_TRAINING: Literal["--"] = "--"
_VALIDATION: Literal["-"] = "-"
_RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "white",
    "markeredgewidth": 1.9,
    "linestyle": "none",
    "zorder": 3,
    "clip_on": False,
}
_LABEL_LENGTH_OF_TWO_COLUMNS = 52  # characters
_DOTS_PER_INCH = 200
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.9,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType: publishers refuse matplotlib's default, Type 3
    "svg.hashsalt": "keras-cifar",  # the same picture, the same file
}


def draw_history(run_dirs: Sequence[RunDir], *, path: Path) -> Path:
    """Draws loss and accuracy of runs side by side: training dashed, validation solid.

    A ring marks the epoch of the best validation accuracy, whose model the run has kept.

    Args:
        run_dirs: at least one; each gets a colour.
        path: to write to, and returned; .png, .svg or .pdf.

    Raises:
        ValueError: no run, or another suffix.
        OSError: a history is missing or malformed, or the picture cannot be written.
    """
    check_path(path)
    if not run_dirs:
        raise ValueError("run_dirs: got none, expected at least one run.")
    require_writable(path.parent, name="--output")
    histories = dict(
        zip(_names(run_dirs), (read_history(run_dir.history) for run_dir in run_dirs), strict=True)
    )
    with style():
        save(_history_figure(histories), path=path)
    return path


def check_path(path: Path) -> None:
    """Raises ValueError for another suffix than these, FileNotFoundError without its folder."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"path: got {path.name!r}, expected a name that ends in {', '.join(SUFFIXES)}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder. Make it, or name another file.")


def _names(run_dirs: Sequence[RunDir]) -> list[str]:
    """Returns the folders' names, or their paths where two have the same name."""
    names = [run_dir.path.resolve().name for run_dir in run_dirs]
    if len(set(names)) < len(names):
        names = [str(run_dir.path) for run_dir in run_dirs]
    if len(set(names)) < len(names):
        raise ValueError(f"run_dirs: got {', '.join(names)}, expected each run once.")
    return names


def _history_figure(histories: dict[str, History]) -> Figure:
    colours = _colours(len(histories))
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)  # inches
    figure = Figure(figsize=(10, 4.3), layout=layout)
    loss, accuracy = figure.subplots(1, 2)
    loss.set(title="Loss (cross entropy)", xlabel="epoch")
    accuracy.set(title="Accuracy", xlabel="epoch")
    accuracy.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    for history, colour in zip(histories.values(), colours, strict=True):
        _draw_curves(loss, history, values=(history.loss, history.val_loss), colour=colour)
        _draw_curves(
            accuracy, history, values=(history.accuracy, history.val_accuracy), colour=colour
        )
    loss.set_ylim(bottom=0)
    for axes in (loss, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
        if all(len(history.epoch) == 1 for history in histories.values()):
            axes.set(xlim=(0.5, 1.5), xticks=[1])
    _add_legends(figure, histories=histories, colours=colours)
    return figure


def _colours(count: int) -> list[_Colour]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    # Too many for a palette of distinct ones: a scale that brightens evenly.
    return [mpl.colormaps["viridis"](share) for share in np.linspace(0, 0.9, count)]


def _draw_curves(
    axes: Axes, history: History, *, values: tuple[list[float], list[float]], colour: _Colour
) -> None:
    # A line through one point is invisible.
    marker = "o" if len(history.epoch) == 1 else ""
    training, validation = values
    axes.plot(history.epoch, training, _TRAINING, color=colour, marker=marker, alpha=0.75)
    best = history.best_position
    if best is None:
        return
    axes.plot(history.epoch, validation, _VALIDATION, color=colour, marker=marker)
    axes.plot(history.epoch[best], validation[best], **_RING, color=colour)


def _add_legends(figure: Figure, *, histories: dict[str, History], colours: list[_Colour]) -> None:
    """Kinds of lines where the loss leaves room, mostly the upper right; runs in rows below."""
    kinds = [Line2D([], [], color=_INK, linestyle=_TRAINING, label="training")]
    if any(history.val_accuracy for history in histories.values()):
        kinds += [
            Line2D([], [], color=_INK, linestyle=_VALIDATION, label="validation"),
            Line2D([], [], **_RING, color=_INK, label="best validation accuracy"),
        ]
    figure.axes[0].legend(handles=kinds, loc="best")
    labels = [_label(name, history) for name, history in histories.items()]
    runs = [
        Line2D([], [], color=colour, linewidth=4, label=label)
        for label, colour in zip(labels, colours, strict=True)
    ]
    is_short = max(map(len, labels)) <= _LABEL_LENGTH_OF_TWO_COLUMNS
    columns = 2 if len(runs) > 1 and is_short else 1
    figure.set_figheight(figure.get_figheight() + 0.25 * math.ceil(len(runs) / columns))
    figure.legend(handles=runs, loc="outside lower center", ncols=columns)


def _label(folder: str, history: History) -> str:
    # Matplotlib takes what is between two dollars for mathematics.
    name = printable(folder).replace("$", r"\$")
    best = history.best_position
    if best is None:
        return f"{name}: {history.accuracy[-1]:.2%} in training"
    return f"{name}: {history.val_accuracy[best]:.2%} in epoch {history.epoch[best]}"


def draw_rate_curve(curve: RateCurve, *, path: Path) -> Path:
    """Draws the losses of a learning-rate range test; a ring marks the suggested rate.

    Args:
        curve: of at least one step.
        path: to write to, and returned; .png, .svg or .pdf.

    Raises:
        ValueError: another suffix.
        OSError: the picture cannot be written.
    """
    check_path(path)
    rates, losses = curve
    smoothed, suggested = curve.smoothed, curve.suggested
    with style():
        figure = Figure(figsize=(6, 4.3), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
        axes = figure.subplots()
        axes.set(title="Training loss as the rate rises", xlabel="learning rate", xscale="log")
        axes.plot(rates, losses, color=_PALE, linewidth=1, label="each step")
        axes.plot(rates, smoothed, color=COLOURS[0], label="smoothed")
        if suggested is not None:
            label = f"falls most steeply: {rates[suggested]:.2g}"
            axes.plot(rates[suggested], smoothed[suggested], **_RING, color=COLOURS[0], label=label)
        # What is far above the loss of the start says no more than that it has diverged.
        axes.set_ylim(0.85 * min(losses), 1.4 * losses[0])
        axes.legend(loc="upper left")
        save(figure, path=path)
    return path


@contextmanager
def style() -> Iterator[None]:
    """Has pictures that are made in the block look the same, whatever a matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def save(figure: Figure, *, path: Path) -> None:
    """Writes a picture, whole or not at all: the same picture, the same file.

    Args:
        figure: made within `style()`, which decides here too.
        path: to write to; passes `check_path`.
    """
    kind = path.suffix.lower().removeprefix(".")
    # Without the date, which would make two files of one picture differ.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": None}[kind]
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=_DOTS_PER_INCH, metadata=metadata)


def draw_grid(examples: Examples, *, path: Path, seed: int) -> Path:
    """Draws 10 random images of each class, a row a class, as in the article.

    Args:
        examples: at least 10 of each class.
        path: to write to, and returned; .png, .svg or .pdf.
        seed: decides which images.

    Raises:
        ValueError: too few images of a class, or another suffix.
        OSError: the picture cannot be written.
    """
    check_path(path)
    images = examples.images[_by_class(examples, seed=seed)]
    grid = mosaic(images, columns=IMAGES_PER_CLASS, gap=_GAP)
    with style():
        save(_grid_figure(grid), path=path)
    return path


def _grid_figure(grid: npt.NDArray[np.uint8]) -> Figure:
    # 4 dots a pixel: any other scale but a whole one would make pixels of unequal size.
    side = 4 * len(grid) / _DOTS_PER_INCH
    label_width, margin = 1.15, 0.1
    width, height = label_width + side + margin, side + 2 * margin
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((label_width / width, margin / height, side / width, side / height))
    axes.imshow(grid, interpolation="nearest")
    cell = IMAGE_SHAPE[0] + _GAP
    centres = [row * cell + IMAGE_SHAPE[0] / 2 for row in range(len(CLASS_NAMES))]
    axes.set_yticks(centres, CLASS_NAMES)
    axes.tick_params(length=0, labelsize=12)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def _by_class(examples: Examples, *, seed: int) -> npt.NDArray[np.int64]:
    """Returns where 10 random images of each class are, one class after the other."""
    order = np.random.RandomState(seed).permutation(len(examples.labels))
    chosen = []
    for label, name in enumerate(CLASS_NAMES):
        positions = order[examples.labels[order] == label][:IMAGES_PER_CLASS]
        if len(positions) < IMAGES_PER_CLASS:
            raise ValueError(
                f"examples: got {len(positions)} of {name}, expected at least {IMAGES_PER_CLASS}."
            )
        chosen.append(positions)
    return np.concatenate(chosen)
