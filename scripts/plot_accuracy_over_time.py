"""Draws accuracy against training time: the article's recipe, fast94, airbench94_muon in PyTorch.

    pip install torch==2.13.0
    python scripts/plot_accuracy_over_time.py curves docs/accuracy_over_time.png

Each is trained once, on the same 80 % of the training images, and measured on the other 20 % after
each epoch, which counts as training time here; the test images are not looked at. It takes more
than an hour: what is done is kept in the folder and not done again.
"""

import json
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import click
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from keras_cifar.cifar10 import CIFAR10
from keras_cifar.start import start_tensorflow

start_tensorflow()

from shared.fast_runs import describe, train_keras, train_torch, write_data  # noqa: E402

from keras_cifar.data.prepare import load  # noqa: E402
from keras_cifar.data.split import split_stratified  # noqa: E402
from keras_cifar.evaluate import evaluate  # noqa: E402
from keras_cifar.history import read_history  # noqa: E402
from keras_cifar.machine import cpu_model  # noqa: E402
from keras_cifar.model import TTA_VIEWS  # noqa: E402
from keras_cifar.plot import COLOURS, check_path, save, style  # noqa: E402

VALIDATION_FRACTION = 0.2
SEED = 0
MINUTE = 60


class Curve(NamedTuple):
    """Validation accuracy of a run.

    Attributes:
        name: for the legend.
        seconds: from the start to the end of each epoch.
        accuracies: of one view, after each epoch, 0..1.
        tta_accuracy: of six views, at the end, 0..1; None where the recipe has no such thing.
    """

    name: str
    seconds: list[float]
    accuracies: list[float]
    tta_accuracy: float | None


def keras_curve(folder: Path, *, recipe: str, name: str, tta: bool) -> Curve:
    """Trains by a recipe, or goes on with it."""
    settings = ["--recipe", recipe, "--seed", str(SEED)]
    fraction = ["--validation-fraction", str(VALIDATION_FRACTION)]
    run = train_keras(folder / recipe, *settings, *fraction)
    history = read_history(run.history)
    tta_accuracy = None
    if tta:
        tta_accuracy = evaluate(run, split="validation", data_dir=None, views=TTA_VIEWS).accuracy
    return Curve(name, list(accumulate(history.seconds)), history.val_accuracy, tta_accuracy)


def torch_curve(folder: Path, *, name: str) -> Curve:
    """Trains airbench94_muon, if that has not been done."""
    kept = folder / "torch.json"
    if not kept.is_file():
        data = folder / "validation.npz"
        train, validation = split_stratified(
            load(CIFAR10, split="train", data_dir=None),
            validation_fraction=VALIDATION_FRACTION,
            seed=SEED,
        )
        write_data(data, train=train, evaluation=validation)
        lines = train_torch(data, "--each-epoch", log=folder / "torch.log", seed=SEED)
        kept.write_text(json.dumps(lines))
    *epochs, end = json.loads(kept.read_text())
    seconds = list(accumulate(epoch["seconds"] for epoch in epochs))
    return Curve(name, seconds, [epoch["accuracy"] for epoch in epochs], end["tta_accuracy"])


def draw(curves: list[Curve], *, path: Path) -> None:
    """Draws the curves, and a star for the accuracy of six views."""
    with style():
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for curve, colour in zip(curves, COLOURS, strict=False):
            minutes = [seconds / MINUTE for seconds in curve.seconds]
            axes.plot(minutes, curve.accuracies, marker="o", color=colour, label=curve.name)
            if curve.tta_accuracy:
                axes.plot(minutes[-1], curve.tta_accuracy, marker="*", markersize=14, color=colour)
        axes.set(xlabel="minutes of training", ylim=(0.7, 0.96), xlim=(0, None))
        axes.set_title(f"Validation accuracy (stars: {TTA_VIEWS} views); {cpu_model()}")
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        axes.legend(loc="lower right")
        save(figure, path=path)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("picture", type=click.Path(path_type=Path))
def main(folder: Path, picture: Path) -> None:
    """Trains what FOLDER has no run of yet, prints all figures and draws PICTURE."""
    check_path(picture)
    folder.mkdir(parents=True, exist_ok=True)
    print(describe())
    curves = [
        keras_curve(folder, recipe="article", name="article, keras-cifar", tta=False),
        keras_curve(folder, recipe="fast94", name="fast94, keras-cifar", tta=True),
        torch_curve(folder, name="airbench94_muon, PyTorch"),
    ]
    for curve in curves:
        pairs = zip(curve.seconds, curve.accuracies, strict=True)
        print(f"{curve.name}: " + ", ".join(f"{s:,.0f} s {100 * a:.2f} %" for s, a in pairs))
        if curve.tta_accuracy:
            print(f"  with {TTA_VIEWS} views: {100 * curve.tta_accuracy:.2f} %")
    draw(curves, path=picture)


if __name__ == "__main__":
    main()
