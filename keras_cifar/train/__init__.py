"""Settings and a run folder -> a trained model, its history, and exact resume."""

from keras_cifar.train.run import Outcome, resume, train

__all__ = ["Outcome", "resume", "train"]
