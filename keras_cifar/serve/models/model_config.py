"""Which versions of a model are to be served, and under which labels."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_cifar.serve.serving_error import invalid


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve.

    Attributes:
        name: what clients ask for.
        base_path: the folder with its versions.
        latest: so many of the highest versions are served; None for no such limit.
        versions: only these are served; None for no such choice.
        labels: names that clients may use in place of a version's number.
    """

    name: str
    base_path: Path
    latest: int | None = 1
    versions: frozenset[int] | None = None
    labels: Mapping[str, int] = field(default_factory=dict)

    def wanted(self, present: list[int]) -> list[int]:
        """Returns which of the versions on the disk are to be served, ascending."""
        if self.versions is not None:
            return sorted(self.versions.intersection(present))
        return sorted(present)[-self.latest :] if self.latest else sorted(present)


def model_configs(message: Any) -> list[ModelConfig]:
    """Returns the models of a tensorflow.serving.ModelServerConfig.

    Raises:
        ServingError: it holds what TensorFlow Serving refuses as well.
    """
    if message.WhichOneof("config") != "model_config_list":
        raise invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    configs = [_model_config(entry) for entry in message.model_config_list.config]
    for name, count in Counter(config.name for config in configs).items():
        if count > 1:
            raise invalid(f"Illegal to list model {name} multiple times in config list")
    return configs


def _model_config(entry: Any) -> ModelConfig:
    if not entry.name:
        raise invalid("A model in the config list has no name.")
    if not Path(entry.base_path).is_absolute():
        raise invalid(
            f"Expected model {entry.name} to have an absolute path or URI; "
            f"got base_path()={entry.base_path}"
        )
    if entry.model_platform not in ("tensorflow", ""):
        raise invalid(
            f"model {entry.name} requests unsupported platform {entry.model_platform!r}; "
            "expected 'tensorflow'"
        )
    if entry.HasField("logging_config"):
        raise invalid("No request-logger-creator provided.")
    policy = entry.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    return ModelConfig(
        name=entry.name,
        base_path=Path(entry.base_path),
        latest=None if choice in ("all", "specific") else policy.latest.num_versions or 1,
        versions=frozenset(policy.specific.versions) if choice == "specific" else None,
        labels=dict(entry.version_labels),
    )
