"""Requests to the REST API on their way to an answer: read, counted, handed to a thread, noted."""

import asyncio
import json
import logging
import time
from concurrent.futures import Executor

import anyio
from grpc import StatusCode
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from keras_cifar.serve.access_log import Record
from keras_cifar.serve.models.registry import Models
from keras_cifar.serve.models.servable import Runtime
from keras_cifar.serve.rest.json_body import unzipped
from keras_cifar.serve.rest.rest_api import answer
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import bears_token

JSON = "application/json"
_log = logging.getLogger(__name__)


class ApiRequests:
    """Answers requests to the API that bear the token, as many at a time as the limits allow."""

    def __init__(
        self, models: Models, *, runtime: Runtime, token: str | None, executor: Executor
    ) -> None:
        self._models = models
        self._runtime = runtime
        self._token = token
        self._executor = executor
        self._busy = 0

    async def response(self, request: Request) -> Response:
        """Answers with what came of a request, and writes that down."""
        peer = f"{request.client.host}:{request.client.port}" if request.client else ""
        record = Record("REST", f"{request.method} {target(request)}", peer, status=200)
        try:
            require_token(request, self._token)
            return Response(await self._answer(request, record), media_type=JSON)
        except ServingError as error:
            return _failure(record, error)
        except ClientDisconnect:
            return _failure(record, ServingError(StatusCode.CANCELLED, "the client has gone"))
        except asyncio.CancelledError:
            return _failure(record, ServingError(StatusCode.UNAVAILABLE, "the server has stopped"))
        except Exception:
            _log.exception("%s", record.call)
            text = "internal error; the server's log has more"
            return _failure(record, ServingError(StatusCode.INTERNAL, text))
        finally:
            record.close(self._runtime.metrics)

    async def _answer(self, request: Request, record: Record) -> bytes:
        limits = self._runtime.limits
        deadline = time.time() + limits.seconds
        try:
            with anyio.fail_after(limits.seconds):
                body = await _body(request, max_bytes=limits.body_bytes)
        except TimeoutError as error:
            raise _refused(408, f"the body did not arrive in {limits.seconds:g} s") from error
        record.request_bytes = len(body)
        if self._busy >= limits.requests:
            raise ServingError(
                StatusCode.UNAVAILABLE, f"{limits.requests} requests are waiting already"
            )
        self._busy += 1
        work = asyncio.get_running_loop().run_in_executor(
            self._executor, self._work, request, body, record, deadline
        )
        work.add_done_callback(self._has_worked)
        try:
            return await asyncio.wait_for(work, deadline - time.time())
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise ServingError(
                StatusCode.DEADLINE_EXCEEDED, f"no answer within {limits.seconds:g} s"
            ) from error

    def _work(self, request: Request, body: bytes, record: Record, deadline: float) -> bytes:
        if request.headers.get("content-encoding", "").lower() == "gzip":
            body = unzipped(body, max_bytes=self._runtime.limits.body_bytes)
        return answer(
            self._models,
            request.method,
            target(request),
            body=body,
            record=record,
            deadline=deadline,
        )

    def _has_worked(self, _: object) -> None:
        self._busy -= 1


def _failure(record: Record, error: ServingError) -> Response:
    record.code, record.status = error.code, error.http_status
    return error_response(error)


def _refused(http_status: int, message: str) -> ServingError:
    """Returns an error in terms of HTTP alone, which TensorFlow Serving would not give."""
    return ServingError(StatusCode.INVALID_ARGUMENT, message, http_status=http_status)


def require_token(request: Request, token: str | None) -> None:
    """Raises ServingError for a request that does not bear the token."""
    if not bears_token(request.headers.get("authorization", ""), token=token):
        raise ServingError(
            StatusCode.UNAUTHENTICATED, "expected the header Authorization: Bearer TOKEN"
        )


def target(request: Request) -> str:
    """Returns the path as it was sent, with its query."""
    path = request.scope["raw_path"].decode("latin-1")
    query = request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


async def _body(request: Request, *, max_bytes: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise _refused(413, f"a body of {length} bytes; at most {max_bytes} are read")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _refused(413, f"the body has over {max_bytes} bytes; no more are read")
        chunks.append(chunk)
    return b"".join(chunks)


def error_response(error: ServingError) -> Response:
    """Returns an error in TensorFlow Serving's form."""
    return Response(json.dumps({"error": error.message}), error.http_status, media_type=JSON)
