"""Several workers of one training on this machine, as on several machines."""

from keras_cifar.launch.processes import Ending, run_workers
from keras_cifar.launch.shares import WorkerShare, held_ports, share_out

__all__ = ["Ending", "WorkerShare", "held_ports", "run_workers", "share_out"]
