"""How a command ends that cannot go on: one line and an exit code; a bug keeps its traceback."""

import signal

import click

from keras_cifar.errors import described, printable

# What a shell reports for a process that a signal ended: 128 + its number.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what handles Ctrl-C handles it alike."""


class Group(click.Group):
    """Prints what fails in the world (files, network, divergence) in one line."""

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command that was named."""
        signal.signal(signal.SIGTERM, _raise_terminated)
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click ends quietly when its reader has gone
            raise
        except (FloatingPointError, MemoryError) as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            text = described(error)
            line = text if text == str(error) else f"{text}."
            raise click.ClickException(printable(line)) from error
        except Terminated:
            ctx.exit(TERMINATED)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _raise_terminated(*_: object) -> None:
    raise Terminated
