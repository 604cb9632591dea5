"""Runs the server: loads, listens, keeps watch, and stops without dropping anybody's request."""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import tensorflow as tf
import uvloop
from grpc_health.v1.health import HealthServicer

from keras_cifar.serve.logs import logging_to
from keras_cifar.serve.models.model_config import ModelConfig
from keras_cifar.serve.models.registry import Models
from keras_cifar.serve.models.servable import Runtime
from keras_cifar.serve.rest.http_app import HttpApp
from keras_cifar.serve.rest.http_server import HttpServer, http_server, listener
from keras_cifar.serve.rest.rest_api import RestApi
from keras_cifar.serve.rpc.grpc_api import add_services
from keras_cifar.serve.rpc.grpc_server import add_health, add_ports, grpc_server
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import Settings, address
from keras_cifar.serve.text_config import read_batching, read_metrics_path, read_models
from keras_cifar.serve.watch import watching
from keras_cifar.serving import BATCHING, METRICS_PATH

# After the signal to stop: for so long, all is answered but readiness, so that whoever sends the
# requests hears of it; then those at work may end, and what is not over by then never will be.
_NOTICE_SECONDS = 1.0
_DRAIN_SECONDS = 27.0
_STOP_SECONDS = 30.0
# Files that may be open, and what a Mac gives where that is too many.
_OPEN_FILES = (65_536, 10_240)
_log = logging.getLogger(__name__)


def serve(settings: Settings, *, announce: Callable[[str, str], None]) -> None:
    """Serves until SIGTERM, SIGINT or SIGHUP; a second SIGTERM or SIGINT ends it at once.

    Args:
        settings: of the server.
        announce: is told the URL of REST and the address of gRPC, once both answer.

    Raises:
        OSError: a file cannot be read, a port not be had, or no version be loaded.
    """
    runtime = _runtime(settings)
    configs = _model_configs(settings)
    models = Models(runtime=runtime, labels_may_wait=settings.labels_may_wait)
    monitoring = settings.monitoring_config
    metrics_path = read_metrics_path(monitoring) if monitoring else METRICS_PATH
    _allow_many_connections()
    _refuse_long_integers()
    with ExitStack() as stack:
        write_log = stack.enter_context(logging_to(settings.access_log))
        last_resort = _last_resort(write_log)
        stack.callback(last_resort.cancel)
        # The ports come before the models, which take seconds: one that is taken shows at once.
        bound = stack.enter_context(listener(settings))
        # Each has its own threads: over gRPC, they wait for what slow clients send.
        rest_threads, rpc_threads = (
            stack.enter_context(ThreadPoolExecutor(settings.limits.requests)) for _ in range(2)
        )
        rpc = grpc_server(settings, runtime.memory, rpc_threads)
        add_services(rpc, models, runtime=runtime)
        health = add_health(rpc)
        rpc_address = add_ports(rpc, settings)
        stack.callback(models.close)
        gc.freeze()  # TensorFlow stays. To look it through at each collection would take 0.15 s.
        try:
            models.configure(configs)
        except ServingError as error:
            raise OSError(error.message) from error
        stack.enter_context(watching(models, settings, configs=configs))
        app = HttpApp(
            RestApi(models, runtime),
            settings=settings,
            metrics_path=metrics_path,
            executor=rest_threads,
        )
        http = http_server(app, settings, drain_seconds=_DRAIN_SECONDS)
        servers = _Servers(http, bound, app, rpc, health, last_resort, write_log)
        scheme = "https" if settings.ssl_certificate else "http"
        url = f"{scheme}://{address(settings.host, bound.getsockname()[1])}"
        uvloop.run(_run(servers, announce=lambda: announce(url, rpc_address)))


def _runtime(settings: Settings) -> Runtime:
    if settings.batching_parameters:
        batching = read_batching(settings.batching_parameters)
    else:
        batching = BATCHING["gpu" if tf.config.list_physical_devices("GPU") else "cpu"]
    return Runtime(batching, settings.limits)


def _model_configs(settings: Settings) -> list[ModelConfig]:
    if settings.models_config:
        try:
            return read_models(settings.models_config)
        except ServingError as error:
            raise OSError(f"{settings.models_config}: {error.message}") from error
    # Settings has seen to it that there is one or the other.
    return [ModelConfig(settings.model_name, Path(settings.model_dir or "").absolute())]


def _allow_many_connections() -> None:
    """Each is a file; the usual 1,024 are too few for those who connect and say nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in _OPEN_FILES:
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        with suppress(ValueError, OSError):  # more than the kernel gives, whatever the limits say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def _refuse_long_integers() -> None:
    """Has Python make no integer of many digits, each of which takes it as long as all before."""
    if hasattr(sys, "set_int_max_str_digits"):  # not in Python 3.10.6 and before
        sys.set_int_max_str_digits(sys.int_info.str_digits_check_threshold)


@dataclass(frozen=True)
class _Servers:
    http: HttpServer
    listener: socket.socket
    app: HttpApp
    rpc: grpc.Server
    health: HealthServicer
    last_resort: threading.Timer
    write_log: Callable[[], None]


async def _run(servers: _Servers, *, announce: Callable[[], None]) -> None:
    stop = _first_signal(servers.write_log)
    servers.rpc.start()
    listening = asyncio.create_task(servers.http.serve(sockets=[servers.listener]))
    while not servers.http.started:
        if listening.done():
            await listening  # raises
        await asyncio.sleep(0.01)
    announce()
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, listening], return_when=asyncio.FIRST_COMPLETED)
    servers.app.is_draining = True
    servers.health.enter_graceful_shutdown()
    _log.info("stopping: requests at work have %.0f s to end", _STOP_SECONDS)
    servers.last_resort.start()
    await asyncio.wait([listening], timeout=_NOTICE_SECONDS)
    servers.http.should_exit = True
    answered = servers.rpc.stop(_DRAIN_SECONDS)  # an event: what was accepted has its answer
    await listening
    await asyncio.to_thread(answered.wait)


def _first_signal(write_log: Callable[[], None]) -> asyncio.Event:
    """Returns what the first signal sets; the second one drops what is at work."""
    first = asyncio.Event()

    def heed(number: int) -> None:
        if first.is_set():
            text = "stopped at once, as told: what was at work is dropped"
            _end(text, write_log, code=128 + number)
        first.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heed, number)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        # Never as the second one: of a terminal that closes, shell and kernel both send it.
        loop.add_signal_handler(signal.SIGHUP, first.set)
    return first


def _last_resort(write_log: Callable[[], None]) -> threading.Timer:
    text = f"stopped, after {_STOP_SECONDS:.0f} s: what was still at work is dropped"
    timer = threading.Timer(_STOP_SECONDS, _end, [text, write_log], {"code": 1})
    timer.daemon = True
    return timer


def _end(text: str, write_log: Callable[[], None], *, code: int) -> None:
    """Ends the process as it is. TensorFlow cannot be interrupted, and Python would wait for it."""
    _log.warning("%s", text)
    write_log()
    os._exit(code)
