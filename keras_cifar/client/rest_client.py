"""The client of TensorFlow Serving's REST API. It needs no TensorFlow."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np
import numpy.typing as npt
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from urllib3.exceptions import LocationParseError

from keras_cifar.client.http_errors import answer_fault, request_fault
from keras_cifar.client.proxies import rest_proxy
from keras_cifar.client.server_client import (
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    MAX_ANSWER_BYTES,
    MAX_ATTEMPTS,
    ServerClient,
    VersionStatus,
)
from keras_cifar.client.server_errors import BadResponseError, ServerUnavailableError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse  # which urllib3 1.26 calls otherwise

# A connection comes about at once or not at all; a dead address is tried MAX_ATTEMPTS times.
_CONNECT_SECONDS = 5


class _Retry(Retry):
    """Waits no longer than LONGEST_WAIT_SECONDS, whatever the server says."""

    def get_retry_after(self, response: "BaseHTTPResponse") -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, LONGEST_WAIT_SECONDS)


# What may have reached the server (read, other) is not sent again.
_RETRY = _Retry(
    total=MAX_ATTEMPTS - 1,
    read=False,
    other=0,
    redirect=0,
    allowed_methods={"POST"},
    status_forcelist={503},
    backoff_factor=FIRST_WAIT_SECONDS / 2,
    raise_on_status=False,
)


@dataclass(eq=False)
class RestClient(ServerClient):
    """Asks by REST; see `ServerClient` for the settings.

    `address` is a URL: http://HOST:8501, https://HOST, or with a path where a proxy has put the
    server. `timeout_seconds` is the longest silence: before the answer, and within it.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.address = _checked_url(self.address)
        if self.ca_certificate and not self.address.startswith("https:"):
            raise ValueError(
                f"ca_certificate: got {self.ca_certificate}, expected none without https."
            )
        self._base = f"{self.address}/v1/models/{quote(self.model_name, safe='')}"
        self._url = self._base
        if self.version is not None:
            self._url += f"/versions/{self.version}"
        if self.label is not None:
            self._url += f"/labels/{quote(self.label, safe='')}"
        self._proxy = rest_proxy(self.address)
        self._session = requests.Session()
        # Not followed, a redirect is still prepared, which reads all of it and trips over bad ones.
        self._session.get_redirect_target = lambda _: None
        self._session.auth = _bearer(self.token) if self.token else None
        self._session.mount(f"{self._url}:predict", HTTPAdapter(max_retries=_RETRY))

    def close(self) -> None:
        """Closes the connection."""
        self._session.close()

    def _status(self) -> list[VersionStatus]:
        url = self._base if self.version is None else self._url
        document = self._send("GET", url)
        try:
            return [
                VersionStatus(
                    int(version["version"]), version["state"], version["status"]["error_message"]
                )
                for version in document["model_version_status"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise self._error(BadResponseError, f"its status is {document}") from error

    def _metadata(self, *, timeout_seconds: float) -> dict[str, Any]:
        document = self._send("GET", f"{self._url}/metadata", timeout_seconds=timeout_seconds)
        if "metadata" not in document:
            raise self._error(BadResponseError, f"its metadata are {document}")
        return document

    def _probabilities(
        self, signature: str, images: list[bytes] | npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.float64]:
        body = {"signature_name": signature, "instances": _as_json(images)}
        document = self._send("POST", f"{self._url}:predict", body=body)
        try:
            probabilities = _numbers([row["probabilities"] for row in document["predictions"]])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise self._error(
                BadResponseError, f"10 probabilities for each image expected, got {document}"
            ) from error
        self._check_shape(probabilities.shape, images=len(images))
        return probabilities

    def _send(
        self,
        method: str,
        url: str,
        *,
        timeout_seconds: float | None = None,
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Returns the JSON object that a request is answered with."""
        seconds = timeout_seconds or self.timeout_seconds
        timeouts = min(_CONNECT_SECONDS, seconds), seconds
        try:
            with self._session.request(
                method,
                url,
                json=body,
                timeout=timeouts,
                # Nothing given would leave it to the environment, which may proxy this machine.
                proxies=_proxies(self._proxy),
                # Here, as the session's own would give way to REQUESTS_CA_BUNDLE.
                verify=str(self.ca_certificate) if self.ca_certificate else True,
                # Wherever they lead, it is not what the user named; nor would it get the token.
                allow_redirects=False,
                stream=True,
            ) as response:
                content = self._read(response)
        except requests.RequestException as error:
            raise self._error(*request_fault(error, timeouts=timeouts)) from error
        except LocationParseError as error:  # of the proxy's address; requests lets it through
            raise self._error(ServerUnavailableError, str(error)) from error
        document = _json_document(content)
        if response.status_code != requests.codes.ok:
            raise self._error(*answer_fault(response, document=document))
        if not isinstance(document, dict):
            start = content[:50].decode(errors="replace")
            raise self._error(BadResponseError, f"no JSON object, but {start!r}")
        return document

    def _read(self, response: requests.Response) -> bytes:
        """Returns the body, unpacked; raises BadResponseError if it is without end."""
        content = bytearray()
        for part in response.iter_content(chunk_size=1 << 20):
            content += part
            if len(content) > MAX_ANSWER_BYTES:
                raise self._error(
                    BadResponseError, f"an answer of more than {MAX_ANSWER_BYTES:,} bytes"
                )
        return bytes(content)


def _proxies(proxy: str | None) -> dict[str, str]:
    return {"no_proxy": "*"} if proxy is None else {"http": proxy, "https": proxy}


def _json_document(content: bytes) -> Any:
    """Returns the document, in which TensorFlow Serving may write NaN; None if it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _checked_url(url: str) -> str:
    """Returns the URL as it is asked, without a slash at its end."""
    expected = "expected http://HOST:PORT or https://HOST:PORT"
    try:
        asked = requests.Request("GET", url).prepare().url or ""
        parts = urlsplit(asked)
        (parts.hostname or "").encode("idna")  # as it is done to connect, outside of all errors
        usable = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:  # of requests, of urlsplit, of a port or a host that is none
        usable = False
    if not usable:
        raise ValueError(f"address: got {url!r}, {expected}.")
    if parts.username is not None:
        raise ValueError(f"address: got one with a user name, {expected} alone.")
    if parts.query or parts.fragment or "/v1/models" in parts.path:
        raise ValueError(f"address: got {url!r}, {expected} alone.")
    return asked.rstrip("/")


def _bearer(token: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    # Not as a session's header, which would give way to ~/.netrc.
    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return sign


def _as_json(images: list[bytes] | npt.NDArray[np.uint8]) -> list[Any]:
    if isinstance(images, np.ndarray):
        return list(images.tolist())
    return [{"b64": base64.b64encode(image).decode()} for image in images]


def _numbers(rows: list[list[float]]) -> npt.NDArray[np.float64]:
    # NumPy would make numbers of texts and of true and false.
    if not all(type(value) in (float, int) for row in rows for value in row):
        raise TypeError("not numbers")
    return np.array(rows, dtype=np.float64)
