"""What the page tells of the models beyond TensorFlow Serving's API: how good they are."""

import json
from typing import Any

from keras_cifar.serve.models.registry import Models
from keras_cifar.serve.models.servable import Servable
from keras_cifar.serving import ORIGIN_FILE


def about(models: Models) -> dict[str, Any]:
    """Returns, for each model, its labels and, for each loaded version, accuracy and origin."""
    return {
        "models": {
            name: {
                "versions": {str(servable.version): _origin(servable) for servable in loaded},
                "labels": models.labels(name),
            }
            for name, loaded in models.available().items()
        }
    }


def _origin(servable: Servable) -> dict[str, Any]:
    """Returns what `export` noted beside the model, as far as there is such a note."""
    try:
        document = (servable.path / ORIGIN_FILE).read_text()
        origin = json.loads(document, parse_constant=lambda _: None)  # NaN is no JSON to a browser
        evaluated = origin.get("evaluated") or {}
        return {
            "accuracy": evaluated.get("accuracy"),
            "split": evaluated.get("split"),
            "run": origin.get("run"),
        }
    except (OSError, ValueError, AttributeError):
        return {"accuracy": None, "split": None, "run": None}
