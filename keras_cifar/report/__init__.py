"""Explains runs to a person: one page of figures, pictures and sentences, or a model card."""

from keras_cifar.report.write import report

__all__ = ["report"]
