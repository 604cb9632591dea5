"""Serve a model: by the server of this package, or by TensorFlow Serving itself."""

import importlib.util
import os
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from click.core import ParameterSource

from keras_cifar.cli.options import PATH, FloatRange, user_names, wrong_usage
from keras_cifar.serve import Limits, Settings
from keras_cifar.serving import MAX_SECONDS
from keras_cifar.start import start_tensorflow

# Modules that only the extra brings.
_MODULES = (
    "grpc_health",
    "httptools",
    "prometheus_client",
    "starlette",
    "tensorflow_serving",
    "uvicorn",
    "uvloop",
)
_GRPC_BYTES = 2**31 - 1  # a message of gRPC is no larger
_PORT = click.IntRange(0, 65535)
_TOKEN_VARIABLE = "KERAS_CIFAR_TOKEN"
# What TensorFlow Serving is told as well.
_TF_SERVING_OPTIONS = {"model_dir", "engine", "model_name", "host", "rest_port", "grpc_port"}


@click.command()
@click.argument("model_dir", type=PATH, required=False)
@click.option(
    "--engine",
    type=click.Choice(("own", "tf-serving")),
    default="own",
    help="This package's server, or TensorFlow Serving where it or its Docker image is.",
)
@click.option("--model-name", default=Settings.model_name, help="What clients ask for.")
@click.option("--host", default=Settings.host, help="Address to listen at.")
@click.option(
    "--rest-port",
    type=_PORT,
    default=Settings.rest_port,
    help="Of REST and the page; 0 for any that is free.",
)
@click.option(
    "--grpc-port", type=_PORT, default=Settings.grpc_port, help="Of gRPC; 0 for any that is free."
)
@click.option("--grpc-socket", type=PATH, metavar="FILE", help="A Unix socket for gRPC as well.")
@click.option(
    "--models-config", type=PATH, metavar="FILE", help="models.config, in place of MODEL_DIR."
)
@click.option(
    "--models-config-poll",
    "models_config_poll_seconds",
    type=FloatRange(0, MAX_SECONDS),
    default=Settings.models_config_poll_seconds,
    metavar="SECONDS",
    help="Between two looks at it; 0 for one look.",
)
@click.option(
    "--poll",
    "poll_seconds",
    type=FloatRange(0.01, MAX_SECONDS),
    default=Settings.poll_seconds,
    metavar="SECONDS",
    help="Between two looks for new versions.",
)
@click.option(
    "--labels-may-wait",
    is_flag=True,
    help="Let a new label name a version that is not loaded yet.",
)
@click.option(
    "--batching-parameters",
    type=PATH,
    metavar="FILE",
    help="batching_parameters.txt.  [default: as `deploy` writes it]",
)
@click.option(
    "--monitoring-config",
    type=PATH,
    metavar="FILE",
    help="monitoring.config.  [default: metrics at their usual path]",
)
@click.option(
    "--ssl-certificate", type=PATH, metavar="FILE", help="PEM file, for TLS on both ports."
)
@click.option("--ssl-key", type=PATH, metavar="FILE", help="PEM file with the certificate's key.")
@click.option(
    "--token",
    envvar=_TOKEN_VARIABLE,
    help="Answer only requests that bear it. Better given as KERAS_CIFAR_TOKEN: other users of "
    "the machine can read the command line.",
)
@click.option("--cors", is_flag=True, help="Let pages of other origins read the answers.")
@click.option(
    "--access-log",
    type=PATH,
    default=Settings.access_log,
    metavar="FILE",
    help="A line of JSON for each request: a file, - for stderr, or off.",
)
@click.option(
    "--max-body-bytes",
    type=click.IntRange(1, _GRPC_BYTES),
    default=Limits.body_bytes,
    help="Of a request.",
)
@click.option(
    "--max-total-bytes",
    type=click.IntRange(1),
    default=Limits.total_bytes,
    help="Of all requests in memory; twice --max-body-bytes at least.",
)
@click.option(
    "--max-pixels", type=click.IntRange(1), default=Limits.pixels, help="Of an encoded image."
)
@click.option(
    "--max-requests",
    type=click.IntRange(1),
    default=Limits.requests,
    help="At work or waiting at a time.",
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=FloatRange(0.1, MAX_SECONDS),
    default=Limits.seconds,
    metavar="SECONDS",
    help="For an answer over REST.",
)
def serve(
    engine: str,
    access_log: Path,
    max_body_bytes: int,
    max_total_bytes: int,
    max_pixels: int,
    max_requests: int,
    timeout_seconds: float,
    **options: Any,
) -> None:
    """Serve the models in MODEL_DIR as TensorFlow Serving would, with a page to try them in.

    Stops at Ctrl-C or SIGTERM, once the requests at work have their answers.
    """
    # To click, an empty variable is none; to its user, it is a secret that did not arrive.
    if os.environ.get(_TOKEN_VARIABLE) == "" and options["token"] is None:
        raise click.UsageError(
            f"{_TOKEN_VARIABLE} is empty: set it to a token, or unset it to serve without one."
        )
    with wrong_usage(total_bytes="--max-total-bytes"):
        limits = Limits(max_body_bytes, max_pixels, timeout_seconds, max_requests, max_total_bytes)
        settings = Settings(
            **options,
            access_log=None if access_log == Path("off") else str(access_log),
            limits=limits,
        )
    if engine == "tf-serving":
        _refuse_own_options()
        click.get_current_context().exit(_run_tf_serving(settings))
    if any(importlib.util.find_spec(module) is None for module in _MODULES):
        raise click.ClickException("serve needs more: pip install 'keras-cifar[serve]'")
    # What TensorFlow warns of is what clients got wrong, and they hear of it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # The weights of a version never change: oneDNN may keep them in the form it likes best.
    os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")
    start_tensorflow()
    from keras_cifar.serve.lifecycle import serve as run

    run(settings, announce=_announce)


def _refuse_own_options() -> None:
    context = click.get_current_context()
    for name, option in user_names().items():
        source = context.get_parameter_source(name)
        if source is ParameterSource.ENVIRONMENT:
            option = f"{_TOKEN_VARIABLE}, which is set,"
        elif source is not ParameterSource.COMMANDLINE:
            continue
        if name not in _TF_SERVING_OPTIONS:
            raise click.UsageError(
                f"{option} is of this package's own server: leave out "
                "--engine tf-serving, or write a kit and edit it: keras-cifar deploy"
            )


def _run_tf_serving(settings: Settings) -> int:
    from keras_cifar.deploy import deploy, server_flags
    from keras_cifar.serve.tf_serving import run, tf_serving_command

    if settings.model_dir is None:
        raise click.UsageError("--engine tf-serving takes MODEL_DIR.")
    with TemporaryDirectory(prefix="keras-cifar-kit-") as folder:
        kit = Path(folder)
        kit.chmod(0o755)  # a container's user reads it
        with wrong_usage():
            deploy(settings.model_dir, kit, model_name=settings.model_name)
            command = tf_serving_command(settings, kit=kit, flags=server_flags("cpu"))
        click.echo(shlex.join(command), err=True)
        return run(command)


def _announce(url: str, address: str) -> None:
    click.echo(f"REST and a page to try it: {url}")
    click.echo(f"gRPC: {address}")
