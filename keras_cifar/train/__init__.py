"""Settings and a run folder -> a trained model, its history, and exact resume."""

from keras_cifar.train.fit import Outcome
from keras_cifar.train.group import LogKind, resume_seeds, train_seeds
from keras_cifar.train.range_test import find_learning_rate
from keras_cifar.train.run import resume, train

__all__ = [
    "LogKind",
    "Outcome",
    "find_learning_rate",
    "resume",
    "resume_seeds",
    "train",
    "train_seeds",
]
