"""Measures a run's model, or those of a group, on a split, and keeps and tells the figures."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import click

from keras_cifar.files import write_json
from keras_cifar.measure.intervals import mean_and_deviation
from keras_cifar.measure.metrics import Metrics, Split, confusions
from keras_cifar.measure.predictions import load_model_and_split, predict_views
from keras_cifar.measure.scoring import measure
from keras_cifar.model.session import own_session
from keras_cifar.run_dir import RunDir, RunGroup

_CONFUSIONS_SHOWN = 5


def evaluate(
    run_dir: RunDir,
    *,
    split: Split,
    data_dir: Path | None,
    views: int = 1,
    views_share: float = 1.0,
) -> Metrics:
    """Measures a run's chosen model on a split and writes that to the run's metrics.json.

    It takes and raises what `load_model_and_split` and `predict_views` do, and OSError where it
    cannot write.

    Returns:
        What metrics.json holds.
    """
    model, examples = load_model_and_split(run_dir, split=split, data_dir=data_dir)
    run_dir.require_writable()
    logits = predict_views(
        model, examples.images, views=views, views_share=views_share, source=run_dir.model
    )
    metrics = measure(
        logits, labels=examples.labels, split=split, views=views, views_share=views_share
    )
    write_json(run_dir.metrics, asdict(metrics))
    return metrics


def format_table(metrics: Metrics) -> str:
    """Returns what a person reads: the totals, a row a class, the most frequent confusions."""
    lines = [
        _what(metrics),
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
    most_frequent = _most_frequent_confusions(metrics)
    if most_frequent:
        lines += ["", "most frequent confusions", *most_frequent]
    return "\n".join(lines)


def _what(metrics: Metrics) -> str:
    of_which = (
        "each" if metrics.views_share == 1 else f"the least certain {metrics.views_share:.0%}"
    )
    views = f", {metrics.views} views of {of_which}" if metrics.views > 1 else ""
    return f"{metrics.split}: {metrics.examples:,} images{views}"


def _most_frequent_confusions(metrics: Metrics) -> list[str]:
    return [
        f"{count:>6,}  {actual} taken for {predicted} "
        f"({count / metrics.per_class[actual].examples:.1%} of {actual})"
        for count, actual, predicted in confusions(metrics)[:_CONFUSIONS_SHOWN]
    ]


class GroupMetrics(NamedTuple):
    """What was measured of the runs of a group.

    Attributes:
        runs: by seed.
        accuracy: mean, and sample standard deviation or None of a single run.
        loss: the same.
    """

    runs: dict[int, Metrics]
    accuracy: tuple[float, float | None]
    loss: tuple[float, float | None]


def evaluate_group(group: RunGroup, **options: Any) -> GroupMetrics:
    """Measures each run of a group that has ended, and writes its metrics.json.

    Args:
        group: some run of which has ended; of the others it is said that they are left out.
        options: what `evaluate` takes.

    Raises:
        OSError: no run has ended; or as `evaluate`.
    """
    ended = group.require_ended()
    for seed in ended:
        group.run(seed).require_model()
        group.run(seed).require_writable()
    runs = {}
    for number, seed in enumerate(ended, start=1):
        click.echo(f"seed {seed} ({number} of {len(ended)}): {group.run(seed).path}", err=True)
        with own_session():
            runs[seed] = evaluate(group.run(seed), **options)
    return GroupMetrics(
        runs,
        mean_and_deviation([metrics.accuracy for metrics in runs.values()]),
        mean_and_deviation([metrics.loss for metrics in runs.values()]),
    )


def group_as_json(group: GroupMetrics) -> dict[str, Any]:
    """Returns {"accuracy": {"mean", "deviation"}, "loss": the same, "runs": [{"seed", ...}]}."""
    names = ("mean", "deviation")
    return {
        "accuracy": dict(zip(names, group.accuracy, strict=True)),
        "loss": dict(zip(names, group.loss, strict=True)),
        "runs": [{"seed": seed, **asdict(metrics)} for seed, metrics in group.runs.items()],
    }


def format_group_table(group: GroupMetrics) -> str:
    """Returns what a person reads: a row a seed, and mean ± deviation."""
    width = max(len("mean"), *(len(str(seed)) for seed in group.runs))
    (accuracy, accuracy_deviation), (loss, loss_deviation) = group.accuracy, group.loss
    mean = f"{'mean':>{width}}  {accuracy:>8.2%}"
    if accuracy_deviation is None or loss_deviation is None:
        mean += f"{loss:>19.4f}"
    else:
        mean += f"{f' ± {accuracy_deviation:.2%}':<11}{loss:>8.4f} ± {loss_deviation:.4f}"
    return "\n".join(
        [
            _what(next(iter(group.runs.values()))),
            f"{'seed':>{width}}  accuracy{'loss':>19}",
            *(
                f"{seed:>{width}}  {of.accuracy:>8.2%}{of.loss:>19.4f}"
                for seed, of in group.runs.items()
            ),
            mean,
        ]
    )
