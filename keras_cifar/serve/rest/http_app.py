"""The HTTP side of the server: the REST API, probes, metrics and the page."""

import json
from concurrent.futures import Executor

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from keras_cifar.serve.page import render
from keras_cifar.serve.page.about import about
from keras_cifar.serve.rest.api_requests import (
    JSON,
    ApiRequests,
    error_response,
    require_token,
    target,
)
from keras_cifar.serve.rest.rest_api import RestApi
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import Settings

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
_CORS_HEADERS_WITH_TOKEN = _CORS_HEADERS | {
    "access-control-allow-headers": "Content-Type, Authorization"
}


class HttpApp:
    """An ASGI application.

    Args:
        api: answers what is asked of the models.
        settings: of which token and CORS count.
        metrics_path: None for no metrics.
        executor: whose threads compute the answers.

    Attributes:
        is_draining: whether the server is about to stop: it answers, but is no longer ready.
    """

    def __init__(
        self,
        api: RestApi,
        *,
        settings: Settings,
        metrics_path: str | None,
        executor: Executor,
    ) -> None:
        self.is_draining = False
        self._models = api.models
        self._metrics = api.runtime.metrics
        self._settings = settings
        self._metrics_path = metrics_path
        self._api_requests = ApiRequests(api, token=settings.token, executor=executor)
        self._page = render()
        routes = [
            Route("/", self._get_page),
            Route("/about.json", self._get_about),
            Route("/v2/health/live", self._get_live),
            Route("/v2/health/ready", self._get_ready),
        ]
        self._router = Router(routes, redirect_slashes=False, default=self._other)

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
            require_token(request, self._settings.token)
        except ServingError as error:
            return error_response(error)
        return Response(json.dumps(about(self._models)), media_type=JSON)

    async def _get_metrics(self, request: Request) -> Response:
        try:
            require_token(request, self._settings.token)
        except ServingError as error:
            return error_response(error)
        if request.url.query:
            text = f"Unexpected path: {target(request)}. Should be {self._metrics_path}"
            return Response(text, 400)
        return Response(self._metrics.exposition(), media_type=_TEXT)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["path"] == self._metrics_path:  # of any form, hence no Route
            response = await self._get_metrics(request)
        elif scope["path"].lower().startswith("/v1/"):
            response = await self._api(request)
        else:
            response = Response("Not Found", 404)
        await response(scope, receive, send)

    async def _api(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            response = _preflight(request)
        else:
            response = await self._api_requests.response(request)
        if self._settings.cors:
            has_token = self._settings.token is not None
            response.headers.update(_CORS_HEADERS_WITH_TOKEN if has_token else _CORS_HEADERS)
        return response


def _preflight(request: Request) -> Response:
    origin = request.headers.get("origin", "")
    return Response(status_code=200 if origin.startswith(("http://", "https://")) else 400)
