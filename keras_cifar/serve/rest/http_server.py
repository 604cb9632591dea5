"""The HTTP server around the application: uvicorn, its socket and its settings."""

import errno
import socket
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import uvicorn

from keras_cifar.serve.rest.http_protocol import KEEP_ALIVE_SECONDS, PatientProtocol
from keras_cifar.serve.settings import Settings, address


class HttpServer(uvicorn.Server):
    """A server that leaves signals to whoever runs it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen; raises OSError if another server was quicker."""
        for bound in sockets or []:
            try:
                # Two can be bound to a port, but not listen. uvloop would not say so.
                bound.listen(self.config.backlog)
            except OSError as error:
                host, port, *_ = bound.getsockname()
                raise _taken(host, port, error) from error
        await super().startup(sockets)

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Captures none."""
        return nullcontext()


def http_server(app: Any, settings: Settings, *, drain_seconds: float) -> HttpServer:
    """Returns a server of an ASGI application, to be run on `listener`."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(drain_seconds),
        ssl_certfile=settings.ssl_certificate,
        ssl_keyfile=settings.ssl_key,
    )
    return HttpServer(config)


def listener(settings: Settings) -> socket.socket:
    """Returns a socket bound to the port of REST; it does not listen yet.

    Raises:
        OSError: the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((settings.host, settings.rest_port))
    except OSError as error:
        bound.close()
        raise _taken(settings.host, settings.rest_port, error) from error
    return bound


def _taken(host: str, port: int, error: OSError) -> OSError:
    is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
    remedy = "port: --rest-port N (0 for any that is free)" if is_port else "address: --host"
    return OSError(f"{address(host, port)}: {error.strerror}. Name another {remedy}.")
