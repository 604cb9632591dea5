"""A version of a model, loaded: the road that TensorFlow Serving takes, with its batching."""

import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.protobuf import config_pb2

from keras_cifar.machine import granted_threads
from keras_cifar.serve.memory import Memory
from keras_cifar.serve.models.decoding import Decoding
from keras_cifar.serve.prometheus import Metrics
from keras_cifar.serve.serving_error import ServingError, from_tensorflow, invalid
from keras_cifar.serve.settings import Limits
from keras_cifar.serving import Batching
from keras_cifar.tf1_loader import load_saved_model, without_deprecation_warnings

_EXPIRED = "Run() timeout exceeded while waiting in batching queue"
Arrays = dict[str, npt.NDArray[Any]]
_Run = Callable[..., list[npt.NDArray[Any]]]


class Runtime:
    """What all models of a server share: settings, metrics, and what counts the requests."""

    def __init__(self, batching: Batching, limits: Limits) -> None:
        self.batching = batching
        self.limits = limits
        self.metrics = Metrics(thread_pool_name=batching.thread_pool_name)
        self.memory = Memory(limits, self.metrics)
        self.decoding = Decoding(limits)


class Servable:
    """A SavedModel in a session of its own, which takes all its memory along when it is closed.

    Attributes:
        path: of the SavedModel.
        signatures: tensorflow.SignatureDef by name, as in the SavedModel.
        served: those of them that may be asked: without the loader's own.
    """

    def __init__(self, model: str, version: int, path: Path, *, runtime: Runtime) -> None:
        self.model = model
        self.version = version
        self.path = path
        self.runtime = runtime
        # Answers alone are rare, and not to be had by the hundred at a time.
        self._few = threading.Semaphore(runtime.batching.num_batch_threads)
        # Each request runs in its caller's thread. Handing its few operations to a pool costs
        # more than they do; the convolutions use all cores all the same.
        config = tf.compat.v1.ConfigProto(
            inter_op_parallelism_threads=-1, intra_op_parallelism_threads=granted_threads()
        )
        config.gpu_options.allow_growth = True
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        with self._session.graph.as_default():
            meta_graph = load_saved_model(self._session, self.path)
            self.signatures: dict[str, Any] = dict(sorted(meta_graph.signature_def.items()))
            self.served = {name: info for name, info in self.signatures.items() if name[:2] != "__"}
            self._alone = {
                name: self._callable(_names(info.inputs), _names(info.outputs))
                for name, info in self.served.items()
            }
            self._batched = {
                name: self._run_batched(info, meta_graph.graph_def)
                for name, info in self.served.items()
                if _has_batches(info)
            }

    def _callable(self, feeds: list[str], fetches: list[str]) -> _Run:
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        # The public make_callable sets each call up anew in Python: 140 us in place of 8 us,
        # a quarter of what an image takes (Intel Xeon, TensorFlow 2.21, November 2026).
        compute: _Run = self._session._make_callable_from_options(options)

        def run(*values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
            try:
                return compute(*values)
            except UnicodeDecodeError as error:
                # TensorFlow quotes what it could not parse, and then cannot raise its own error.
                message = bytes(error.object).decode(errors="backslashreplace")
                raise tf.errors.InvalidArgumentError(None, None, message) from error

        return run

    def _run_batched(self, signature: Any, graph_def: Any) -> _Run:
        """Returns a function of (n, 2) times, each row's arrival and deadline, and of the inputs.

        It gives the outputs and, each (n,), how long a row waited and the size of its batch.
        """
        inputs, outputs = _sorted(signature.inputs), _names(signature.outputs)
        nodes = [name.partition(":")[0] for name in outputs]
        with without_deprecation_warnings():
            subgraph = tf.compat.v1.graph_util.extract_sub_graph(graph_def, nodes)
        settings = self.runtime.batching

        @tf.nondifferentiable_batch_function(  # type: ignore[untyped-decorator]
            num_batch_threads=settings.num_batch_threads,
            max_batch_size=settings.max_batch_size,
            batch_timeout_micros=settings.batch_timeout_micros,
            allowed_batch_sizes=list(settings.allowed_batch_sizes) or None,
            max_enqueued_batches=settings.max_enqueued_batches,
            enable_large_batch_splitting=settings.enable_large_batch_splitting,
            autograph=False,
        )
        def compute(times: tf.Tensor, *values: tf.Tensor) -> list[tf.Tensor]:
            with tf.name_scope(_SCOPE):
                queued, deadlines = times[:, 0], times[:, 1]
                now = tf.timestamp()
                in_time = tf.debugging.Assert(tf.reduce_any(deadlines > now), [_EXPIRED])
                with tf.control_dependencies([in_time]):
                    feeds = {
                        info.name: tf.identity(value)
                        for info, value in zip(inputs, values, strict=True)
                    }
                size = tf.fill(tf.shape(queued), tf.shape(queued)[0])
            # Without a prefix: the name of a node may be the name of a variable's memory.
            results = tf.import_graph_def(subgraph, feeds, outputs, name="")
            return [*results, now - queued, size]

        with tf.name_scope(_SCOPE):
            placeholders = [
                tf.compat.v1.placeholder(info.dtype, tf.TensorShape(info.tensor_shape))
                for info in inputs
            ]
            times = tf.compat.v1.placeholder(tf.float64, [None, 2])
            results = compute(times, *placeholders)
        feeds = [times, *placeholders]
        return self._callable([feed.name for feed in feeds], [result.name for result in results])

    def run(
        self, signature_name: str, inputs: Arrays, *, deadline: float, in_a_batch: bool = True
    ) -> Arrays:
        """Computes a signature's outputs.

        Args:
            signature_name: one of `served`.
            inputs: what the signature takes, with its types and shapes.
            deadline: seconds since the epoch. A request whose time is over before its batch is
                computed is dropped.
            in_a_batch: whether the examples are computed with those of others, if they can be.

        Raises:
            ServingError: what the graph or the queue refused.
        """
        signature = self.served[signature_name]
        values = [inputs[name] for name in sorted(signature.inputs)]
        started = time.perf_counter()
        try:
            if signature_name not in self._batched:
                results = self._alone[signature_name](*values)
            elif not in_a_batch:
                self.check_size(signature_name, len(values[0]))
                results = self._alone[signature_name](*values)
            else:
                results = self._in_a_batch(signature_name, values, deadline=deadline)
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error
        self.runtime.metrics.ran(self.model, microseconds=1e6 * (time.perf_counter() - started))
        return dict(zip(sorted(signature.outputs), results, strict=True))

    def check_size(self, signature_name: str, size: int) -> None:
        """Refuses more examples than a batch of a signature may have."""
        limit = self.runtime.batching.max_batch_size
        if signature_name in self._batched and size > limit:
            raise invalid(f"Task size {size} is larger than maximum input batch size {limit}")

    def _in_a_batch(
        self, signature_name: str, values: Sequence[npt.NDArray[Any]], *, deadline: float
    ) -> list[npt.NDArray[Any]]:
        size = len(values[0])
        if not size:
            raise invalid("No examples in the request")
        self.check_size(signature_name, size)
        times = np.tile([time.time(), deadline], (size, 1))
        try:
            *results, waited, sizes = self._batched[signature_name](times, *values)
        except tf.errors.UnavailableError:
            raise  # the queue is full
        except tf.errors.OpError as error:
            if _EXPIRED in str(error.message):
                raise ServingError(StatusCode.RESOURCE_EXHAUSTED, _EXPIRED) from error
            # The fault may be another request's of the same batch.
            with self._few:
                return self._alone[signature_name](*values)
        self.runtime.metrics.batched(waited[0] * 1e6, sizes[0])
        return results

    def close(self) -> None:
        """Frees the model's memory; no request may be running."""
        self._session.close()
        # A graph's Python objects refer to each other. Left to themselves, they would stay for many
        # more versions, 8 MiB each (TensorFlow 2.21, November 2026).
        for name in ("_session", "_alone", "_batched"):
            vars(self).pop(name, None)
        gc.collect()


_SCOPE = "keras_cifar_serving"


def _sorted(infos: Mapping[str, Any]) -> list[Any]:
    """Returns the values of a message's map, which has an order of its own in each process."""
    return [infos[name] for name in sorted(infos)]


def _names(infos: Mapping[str, Any]) -> list[str]:
    return [info.name for info in _sorted(infos)]


def _has_batches(signature: Any) -> bool:
    """Whether all that goes in and comes out has a free first dimension, that of the examples."""
    infos = [*signature.inputs.values(), *signature.outputs.values()]
    shapes = [tf.TensorShape(info.tensor_shape) for info in infos]
    return bool(signature.inputs) and all(shape.rank and shape[0] is None for shape in shapes)
