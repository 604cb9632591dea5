"""Looks at the models' folders and at their configuration again and again."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_cifar.errors import described
from keras_cifar.serve.models.registry import Models
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import Settings
from keras_cifar.serve.text_config import read_models

_log = logging.getLogger(__name__)


@contextmanager
def watching(models: Models, settings: Settings) -> Iterator[None]:
    """Keeps `models` in step with the disk within the block, by a thread of its own."""
    stop = threading.Event()
    jobs = [(models.update, settings.poll_seconds)]
    if settings.models_config and settings.models_config_poll_seconds:
        reloader = _Reloader(models, settings.models_config)
        jobs.append((reloader.look, settings.models_config_poll_seconds))
    threads = [
        threading.Thread(target=_repeat, args=(job, seconds, stop), daemon=True)
        for job, seconds in jobs
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _repeat(job: Callable[[], None], seconds: float, stop: threading.Event) -> None:
    while not stop.wait(seconds):
        try:
            job()
        except Exception:  # a bug; the models that are loaded go on
            _log.exception("cannot update the models")


class _Reloader:
    """Reads models.config again when it has changed."""

    def __init__(self, models: Models, path: Path) -> None:
        self._models = models
        self._path = path
        self._known = path.read_bytes()

    def look(self) -> None:
        """Takes a changed file over; what is wrong with it changes nothing but the log."""
        try:
            content = self._path.read_bytes()
            if content == self._known:
                return
            self._known = content
            self._models.configure(read_models(self._path))
        except OSError as error:
            _log.error("keeps the models as they are: %s", described(error))
        except ServingError as error:
            _log.error("%s: %s", self._path, error.message)
        else:
            _log.info("%s: taken over", self._path)
