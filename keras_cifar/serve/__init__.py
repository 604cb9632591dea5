"""A TensorFlow Serving-compatible server for development, tests and small deployments.

`keras_cifar.serve.lifecycle.serve` runs it. What is imported here needs no TensorFlow.
"""

from keras_cifar.serve.settings import Limits, Settings

__all__ = ["Limits", "Settings"]
