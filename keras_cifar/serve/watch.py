"""Looks at the models' folders and at their configuration again and again."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from keras_cifar.errors import described
from keras_cifar.serve.models.model_config import ModelConfig
from keras_cifar.serve.models.registry import Models
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import Settings
from keras_cifar.serve.text_config import read_models

_log = logging.getLogger(__name__)


@contextmanager
def watching(
    models: Models, settings: Settings, *, configs: Sequence[ModelConfig]
) -> Iterator[None]:
    """Keeps `models`, which serves `configs`, in step with the disk within the block."""
    stop = threading.Event()
    jobs = [(models.update, settings.poll_seconds)]
    if settings.models_config and settings.models_config_poll_seconds:
        reloader = _Reloader(models, settings.models_config, configs)
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
    """Takes models.config over when it says something else than what is served."""

    def __init__(self, models: Models, path: Path, configs: Sequence[ModelConfig]) -> None:
        self._models = models
        self._path = path
        self._taken_over: Sequence[ModelConfig] | None = configs
        self._complaint = ""

    def look(self) -> None:
        """Reads the file; what is wrong is logged once, and tried again at each look."""
        try:
            configs = read_models(self._path)
            if configs != self._taken_over:
                self._taken_over = None  # where it fails, it may have changed some models already
                self._models.configure(configs)
                self._taken_over = configs
                _log.info("%s: taken over", self._path)
            self._complaint = ""
        except OSError as error:
            self._complain(f"keeps the models as they are: {described(error)}")
        except ServingError as error:
            self._complain(f"{self._path}: {error.message}")

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            _log.error("%s", text)
            self._complaint = text
