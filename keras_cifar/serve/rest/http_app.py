"""The HTTP side of the server: the REST API, probes, metrics and the page."""

import asyncio
import json
import logging
import time
from concurrent.futures import Executor
from dataclasses import dataclass

import anyio
from grpc import StatusCode
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from keras_cifar.serve.access_log import Record
from keras_cifar.serve.models.registry import Models
from keras_cifar.serve.models.servable import Runtime
from keras_cifar.serve.page import render
from keras_cifar.serve.page.about import about
from keras_cifar.serve.rest.json_body import unzipped
from keras_cifar.serve.rest.rest_api import answer
from keras_cifar.serve.serving_error import ServingError, http_status
from keras_cifar.serve.settings import bears_token

_JSON = "application/json"
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
# The page is all in one; nothing in it, nor slipped into it, can load anything from elsewhere.
_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_CORS_HEADERS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST, GET",
    "access-control-allow-headers": "Content-Type",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Access:
    """Who may have what.

    Attributes:
        token: that a request must bear; None lets anyone in.
        cors: whether pages of other origins may read the answers.
        metrics_path: where the metrics are; None for nowhere.
    """

    token: str | None
    cors: bool
    metrics_path: str | None


class _Refused(Exception):
    """An answer in terms of HTTP alone, which TensorFlow Serving would not give."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class HttpApp:
    """An ASGI application.

    Attributes:
        is_draining: whether the server is about to stop: it answers, but is no longer ready.
    """

    def __init__(
        self, models: Models, *, runtime: Runtime, access: Access, executor: Executor
    ) -> None:
        self.is_draining = False
        self._models = models
        self._runtime = runtime
        self._access = access
        self._executor = executor
        self._busy = 0
        self._page = render()
        routes = [
            Route("/", self._get_page),
            Route("/about.json", self._get_about),
            Route("/v2/health/live", self._get_live),
            Route("/v2/health/ready", self._get_ready),
        ]
        if access.metrics_path:
            routes.append(Route(access.metrics_path, self._get_metrics))
        self._router = Router(routes, default=self._other)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""

        async def send_last(message: Message) -> None:
            # Whoever keeps a connection is told in time that it ends, and not by its end.
            if self.is_draining and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._router(scope, receive, send_last)

    async def _get_page(self, _: Request) -> Response:
        return Response(self._page, media_type="text/html", headers=_PAGE_HEADERS)

    async def _get_live(self, _: Request) -> Response:
        return Response("live")

    async def _get_ready(self, _: Request) -> Response:
        if self.is_draining:
            return Response("stopping", 503)
        missing = [name for name, loaded in self._models.available().items() if not loaded]
        return Response(f"not loaded: {', '.join(missing)}", 503) if missing else Response("ready")

    async def _get_about(self, request: Request) -> Response:
        try:
            self._check_token(request)
        except ServingError as error:
            return _error(error.message, http_status(error.code))
        return Response(json.dumps(about(self._models)), media_type=_JSON)

    async def _get_metrics(self, request: Request) -> Response:
        try:
            self._check_token(request)
        except ServingError as error:
            return _error(error.message, http_status(error.code))
        if request.url.query:
            text = f"Unexpected path: {_target(request)}. Should be {self._access.metrics_path}"
            return Response(text, 400)
        return Response(self._runtime.metrics.exposition(), media_type=_TEXT)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["path"].lower().startswith("/v1/"):
            response = await self._api(request)
        else:
            response = Response("Not Found", 404)
        await response(scope, receive, send)

    async def _api(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            response = _preflight(request)
        else:
            response = await self._recorded(request)
        if self._access.cors:
            response.headers.update(_CORS_HEADERS)
        return response

    async def _recorded(self, request: Request) -> Response:
        """Answers with what came of a request, and writes that down."""
        peer = f"{request.client.host}:{request.client.port}" if request.client else ""
        record = Record("REST", f"{request.method} {_target(request)}", peer)
        try:
            self._check_token(request)
            return Response(await self._answer(request, record), media_type=_JSON)
        except ServingError as error:
            record.code, record.status = error.code, http_status(error.code)
            return _error(error.message, record.status)
        except _Refused as error:
            record.code, record.status = StatusCode.INVALID_ARGUMENT, error.status
            return _error(str(error), error.status)
        except ClientDisconnect:
            record.code, record.status = StatusCode.CANCELLED, 499
            return _error("the client has gone", 499)
        except asyncio.CancelledError:
            record.code, record.status = StatusCode.UNAVAILABLE, 503
            return _error("the server has stopped", 503)
        except Exception:
            record.code, record.status = StatusCode.INTERNAL, 500
            _log.exception("%s", record.call)
            return _error("internal error; the server's log has more", 500)
        finally:
            record.status = record.status or 200
            record.close(self._runtime.metrics)

    def _check_token(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not bears_token(given, token=self._access.token):
            raise ServingError(
                StatusCode.UNAUTHENTICATED, "expected the header Authorization: Bearer TOKEN"
            )

    async def _answer(self, request: Request, record: Record) -> bytes:
        limits = self._runtime.limits
        deadline = time.time() + limits.seconds
        try:
            with anyio.fail_after(limits.seconds):
                body = await _body(request, max_bytes=limits.body_bytes)
        except TimeoutError as error:
            raise _Refused(408, f"the body did not arrive in {limits.seconds:g} s") from error
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
            _target(request),
            body=body,
            record=record,
            deadline=deadline,
        )

    def _has_worked(self, _: object) -> None:
        self._busy -= 1


def _target(request: Request) -> str:
    """Returns the path as it was sent, with its query."""
    path = request.scope["raw_path"].decode("latin-1")
    query = request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


async def _body(request: Request, *, max_bytes: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise _Refused(413, f"a body of {length} bytes; at most {max_bytes} are read")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _Refused(413, f"the body has over {max_bytes} bytes; no more are read")
        chunks.append(chunk)
    return b"".join(chunks)


def _error(message: str, status: int) -> Response:
    return Response(json.dumps({"error": message}), status, media_type=_JSON)


def _preflight(request: Request) -> Response:
    origin = request.headers.get("origin", "")
    return Response(status_code=200 if origin.startswith(("http://", "https://")) else 400)
