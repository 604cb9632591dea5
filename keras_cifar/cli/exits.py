"""How a command ends that cannot go on: one line and an exit code; a bug keeps its traceback."""

import io
import os
import signal
import sys
from typing import Any

import click

from keras_cifar.errors import described, printable

# What a shell reports for a process that a signal ended: 128 + its number.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
_STDERR = 2
_NO_MEMORY = "Not enough memory. End what else uses it, or allow this process more (ulimit -v)."


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what handles Ctrl-C handles it alike."""


class Group(click.Group):
    """Prints what fails in the world (files, network, divergence) in one line."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Answers --help and --version, or has `invoke` run the command."""
        try:
            return super().main(*args, **options)
        except OSError as error:  # where stdout leads, there is no room
            click.ClickException(_in_words(error)).show()
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command that was named."""
        signal.signal(signal.SIGTERM, _raise_terminated)
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `launch` starts its workers
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _open_what_is_closed()
        _print_any_path()
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click ends quietly when its reader has gone
            raise
        except (FloatingPointError, MemoryError) as error:
            raise click.ClickException(str(error) or _NO_MEMORY) from error
        except OSError as error:
            raise click.ClickException(_in_words(error)) from error
        except Terminated:
            ctx.exit(TERMINATED)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _in_words(error: OSError) -> str:
    text = described(error)
    return printable(text if text == str(error) else f"{text}.")


def _open_what_is_closed() -> None:
    """Opens stdin, stdout and stderr on nothing where they are closed, by `2>&-` say.

    A file that is opened later would take the number, and all that is said would go into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)  # noqa: FBT003
    os.close(descriptor)
    # What of Python is closed then is None.
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(_STDERR, "w")


def _print_any_path() -> None:
    """Lets stdout take a path that is not UTF-8 as the bytes that it is."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="surrogateescape")


def _raise_terminated(*_: object) -> None:
    raise Terminated
