"""Several workers of one training on this machine, as on several machines."""

from keras_cifar.launch.shares import Share, held_ports, share_out
from keras_cifar.launch.workers import Ending, run_workers

__all__ = ["Ending", "Share", "held_ports", "run_workers", "share_out"]
