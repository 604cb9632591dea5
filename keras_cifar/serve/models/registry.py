"""Which versions of which models are loaded: kept in step with the disk and the configuration."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from grpc import StatusCode

from keras_cifar.errors import described, shortened
from keras_cifar.model_dir import versions
from keras_cifar.run_dir import RunDir
from keras_cifar.serve.models.model_config import ModelConfig
from keras_cifar.serve.models.servable import Runtime, Servable
from keras_cifar.serve.models.status import State, Status, failed_status
from keras_cifar.serve.models.warmup import warm_up
from keras_cifar.serve.serving_error import ServingError, invalid

# As TensorFlow Serving: a version that fails to load is tried again so often, at such intervals;
# and, unlike there, at once when its files have changed, since it may have been half copied.
_RETRIES = 5
_RETRY_SECONDS = 60.0
_log = logging.getLogger(__name__)


@dataclass
class _Loaded:
    servable: Servable
    users: int = 0
    is_retired: bool = False


@dataclass
class _Failure:
    files: frozenset[tuple[str, int, int]]
    retries: int
    next_try: float


class Models:
    """The models of a server, none at first. All methods may be called from any thread.

    Args:
        runtime: shared by all versions.
        labels_may_wait: whether a new label may name a version that is not loaded.
    """

    def __init__(self, *, runtime: Runtime, labels_may_wait: bool) -> None:
        self._configs: dict[str, ModelConfig] = {}
        self._runtime = runtime
        self._labels_may_wait = labels_may_wait
        self._loaded: dict[str, dict[int, _Loaded]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._statuses: dict[str, dict[int, Status]] = {}
        self._failures: dict[tuple[str, int], _Failure] = {}
        self._lock = threading.Lock()  # for the five above, and never for long
        self._changing = threading.RLock()  # one update at a time
        self._complaints: dict[str, str] = {}
        self._has_started = False  # before, what is wrong ends in an error, not in the log

    def configure(self, configs: Sequence[ModelConfig]) -> None:
        """Serves these models, and no others; returns when they are available.

        Raises:
            ServingError: a model has no version that could be loaded, or a label names one that
                is not; all labels stay as they were then.
        """
        with self._changing:
            self._configs = {config.name: config for config in configs}
            self.update()
            for config in configs:
                self._require_available(config)
            self._set_labels()
            self._has_started = True

    @contextmanager
    def borrow(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> Iterator[Servable]:
        """Gives a loaded version, the highest one unless told otherwise; it stays loaded meanwhile.

        Raises:
            ServingError: there is none such.
        """
        with self._lock:
            entry = self._find(name, version=version, label=label)
            entry.users += 1
        try:
            yield entry.servable
        finally:
            with self._lock:
                entry.users -= 1
                is_last = entry.is_retired and not entry.users
            if is_last:
                self._close(entry)

    def _find(self, name: str, *, version: int | None, label: str | None) -> _Loaded:
        if label is not None:
            labels = self._labels.get(name, {})
            if label not in labels:
                raise invalid(f"Unrecognized servable version label: {label}")
            version = labels[label]
        loaded = self._loaded.get(name, {})
        chosen = max(loaded, default=None) if version is None else version
        if chosen not in loaded:
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise ServingError(StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")
        return loaded[chosen]

    def statuses(self, name: str, *, version: int | None = None) -> dict[int, Status]:
        """Returns what became of a model's versions since the start, the highest first.

        Raises:
            ServingError: nothing is known of it.
        """
        with self._lock:
            known = dict(sorted(self._statuses.get(name, {}).items(), reverse=True))
        if not known:
            raise ServingError(StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        if version is None:
            return known
        if version not in known:
            raise ServingError(
                StatusCode.NOT_FOUND, f"Could not find version {version} of model {name}"
            )
        return {version: known[version]}

    def available(self) -> dict[str, list[Servable]]:
        """Returns the loaded versions of each model of the configuration, ascending."""
        with self._lock:
            return {
                name: [entry.servable for _, entry in sorted(self._loaded.get(name, {}).items())]
                for name in self._configs
            }

    def labels(self, name: str) -> dict[str, int]:
        """Returns a model's labels."""
        with self._lock:
            return dict(self._labels.get(name, {}))

    def close(self) -> None:
        """Unloads everything."""
        self.configure([])

    def update(self) -> None:
        """Looks at the folders once: loads what is new, then unloads what is no longer wanted."""
        with self._changing:
            for name in {*self._loaded} - {*self._configs}:
                self._retire(name, keep=[])
            for config in self._configs.values():
                self._update_model(config.name, config)

    def _update_model(self, name: str, config: ModelConfig) -> None:
        try:
            if not config.base_path.is_dir():
                raise OSError(f"{shortened(config.base_path)}: no such folder")
            present = versions(config.base_path)
        except OSError as error:
            text = described(error)
            if self._has_started and self._complaints.get(name) != text:  # once, not at each look
                _log.warning("%s: keeps what is loaded: %s", name, text)
                self._complaints[name] = text
            return
        self._complaints.pop(name, None)
        wanted = config.wanted(list(present))
        for version in wanted:
            if version not in self._loaded.get(name, {}):
                self._load(name, version, present[version])
        # A version goes only when one that is wanted can answer in its place.
        if not wanted or set(wanted) & set(self._loaded.get(name, {})):
            self._retire(name, keep=wanted)

    def _load(self, name: str, version: int, path: Path) -> None:
        files = _files(path)
        failure = self._failures.get((name, version))
        is_retry = failure is not None and failure.files == files
        if failure and is_retry and (not failure.retries or time.monotonic() < failure.next_try):
            return
        started = time.monotonic()
        self._set_status(name, version, Status(State.LOADING))
        try:
            servable = self._ready(name, version, path)
        except Exception as error:  # whatever is wrong with it: the others go on
            status = failed_status(error)
            self._set_status(name, version, status)
            retries = failure.retries - 1 if failure and is_retry else _RETRIES
            self._failures[name, version] = _Failure(
                files, retries, time.monotonic() + _RETRY_SECONDS
            )
            if self._has_started:
                _log.error("%s: version %d cannot be loaded: %s", name, version, status.message)
            return
        self._failures.pop((name, version), None)
        with self._lock:
            self._loaded.setdefault(name, {})[version] = _Loaded(servable)
        self._set_status(name, version, Status(State.AVAILABLE))
        seconds = time.monotonic() - started
        _log.info("%s: version %d is available, after %.1f s", name, version, seconds)

    def _ready(self, name: str, version: int, path: Path) -> Servable:
        servable = Servable(name, version, path, runtime=self._runtime)
        try:
            warm_up(servable)
        except BaseException:
            servable.close()
            raise
        return servable

    def _retire(self, name: str, *, keep: Sequence[int]) -> None:
        with self._lock:
            loaded = self._loaded.get(name, {})
            retired = [loaded.pop(version) for version in [*loaded] if version not in keep]
            if not loaded:
                self._loaded.pop(name, None)
            for entry in retired:
                entry.is_retired = True
                self._statuses[name][entry.servable.version] = Status(State.UNLOADING)
            idle = [entry for entry in retired if not entry.users]
        for entry in idle:
            self._close(entry)

    def _close(self, entry: _Loaded) -> None:
        entry.servable.close()
        name, version = entry.servable.model, entry.servable.version
        with self._lock:
            # It may have been loaded anew while a request still had the old one.
            if self._statuses[name][version].state is State.UNLOADING:
                self._statuses[name][version] = Status(State.END)
        _log.info("%s: version %d is unloaded", name, version)

    def _set_status(self, name: str, version: int, status: Status) -> None:
        with self._lock:
            self._statuses.setdefault(name, {})[version] = status

    def _require_available(self, config: ModelConfig) -> None:
        if self._loaded.get(config.name):
            return
        folder, known = config.base_path, self._statuses.get(config.name, {})
        failed = [version for version in known if known[version].code is not StatusCode.OK]
        if failed:
            fault = f"version {max(failed)} cannot be loaded: {known[max(failed)].message}"
        elif _is_run(folder):
            fault = (
                f"a run, which has no versions. Export it: keras-cifar export {folder} MODEL_DIR"
            )
        else:
            fault = f"no version to serve here. Export one: keras-cifar export {folder}"
        raise ServingError(StatusCode.UNKNOWN, f"{folder}: {fault}")

    def _set_labels(self) -> None:
        labels = {name: dict(config.labels) for name, config in self._configs.items()}
        for name, wanted in labels.items():
            old = self._labels.get(name, {})
            for label, version in wanted.items():
                is_loaded = version in self._loaded.get(name, {})
                may_wait = self._labels_may_wait and old.get(label, version) == version
                if not (is_loaded or may_wait):
                    raise ServingError(
                        StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {name}, "
                        "which is not currently available for inference",
                    )
        with self._lock:
            self._labels = labels


def _is_run(folder: Path) -> bool:
    """Tells whether `train` has written a folder; raises ServingError if it cannot be entered."""
    try:
        return RunDir(folder).model.is_file()
    except OSError as error:  # the path is too long, say
        raise invalid(f"{shortened(folder)}: {error.strerror}") from error


def _files(folder: Path) -> frozenset[tuple[str, int, int]]:
    """Returns what changes while a folder is being copied."""
    found = []
    with suppress(OSError):  # it may be on its way out too
        for path in folder.rglob("*"):
            stat = path.stat()
            found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return frozenset(found)
