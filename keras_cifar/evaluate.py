"""Measures a run's model on a split, and keeps and tells the figures."""

import json
from dataclasses import asdict
from pathlib import Path

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.files import replacing
from keras_cifar.measure.metrics import Metrics, Split, measure
from keras_cifar.measure.predictions import predict_split
from keras_cifar.run_dir import RunDir

_CONFUSIONS_SHOWN = 5


def evaluate(
    run_dir: RunDir,
    *,
    split: Split,
    data_dir: Path | None,
    views: int = 1,
    views_share: float = 1.0,
    batch_size: int = 500,
) -> Metrics:
    """Measures a run's chosen model on a split and writes that to the run's metrics.json.

    It takes and raises what `predict_split` does.

    Returns:
        What metrics.json holds.
    """
    examples, logits = predict_split(
        run_dir,
        split=split,
        data_dir=data_dir,
        views=views,
        views_share=views_share,
        batch_size=batch_size,
    )
    metrics = measure(
        logits, labels=examples.labels, split=split, views=views, views_share=views_share
    )
    with replacing(run_dir.metrics) as path:
        path.write_text(json.dumps(asdict(metrics), indent=2) + "\n")
    return metrics


def format_table(metrics: Metrics) -> str:
    """Returns what a person reads: the totals, a row a class, the most frequent confusions."""
    of_which = (
        "each" if metrics.views_share == 1 else f"the least certain {metrics.views_share:.0%}"
    )
    views = f", {metrics.views} views of {of_which}" if metrics.views > 1 else ""
    lines = [
        f"{metrics.split}: {metrics.examples:,} images{views}",
        f"accuracy           {metrics.accuracy:7.2%}  "
        f"± {metrics.accuracy_error:.2%} standard error",
        f"loss               {metrics.loss:7.4f}  mean cross entropy",
        f"calibration error  {metrics.calibration.expected_calibration_error:7.2%}  "
        "mean distance of confidence and accuracy",
        "",
        f"{'class':<12}{'images':>8}{'precision':>11}{'recall':>9}{'f1':>9}",
        *(
            f"{name:<12}{of.examples:>8,}{of.precision:>11.2%}{of.recall:>9.2%}{of.f1:>9.2%}"
            for name, of in metrics.per_class.items()
        ),
    ]
    confusions = _most_frequent_confusions(metrics)
    if confusions:
        lines += ["", "most frequent confusions", *confusions]
    return "\n".join(lines)


def _most_frequent_confusions(metrics: Metrics) -> list[str]:
    confusions = [
        (count, CLASS_NAMES[actual], CLASS_NAMES[predicted])
        for actual, row in enumerate(metrics.confusion_matrix)
        for predicted, count in enumerate(row)
        if actual != predicted and count
    ]
    confusions.sort(key=lambda confusion: -confusion[0])
    return [
        f"{count:>6,}  {actual} taken for {predicted} "
        f"({count / metrics.per_class[actual].examples:.1%} of {actual})"
        for count, actual, predicted in confusions[:_CONFUSIONS_SHOWN]
    ]
