"""A TensorFlow Serving-compatible server for development, tests and small deployments.

`keras_cifar.serve.server.serve` runs it. What is imported here needs no TensorFlow.
"""

from keras_cifar.serve.limits import Limits
from keras_cifar.serve.settings import Settings

__all__ = ["Limits", "Settings"]
