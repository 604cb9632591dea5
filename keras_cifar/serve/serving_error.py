"""What a request can fail with: a gRPC status code, its HTTP equivalent, and one line of text."""

import re

import tensorflow as tf
from grpc import StatusCode

# As TensorFlow Serving answers over HTTP; any other code is 500.
_HTTP_STATUS = {
    StatusCode.CANCELLED: 499,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.ABORTED: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}
# What TensorFlow adds of the graph's inner places, and of its own calls: only where it puts that,
# since a reason may quote megabytes of a request. `client.server_errors` looks for it anywhere.
_INNER = re.compile(
    r"\A(Graph execution error:|\{\{function_node \S+\}\})|\n\t \[\[.*| \[Op:\w+\].*", re.DOTALL
)
_CODES = {code.value[0]: code for code in StatusCode}


class ServingError(Exception):
    """A request that gets no answer, and why.

    Args:
        code: the gRPC status code.
        message: for the client.
        http_status: where HTTP has a better one than that which stands for the code.
    """

    def __init__(self, code: StatusCode, message: str, *, http_status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = http_status or _HTTP_STATUS.get(code, 500)


def invalid(message: str) -> ServingError:
    """Returns the error of a request that is wrong in itself."""
    return ServingError(StatusCode.INVALID_ARGUMENT, message)


def from_tensorflow(error: tf.errors.OpError) -> ServingError:
    """Returns an operation's error without the graph's inner places, which say nothing outside."""
    message = " ".join(_INNER.sub("", str(error.message)).split())
    return ServingError(_CODES.get(error.error_code, StatusCode.UNKNOWN), message)
