"""A run that several workers train: the chief as if it were alone, the others with it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_cifar.cifar10 import DATASETS
from keras_cifar.data.prepare import load
from keras_cifar.distribute.workers import Workers, workers_of_this_process
from keras_cifar.machine import package_versions
from keras_cifar.run_record import RunRecord
from keras_cifar.train.conditions import out_of_memory_in_words
from keras_cifar.train.fit import Outcome, fit_share


def together(
    chiefs_part: Callable[[], Outcome] | None,
    *,
    what: dict[str, Any],
    data_dir: Path | None,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Outcome:
    """Trains a run with the other workers; each of them is to call this.

    Args:
        chiefs_part: trains and writes the run, by `fit`; called on the chief alone, so the others
            need none.
        what: is to be done, by name: the same on all of them.
        data_dir: where TFDS keeps its data for this worker; None for where it does for the chief,
            if that folder is here too.
        callbacks: the user's own, on this worker.

    Returns:
        What the chief returns, on all workers.

    Raises:
        OSError: a worker that was started with something else, or is gone; or as `chiefs_part`.
    """
    workers = workers_of_this_process()
    with workers.failures_in_words():
        workers.agree({**what, **package_versions()})
        outcome = None
        if workers.is_chief and chiefs_part:
            outcome = chiefs_part()
        else:
            _help(workers, data_dir=data_dir, callbacks=callbacks)
        outcome = Outcome(*workers.tell("outcome", outcome))
        workers.end()
        return outcome


def _help(
    workers: Workers, *, data_dir: Path | None, callbacks: Sequence[keras.callbacks.Callback]
) -> None:
    # The chief has its data by then: on a disk that both have, they are there for this one too.
    record = RunRecord.from_json(workers.tell("record", None))
    config, data_dir = record.settings, record.find_data(data_dir)
    examples = load(DATASETS[config.dataset], split="train", data_dir=data_dir)
    with out_of_memory_in_words(config):
        fit_share(config, examples=examples, callbacks=callbacks, workers=workers)
