"""Requests to the REST API on their way to an answer: read, counted, handed to a thread, noted."""

import asyncio
import json
import logging
import threading
import time
from concurrent.futures import Executor
from contextlib import ExitStack

import anyio
from grpc import StatusCode
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from keras_cifar.serve.access_log import Record
from keras_cifar.serve.memory import Hold
from keras_cifar.serve.rest.json_body import unzipped
from keras_cifar.serve.rest.rest_api import RestApi
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import bears_token

JSON = "application/json"
_MAX_MESSAGE = 64 * 1024  # characters: what a URL may have
_log = logging.getLogger(__name__)


class ApiRequests:
    """Answers requests to the API that bear the token, as many at a time as the limits allow."""

    def __init__(self, api: RestApi, *, token: str | None, executor: Executor) -> None:
        self._api = api
        self._limits = api.runtime.limits
        self._memory = api.runtime.memory
        self._token = token
        self._executor = executor
        self._places = threading.BoundedSemaphore(self._limits.requests)
        self._arriving: dict[Hold, anyio.CancelScope] = {}  # the oldest first

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
            record.close(self._api.runtime.metrics)

    async def _answer(self, request: Request, record: Record) -> bytes:
        limits = self._limits
        deadline = time.time() + limits.seconds
        with ExitStack() as stack:
            hold = stack.enter_context(Hold(self._memory))
            body = await self._arrived(request, hold)
            record.request_bytes = len(body)
            if not self._places.acquire(blocking=False):
                raise ServingError(
                    StatusCode.UNAVAILABLE, f"{limits.requests} requests are waiting already"
                )
            stack.callback(self._places.release)
            future = self._executor.submit(self._work, request, body, record, hold, deadline)
            taken = stack.pop_all()
        # When the thread has done with it, which may be later than an answer is waited for.
        future.add_done_callback(lambda _: taken.close())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), deadline - time.time())
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise ServingError(
                StatusCode.DEADLINE_EXCEEDED, f"no answer within {limits.seconds:g} s"
            ) from error

    async def _arrived(self, request: Request, hold: Hold) -> bytearray:
        """Returns a body, once it is there as a whole."""
        with anyio.move_on_after(self._limits.seconds) as scope:
            self._arriving[hold] = scope
            try:
                return await self._body(request, hold)
            finally:
                del self._arriving[hold]
        if scope.deadline > anyio.current_time():
            raise self._memory.refusal()
        raise _refused(408, f"the body did not arrive in {self._limits.seconds:g} s")

    async def _body(self, request: Request, hold: Hold) -> bytearray:
        length, most = request.headers.get("content-length", ""), self._limits.body_bytes
        # The protocol has seen to it that it is a number; of thousands of zeros, Python makes none.
        if length.isdecimal() and int(length.lstrip("0") or "0") > most:
            raise _refused(413, f"a body of {length} bytes; at most {most} are read")
        body = bytearray()
        async for chunk in request.stream():
            if len(body) + len(chunk) > most:
                raise _refused(413, f"the body has over {most} bytes; no more are read")
            await self._make_room(hold, len(chunk))
            body += chunk
        return body

    async def _make_room(self, hold: Hold, size: int) -> None:
        """Holds some more bytes, at the expense of the bodies that have been coming for longest."""
        while not hold.arrive(size):
            oldest, scope = next(iter(self._arriving.items()))
            if oldest is hold:
                raise self._memory.refusal()
            scope.cancel()
            while oldest in self._arriving:  # until it has heard of that
                await asyncio.sleep(0)

    def _work(
        self, request: Request, body: bytearray, record: Record, hold: Hold, deadline: float
    ) -> bytes:
        if "gzip" in request.headers.get("content-encoding", "").lower():  # x-gzip too
            body = unzipped(body, max_bytes=self._limits.body_bytes, hold=hold.add)
        return self._api.answer(
            request.method, target(request), body=body, record=record, deadline=deadline
        )


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


def error_response(error: ServingError) -> Response:
    """Returns an error in TensorFlow Serving's form; of what it quotes, no megabytes."""
    text = error.message
    if len(text) > _MAX_MESSAGE:
        text = f"{text[:_MAX_MESSAGE]}...TRUNCATED"
    return Response(json.dumps({"error": text}), error.http_status, media_type=JSON)
