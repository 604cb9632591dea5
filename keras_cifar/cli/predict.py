"""Ask a model what is on pictures: one on this machine, or a server's."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click
from click.core import ParameterSource

from keras_cifar.cli.options import (
    PATH,
    FloatRange,
    given,
    json_option,
    user_names,
    wrong_usage,
)
from keras_cifar.errors import printable
from keras_cifar.run_dir import newest_run
from keras_cifar.serving import MAX_SECONDS, MODEL_NAME
from keras_cifar.start import start_tensorflow

if TYPE_CHECKING:
    from keras_cifar.client import Failure, Prediction
    from keras_cifar.client.server_client import ServerClient

_SECONDS = FloatRange(0, MAX_SECONDS, min_open=True)


@click.command()
@click.argument("images", metavar="IMAGE...", type=PATH, nargs=-1)
@click.option(
    "--files-from",
    type=PATH,
    metavar="FILE",
    help="A list of more images, a path a line, or separated by NUL; - for standard input.",
)
@click.option(
    "--model",
    type=PATH,
    help="A run, a .keras file, or where export put SavedModels.  [default: the newest run]",
)
@click.option(
    "--url", metavar="URL", help="Ask the server there by REST, as in http://localhost:8501."
)
@click.option(
    "--grpc", metavar="HOST:PORT", help="Ask the server there by gRPC, as in localhost:8500."
)
@click.option("--model-name", help=f"What the server calls the model.  [default: {MODEL_NAME}]")
@click.option(
    "--version",
    type=click.IntRange(0),
    metavar="N",
    help="Of the server's model.  [default: the highest]",
)
@click.option("--label", help="Of a version of the server's model, such as stable.")
@click.option(
    "--wait",
    "wait_seconds",
    type=_SECONDS,
    metavar="SECONDS",
    help="Wait so long for the server to have loaded the model.  [default: do not wait]",
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=_SECONDS,
    metavar="SECONDS",
    help="Longest wait for an answer.  [default: 30]",
)
@click.option(
    "--token",
    envvar="KERAS_CIFAR_TOKEN",
    show_envvar=True,
    help="For servers that want one. Better in the environment, where other users cannot see it.",
)
@click.option(
    "--ca-certificate",
    type=PATH,
    metavar="FILE",
    help="PEM file of the authority that the server's certificate is from; makes --grpc TLS.",
)
@click.option("--top", type=click.IntRange(1, 10), default=3, help="How many classes to print.")
@json_option
def predict(
    images: tuple[Path, ...],
    files_from: Path | None,
    model: Path | None,
    url: str | None,
    grpc: str | None,
    wait_seconds: float | None,
    top: int,
    as_json: bool,
    **server_options: Any,
) -> None:
    """Tell what is on pictures: PNG, JPEG, BMP, GIF or WebP of any size.

    They are turned upright, cropped to a centred square and resized to 32x32 with antialiasing.
    A folder stands for the pictures in it and in its subfolders.
    """
    if not images and files_from is None:
        raise click.UsageError("Missing argument 'IMAGE...'.")
    if sum(way is not None for way in (model, url, grpc)) > 1:
        raise click.UsageError("--model, --url and --grpc each say whom to ask: give one of them.")
    settings = given(server_options)
    asked: Path | ServerClient
    with ExitStack() as opened:
        found = _find(images, files_from, opened=opened)
        if url is not None:
            asked = _available(_rest_client(url, settings), wait_seconds, opened=opened)
        elif grpc is not None:
            asked = _available(_grpc_client(grpc, settings), wait_seconds, opened=opened)
        else:
            _refuse_server_options([*server_options, "wait_seconds"])
            asked = model or newest_run().require_model()
            start_tensorflow()
        from keras_cifar.client import stream_predictions

        _print(stream_predictions(found, model=asked), top=top, as_json=as_json)


def _find(
    images: Sequence[Path], files_from: Path | None, *, opened: ExitStack
) -> Iterator["Path | Failure"]:
    """Returns what is found as it is asked for; a list that is missing is told at once."""
    from keras_cifar.client.folders import find_images, read_list

    if files_from is None:
        return find_images(images)
    file = opened.enter_context(click.open_file(str(files_from), "rb"))
    return find_images(chain(images, read_list(cast("BufferedReader", file))))


def _rest_client(url: str, settings: dict[str, Any]) -> "ServerClient":
    from keras_cifar.client import RestClient

    with wrong_usage(address="--url"):
        return RestClient(url, **settings)


def _grpc_client(address: str, settings: dict[str, Any]) -> "ServerClient":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it would log, an error says as well
    start_tensorflow()  # which the libraries of gRPC bring with them
    try:
        from keras_cifar.client import GrpcClient
    except ModuleNotFoundError as error:
        raise click.ClickException(str(error)) from error
    with wrong_usage(address="--grpc"):
        return GrpcClient(address, **settings)


def _available(
    client: "ServerClient", wait_seconds: float | None, *, opened: ExitStack
) -> "ServerClient":
    opened.enter_context(client)
    if wait_seconds is not None:
        click.echo(f"waiting for {client.address}, at most {wait_seconds:g} s", err=True)
        with wrong_usage(seconds="--wait"):
            client.wait_until_available(wait_seconds)
    return client


def _refuse_server_options(names: Sequence[str]) -> None:
    context = click.get_current_context()
    for name in names:
        # A token in the environment may be meant for other calls.
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = user_names()[name]
            raise click.UsageError(f"{option} is about a server: give --url or --grpc as well.")


def _print(results: Iterable["Prediction | Failure"], *, top: int, as_json: bool) -> None:
    """Prints each result as soon as it is there; ends with exit code 1 if one is a failure."""
    from keras_cifar.client import Failure

    begun = failed = False
    try:
        for result in results:
            if as_json:
                click.echo(("," if begun else "[") + _as_json(result))
            begun = True
            if isinstance(result, Failure):
                failed = True
                click.echo(f"Error: {_name(result.file, on=sys.stderr)}: {result.reason}", err=True)
            elif not as_json:
                click.echo(_as_line(result, top=top))
    finally:
        if as_json and begun:
            click.echo("]")  # after an error as well: what was answered can be read
    if not begun:
        raise click.ClickException("--files-from: no paths in this list.")
    if failed:
        raise click.exceptions.Exit(1)


def _as_json(result: "Prediction | Failure") -> str:
    document = {**result._asdict(), "file": str(result.file)}
    if "reason" in document:
        document["error"] = document.pop("reason")
    return json.dumps(document)


def _as_line(prediction: "Prediction", *, top: int) -> str:
    ranked = list(prediction.probabilities.items())[:top]
    shares = ", ".join(f"{label} {share:.1%}" for label, share in ranked)
    return f"{_name(prediction.file, on=sys.stdout)}: {shares}"


def _name(file: Path, *, on: TextIO) -> str:
    """Returns a file's name as a program may read it, or without what a terminal obeys."""
    name = click.format_filename(file)
    return printable(name) if on.isatty() else name
