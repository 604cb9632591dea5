"""Where an exported model comes from, and how good it is, if that was measured."""

import hashlib
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import click

from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.errors import described
from keras_cifar.machine import package_versions
from keras_cifar.measure.metrics_file import read_metrics
from keras_cifar.run_dir import RunDir


def origin_of(run_dir: RunDir, *, views: int) -> dict[str, Any]:
    """Returns run, settings, accuracy and versions of a model that is exported with `views`."""
    settings, versions, device, choices, *_ = run_dir.read_record()
    return {
        "run": str(run_dir.path),
        "model_sha256": hashlib.sha256(run_dir.require_model().read_bytes()).hexdigest(),
        "settings": asdict(settings),
        "trained_with": {"versions": versions, "device": device, "choices": choices},
        "evaluated": _evaluation(run_dir, views=views),
        "exported": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        "exported_with": package_versions(),
        "classes": CLASS_NAMES,
    }


def _evaluation(run_dir: RunDir, *, views: int) -> dict[str, Any] | None:
    """Returns how good the exported model is, or says why that is not known."""
    if not run_dir.metrics.is_file():
        return None
    try:
        metrics = read_metrics(run_dir.metrics)
    except OSError as error:
        click.echo(f"exporting without accuracy: {described(error)}", err=True)
        return None
    if (metrics.views, metrics.views_share) != (views, 1):
        command = f"keras-cifar evaluate{' --tta' if views > 1 else ''} {run_dir.path}"
        click.echo(
            f"exporting without accuracy: {run_dir.metrics}: measured with other views of an "
            f"image. Measure it again: {command}",
            err=True,
        )
        return None
    return {name: getattr(metrics, name) for name in ("split", "examples", "loss", "accuracy")}
