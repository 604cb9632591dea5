"""What goes wrong between a client and a model server, each in one line with its remedy."""

import re

_MAX_CHARACTERS = 200
# Of a peer's reason, these are looked at: more would take time in proportion to their square.
_MAX_CHARACTERS_READ = 4000
# What TensorFlow adds to its reasons: names of nodes of the graph.
_GRAPH_NODES = re.compile(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]")


class ServerError(OSError):
    """A server does not give what it was asked for."""

    fault = "the server fails"
    remedy = "Look at its log."

    def __init__(self, address: str, detail: str) -> None:
        self.detail = _one_line(detail)
        super().__init__(f"{address}: {self.fault} ({self.detail}). {self.remedy}")


def _one_line(text: str) -> str:
    """Returns what a peer says in a form that fits a terminal, which it might play tricks on."""
    reason = _GRAPH_NODES.sub(" ", text[:_MAX_CHARACTERS_READ])
    printable = "".join(c if c.isprintable() else " " for c in reason)
    words = " ".join(printable.split()).rstrip(".")
    return words if len(words) <= _MAX_CHARACTERS else f"{words[:_MAX_CHARACTERS]}..."


class ServerUnavailableError(ServerError):
    """Nobody answers there, or the server has no room for the request; later it may."""

    fault = "cannot be asked now"
    remedy = "Check that the server runs there, or wait for it: --wait SECONDS."


class ServerTimeoutError(ServerError):
    """No answer came in time."""

    fault = "no answer in time"
    remedy = "Look at the server's log, or give it longer."


class ModelNotFoundError(ServerError):
    """The server has no such model, version, label or signature, or not yet."""

    fault = "the model cannot be asked"
    remedy = "Check --model-name, --version and --label, or wait for it: --wait SECONDS."


class InvalidInputError(ServerError):
    """The model does not take what it was sent, such as a damaged image."""

    fault = "the input is refused"
    remedy = "Check that the image opens elsewhere, or save it anew as PNG."


class RequestTooLargeError(InvalidInputError):
    """The server, or a proxy before it, reads no request of that size."""

    remedy = "Make the image smaller, or send fewer at a time."


class AccessDeniedError(ServerError):
    """The server wants a token, or another one."""

    fault = "access is denied"
    remedy = "Give the token that the server expects: KERAS_CIFAR_TOKEN, or --token."


class UntrustedServerError(ServerError):
    """No TLS connection that can be trusted."""

    fault = "no trusted connection"
    remedy = "Check that the server speaks TLS, and name its authority: --ca-certificate FILE."


class BadResponseError(ServerError):
    """The answer is not one of TensorFlow Serving's."""

    fault = "does not answer as TensorFlow Serving does"
    remedy = "Check the address; REST is usually on port 8501, gRPC on 8500."
