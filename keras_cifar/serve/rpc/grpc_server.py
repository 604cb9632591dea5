"""The gRPC server around the services: its ports, its keys, and health checks."""

import ssl
from concurrent.futures import Executor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from keras_cifar.serve.rpc.interceptors import DecodingInterceptor, TokenInterceptor
from keras_cifar.serve.settings import Settings, address

# As TensorFlow Serving names them.
_HEALTH_NAMES = ("", "ModelService", "PredictionService")


def grpc_server(settings: Settings, executor: Executor) -> grpc.Server:
    """Returns a server without services or ports."""
    tokens = [TokenInterceptor(settings.token)] if settings.token else []
    return grpc.server(
        executor,
        interceptors=[*tokens, DecodingInterceptor()],
        maximum_concurrent_rpcs=settings.limits.requests,
        options=[
            ("grpc.so_reuseport", 0),  # or two servers would share a port, and its requests
            ("grpc.max_receive_message_length", settings.limits.body_bytes),
            ("grpc.max_send_message_length", -1),
        ],
    )


class Health:
    """grpc.health.v1.Health; all that it watches is in the same state."""

    def __init__(self, server: grpc.Server) -> None:
        self._servicer: Any = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def serving(self) -> None:
        """Says SERVING from now on."""
        for name in _HEALTH_NAMES:
            self._servicer.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stopping(self) -> None:
        """Says NOT_SERVING from now on."""
        self._servicer.enter_graceful_shutdown()


def add_ports(server: grpc.Server, settings: Settings) -> str:
    """Has the server listen, and returns the address where it does.

    Raises:
        OSError: a port cannot be had, or a certificate not be read.
    """
    if settings.grpc_socket:
        _bind(f"unix:{settings.grpc_socket}", server.add_insecure_port)
    wanted = address(settings.host, settings.grpc_port)
    if settings.ssl_certificate is None or settings.ssl_key is None:
        return address(settings.host, _bind(wanted, server.add_insecure_port))
    credentials = _credentials(settings)
    return address(settings.host, _bind(wanted, lambda at: server.add_secure_port(at, credentials)))


def _bind(at: str, add_port: Any) -> int:
    try:
        return int(add_port(at))
    except RuntimeError as error:
        raise OSError(
            f"{at}: cannot be listened at. Is another server there? "
            "Name another port: --grpc-port N (0 for any that is free)."
        ) from error


def _credentials(settings: Settings) -> Any:
    files = [path for path in (settings.ssl_key, settings.ssl_certificate) if path]
    key_and_certificate = tuple(path.read_bytes() for path in files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password at hand, OpenSSL would ask for one at the terminal.
        context.load_cert_chain(str(settings.ssl_certificate), str(settings.ssl_key), lambda: "")
    except ssl.SSLError as error:
        raise OSError(
            f"{settings.ssl_certificate}, {settings.ssl_key}: no certificate with its key, "
            f"in PEM format and without a password: {error.reason or error}."
        ) from error
    return grpc.ssl_server_credentials([key_and_certificate])
