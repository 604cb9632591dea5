"""The gRPC server around the services: its ports, its keys, and health checks."""

import os
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
from grpc import StatusCode
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from keras_cifar.serve.memory import Memory
from keras_cifar.serve.rpc.interceptors import MessageInterceptor, TokenInterceptor
from keras_cifar.serve.settings import Settings, address


def grpc_server(settings: Settings, memory: Memory, executor: Executor) -> grpc.Server:
    """Returns a server without services or ports."""
    tokens = [TokenInterceptor(settings.token)] if settings.token else []
    return grpc.server(
        executor,
        interceptors=[*tokens, MessageInterceptor(settings.limits, memory)],
        maximum_concurrent_rpcs=settings.limits.requests,
        options=[
            ("grpc.so_reuseport", 0),  # or two servers would share a port, and its requests
            ("grpc.max_receive_message_length", settings.limits.body_bytes),
            ("grpc.max_send_message_length", -1),
            # Else, from quick clients gRPC takes megabytes before anybody wants to have them.
            ("grpc.http2.bdp_probe", 0),
        ],
    )


def add_health(server: grpc.Server) -> health.HealthServicer:
    """Registers grpc.health.v1.Health, and returns it; it says SERVING of all that it watches."""
    servicer = _Health()
    # As TensorFlow Serving names them.
    for name in ("", "ModelService", "PredictionService"):
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


class _Health(health.HealthServicer):  # type: ignore[misc]
    """Answers Check, as probes ask it.

    A stream of Watch has no end and needs no token: few clients would take all places for requests.
    To gRPC's clients, a server without Watch is healthy, by the definition of the protocol.
    """

    def Watch(self, _: Any, context: grpc.ServicerContext, *__: Any) -> None:
        context.abort(StatusCode.UNIMPLEMENTED, "Watch is not supported; ask Check")


def add_ports(server: grpc.Server, settings: Settings) -> str:
    """Has the server listen, and returns the address where it does.

    Raises:
        OSError: a port cannot be had, or a certificate not be read.
    """
    if settings.grpc_socket:
        remedy = "Name one of up to 107 bytes, in a folder to write to: --grpc-socket PATH."
        _refuse_taken(settings.grpc_socket)
        with _refusing(f"unix:{settings.grpc_socket}", remedy=remedy):
            # gRPC takes it for a URL.
            server.add_insecure_port(f"unix:{quote(os.fspath(settings.grpc_socket))}")
    wanted = address(settings.host, settings.grpc_port)
    add_port = server.add_insecure_port
    if settings.ssl_certificate and settings.ssl_key:
        credentials = _credentials(settings.ssl_certificate, settings.ssl_key)
        add_port = partial(server.add_secure_port, server_credentials=credentials)
    remedy = "Is another server there? Name another port: --grpc-port N (0 for any that is free)."
    with _refusing(wanted, remedy=remedy):
        return address(settings.host, add_port(wanted))


def _refuse_taken(path: Path) -> None:
    """Refuses a socket at which another server listens, which gRPC would put out of its place."""
    if path.exists() and not path.is_socket():
        raise FileExistsError(f"{path}: is there and no socket. Name another: --grpc-socket PATH.")
    with socket.socket(socket.AF_UNIX) as other:
        if path.is_socket() and other.connect_ex(os.fspath(path)) == 0:
            raise BlockingIOError(
                f"{path}: another server listens here. Name another: --grpc-socket PATH."
            )


@contextmanager
def _refusing(name: str, *, remedy: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"{name}: cannot be listened at. {remedy}") from error


def _credentials(certificate: Path, key: Path) -> Any:
    key_and_certificate = (key.read_bytes(), certificate.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password at hand, OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, lambda: "")
    except ssl.SSLError as error:
        raise OSError(
            f"{certificate}, {key}: no certificate with its key, in PEM format and without "
            f"a password: {error.reason or error}."
        ) from error
    return grpc.ssl_server_credentials([key_and_certificate])
