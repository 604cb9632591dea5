"""The loader of SavedModels that TensorFlow Serving uses."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf


def load_saved_model(session: Any, folder: Path) -> Any:
    """Loads a SavedModel into the default graph, its weights into `session`.

    Args:
        session: tf.compat.v1.Session of the default graph.
        folder: of the SavedModel.

    Returns:
        tensorflow.MetaGraphDef: the graph and its signatures.

    Raises:
        OSError: there is none, or its graph cannot be read.
        ValueError: its weights are missing.
        tf.errors.OpError: they cannot be read.
    """
    with without_deprecation_warnings():
        return tf.compat.v1.saved_model.load(session, ["serve"], str(folder))


@contextmanager
def without_deprecation_warnings() -> Iterator[None]:
    """TensorFlow warns of what belongs to its first version, which its own server stands on."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
