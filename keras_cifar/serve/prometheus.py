"""What a server counts and times, under TensorFlow Serving's names and in its text form."""

import re

from grpc import StatusCode
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import disable_created_metrics

_PREFIX = ":tensorflow:serving:"


def _exponential(first: float, factor: float, count: int) -> list[float]:
    return [first * factor**power for power in range(count)]


# Limits of the buckets, in microseconds where times are counted: those of TensorFlow Serving's
# servables/tensorflow/util.cc and batching/batching_session.cc.
_LATENCY = _exponential(10, 1.8, 33)
_QUEUING = _exponential(100, 1.2, 52)
_SIZES = _exponential(1, 2, 15)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self, *, thread_pool_name: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._requests = Counter(
            f"{_PREFIX}request_count",
            "Requests by model and outcome.",
            ["model_name", "status"],
            registry=self._registry,
        )
        self._request_latency = self._histogram(
            "request_latency",
            "Microseconds from a request to its answer, of those that succeeded.",
            ["model_name", "API", "entrypoint"],
            buckets=_LATENCY,
        )
        self._runtime_latency = self._histogram(
            "runtime_latency",
            "Microseconds in TensorFlow, the wait for a batch included.",
            ["model_name", "API", "runtime"],
            buckets=_LATENCY,
        )
        self._examples = self._histogram(
            "request_example_counts", "Examples of a request.", ["model"], buckets=_SIZES
        )
        self._warmup = self._histogram(
            "model_warmup_latency",
            "Microseconds of a version's warm-up.",
            ["model_path", "status"],
            buckets=_LATENCY,
        )
        # TensorFlow Serving has no such limit, hence no such names.
        self._held = Gauge(
            "keras_cifar_request_bytes",
            "Bytes of requests in memory, of those that --max-total-bytes limits.",
            registry=self._registry,
        )
        self._no_room = Counter(
            "keras_cifar_requests_without_room",
            "Requests refused because of --max-total-bytes.",
            registry=self._registry,
        )
        pool = {"thread_pool_name": thread_pool_name}
        self._queuing = self._histogram(
            "batching_session:queuing_latency",
            "Microseconds that requests waited for their batch.",
            list(pool),
            buckets=_QUEUING,
        ).labels(**pool)
        self._batch_sizes = self._histogram(
            "batching_session:processed_batch_size",
            "Examples, filling included, of the batch that a request was in.",
            list(pool),
            buckets=_SIZES,
        ).labels(**pool)

    def _histogram(
        self, name: str, text: str, labels: list[str], *, buckets: list[float]
    ) -> Histogram:
        return Histogram(f"{_PREFIX}{name}", text, labels, buckets=buckets, registry=self._registry)

    def answered(
        self, model: str, *, api: str, entrypoint: str, microseconds: float, examples: int
    ) -> None:
        """Counts a request that succeeded."""
        self._requests.labels(model, StatusCode.OK.name).inc()
        self._request_latency.labels(model, api, entrypoint).observe(microseconds)
        self._examples.labels(model).observe(examples)

    def failed(self, model: str, code: StatusCode) -> None:
        """Counts a request of a model that is served which did not succeed."""
        self._requests.labels(model, code.name).inc()

    def ran(self, model: str, *, microseconds: float) -> None:
        """Counts a run in TensorFlow."""
        self._runtime_latency.labels(model, "Predict", "TF1").observe(microseconds)

    def batched(self, microseconds: float, size: int) -> None:
        """Counts a request's wait for its batch, and the size of that batch."""
        self._queuing.observe(microseconds)
        self._batch_sizes.observe(size)

    def warmed_up(self, path: str, *, microseconds: float, code: StatusCode) -> None:
        """Counts a version's warm-up."""
        self._warmup.labels(path, code.name).observe(microseconds)

    def holds(self, size: int) -> None:
        """Counts more bytes of requests in memory, or fewer."""
        self._held.inc(size)

    def had_no_room(self) -> None:
        """Counts a request that was refused because others hold too much."""
        self._no_room.inc()

    def exposition(self) -> bytes:
        """Returns all of them in Prometheus's text format 0.0.4."""
        text = generate_latest(self._registry)
        # TensorFlow Serving has counters without this ending, and whole limits without ".0".
        text = re.sub(rb"(?m)^((?:# (?:HELP|TYPE) )?\S+request_count)_total\b", rb"\1", text)
        return re.sub(rb'le="(\d+)\.0"', rb'le="\1"', text)
