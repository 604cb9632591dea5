"""HTTP as the client wants it: what is sent again, and what each way to fail means."""

import http.client
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from urllib3 import Retry

from keras_cifar.client.errors import (
    AccessDeniedError,
    BadResponseError,
    InvalidInputError,
    ModelNotFoundError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
    UntrustedServerError,
)
from keras_cifar.client.server import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, MAX_ATTEMPTS
from keras_cifar.errors import root_cause

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse  # which urllib3 1.26 calls otherwise

# A connection comes about at once or not at all; a dead address is tried MAX_ATTEMPTS times.
CONNECT_SECONDS = 5
_ERRORS = {
    400: InvalidInputError,
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: ModelNotFoundError,
    413: InvalidInputError,  # of a proxy with a limit
    429: ServerUnavailableError,
    502: ServerUnavailableError,
    503: ServerUnavailableError,
    504: ServerTimeoutError,
}


class _Retry(Retry):
    """Keeps a server from having its clients wait for hours."""

    def get_retry_after(self, response: "BaseHTTPResponse") -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, LONGEST_WAIT_SECONDS)


# What may have reached the server (read, other) is not sent again.
RETRY = _Retry(
    total=MAX_ATTEMPTS - 1,
    read=False,
    other=0,
    redirect=0,
    allowed_methods={"POST"},
    status_forcelist={503},
    backoff_factor=FIRST_WAIT_SECONDS / 2,
    raise_on_status=False,
)


def checked_url(url: str) -> str:
    """Returns the URL without a slash at its end."""
    expected = "expected http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urlsplit(requests.Request("GET", url).prepare().url or "")
        usable = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:  # of requests, of urlsplit, and of a port that is none
        usable = False
    if not usable:
        raise ValueError(f"address: got {url!r}, {expected}.")
    if parts.username is not None:
        raise ValueError(f"address: got one with a user name, {expected} alone.")
    if parts.query or parts.fragment or "/v1/models" in parts.path:
        raise ValueError(f"address: got {url!r}, {expected} alone.")
    return url.rstrip("/")


def bearer(token: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Returns what signs requests; as a session's header it would give way to ~/.netrc."""

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return sign


def request_fault(
    error: requests.RequestException, *, timeout_seconds: float
) -> tuple[type[ServerError], str]:
    """Returns what went wrong on the way to an answer, or within it."""
    cause = root_cause(error)
    reason = getattr(cause, "strerror", None) or str(cause)
    if isinstance(error, requests.exceptions.SSLError):
        return UntrustedServerError, reason
    if isinstance(error, requests.ConnectTimeout):
        return ServerTimeoutError, f"no connection within {CONNECT_SECONDS} s"
    if isinstance(cause, TimeoutError):
        return ServerTimeoutError, f"nothing for {timeout_seconds:g} s"
    if cause is not error and isinstance(cause, OSError | http.client.IncompleteRead):
        return ServerUnavailableError, reason
    return BadResponseError, "no HTTP" if isinstance(cause, http.client.BadStatusLine) else reason


def json_document(response: requests.Response) -> Any:
    """Returns the document, in which TensorFlow Serving may write NaN; None if it is none."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return None


def answer_fault(response: requests.Response, *, document: Any) -> tuple[type[ServerError], str]:
    """Returns what an answer other than 200 means, and its reason."""
    status = response.status_code
    kind = _ERRORS.get(status, ServerError if status >= 500 else BadResponseError)
    if isinstance(document, dict) and isinstance(document.get("error"), str):
        return kind, f"{status}: {document['error']}"
    if response.is_redirect:
        location = response.headers["Location"]
        return kind, f"{status}: redirects to {location}, which is not followed"
    if kind is InvalidInputError and status == 400:
        kind = BadResponseError  # TensorFlow Serving says in JSON what is invalid
    return kind, f"{status}: {response.reason}"
