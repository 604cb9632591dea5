"""What each way to fail over HTTP means."""

import http.client
from typing import Any

import requests

from keras_cifar.client.server_errors import (
    AccessDeniedError,
    BadResponseError,
    InvalidInputError,
    ModelNotFoundError,
    RequestTooLargeError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
    UntrustedServerError,
)
from keras_cifar.errors import root_cause

_ERRORS = {
    400: InvalidInputError,
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: ModelNotFoundError,
    408: ServerTimeoutError,
    413: RequestTooLargeError,
    429: ServerUnavailableError,
    502: ServerUnavailableError,
    503: ServerUnavailableError,
    504: ServerTimeoutError,
}


def request_fault(
    error: requests.RequestException, *, timeouts: tuple[float, float]
) -> tuple[type[ServerError], str]:
    """Returns the kind of a failure before or within an answer, and its reason.

    The connection could take `timeouts[0]` seconds, and each part of the answer `timeouts[1]`.
    """
    cause = root_cause(error)
    reason = getattr(cause, "strerror", None) or str(cause)
    if isinstance(error, requests.exceptions.SSLError):
        return UntrustedServerError, reason
    if isinstance(error, requests.ConnectTimeout):
        return ServerTimeoutError, f"no connection within {timeouts[0]:g} s"
    if isinstance(cause, TimeoutError):
        return ServerTimeoutError, f"nothing for {timeouts[1]:g} s"
    if cause is not error and isinstance(cause, OSError | http.client.IncompleteRead):
        return ServerUnavailableError, reason
    return BadResponseError, "no HTTP" if isinstance(cause, http.client.BadStatusLine) else reason


def answer_fault(response: requests.Response, *, document: Any) -> tuple[type[ServerError], str]:
    """Returns the kind of failure that an answer other than 200 means, and its reason."""
    status = response.status_code
    kind = _ERRORS.get(status, ServerError if status >= 500 else BadResponseError)
    if isinstance(document, dict) and isinstance(document.get("error"), str):
        if document["error"].startswith("JSON Parse error"):
            kind = ServerError  # the images are not at fault
        return kind, f"{status}: {document['error']}"
    if response.is_redirect:
        location = response.headers["Location"]
        return kind, f"{status}: redirects to {location}, which is not followed"
    if status == 400:
        kind = BadResponseError  # TensorFlow Serving says in JSON what is invalid
    return kind, f"{status}: {response.reason}"
