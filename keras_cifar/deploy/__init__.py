"""A model directory -> the files that TensorFlow Serving needs, on one machine or on Kubernetes."""

from keras_cifar.deploy.kit import deploy, server_flags

__all__ = ["deploy", "server_flags"]
