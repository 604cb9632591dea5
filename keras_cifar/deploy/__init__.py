"""What runs elsewhere: TensorFlow Serving with a model directory, or a training on a cluster."""

from keras_cifar.deploy.job import job_image, write_job
from keras_cifar.deploy.kit import deploy, server_flags

__all__ = ["deploy", "job_image", "server_flags", "write_job"]
