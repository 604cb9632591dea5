"""A version's own warm-up requests, played before anybody else's."""

import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from grpc import StatusCode
from tensorflow_serving.apis import prediction_log_pb2

from keras_cifar.serve.models.classify_regress import classify, multi_inference, regress
from keras_cifar.serve.models.predict_tensors import predict
from keras_cifar.serve.models.servable import Servable
from keras_cifar.serve.serving_error import ServingError, from_tensorflow, invalid
from keras_cifar.serving import WARMUP_FILE

_MAX_RECORDS = 1000
_SECONDS = 60.0  # for a request
_CALLS = {
    "predict_log": predict,
    "classify_log": classify,
    "regress_log": regress,
    "multi_inference_log": multi_inference,
}


def warm_up(servable: Servable) -> None:
    """Sends a version the requests that its folder has for that; none is no fault.

    Raises:
        ServingError: the file is not what it should be, or a request failed.
    """
    path = servable.path / WARMUP_FILE
    if not path.is_file():
        return
    started, code = time.perf_counter(), StatusCode.UNKNOWN
    try:
        for log in _logs(str(path)):
            _play(servable, log)
        code = StatusCode.OK
    except ServingError as error:
        code = error.code
        raise
    finally:
        elapsed = 1e6 * (time.perf_counter() - started)
        servable.runtime.metrics.warmed_up(str(servable.path), microseconds=elapsed, code=code)


def _play(servable: Servable, log: Any) -> None:
    kind = log.WhichOneof("log_type")
    if kind not in _CALLS:
        raise ServingError(StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
    try:
        _CALLS[kind](servable, getattr(log, kind).request, deadline=time.time() + _SECONDS)
    except ServingError as error:
        text = (
            f"its own warm-up request fails: {error.message}. If max_batch_size is why, raise it "
            f"(an export has requests of up to 128 images); or remove {servable.path / WARMUP_FILE}"
        )
        raise ServingError(error.code, text) from error


def _logs(path: str) -> Iterator[Any]:
    count = 0
    try:
        records = tf.data.TFRecordDataset(path).as_numpy_iterator()
        for count, record in enumerate(records, start=1):
            if count > _MAX_RECORDS:
                raise invalid(
                    f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {path}"
                )
            yield prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise invalid(f"Failed to parse warmup record: {count} from {path}") from error
    except tf.errors.DataLossError as error:
        raise ServingError(
            StatusCode.DATA_LOSS,
            f"{path}: {from_tensorflow(error).message}. "
            "Please verify your warmup data is in TFRecord format.",
        ) from error
