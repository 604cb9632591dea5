"""A run's model -> a verified, numbered version in a model directory."""

from keras_cifar.export.version import Exported, export

__all__ = ["Exported", "export"]
