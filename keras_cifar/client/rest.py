"""The client of TensorFlow Serving's REST API. It needs no TensorFlow."""

import base64
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import requests
from requests.adapters import HTTPAdapter

from keras_cifar.client.errors import BadResponseError
from keras_cifar.client.http import (
    CONNECT_SECONDS,
    RETRY,
    answer_fault,
    bearer,
    checked_url,
    json_document,
    request_fault,
)
from keras_cifar.client.server import ServerClient, VersionStatus


@dataclass(eq=False)
class RestClient(ServerClient):
    """Asks by REST; see `ServerClient` for the settings.

    `address` is a URL: http://HOST:8501, https://HOST, or with a path where a proxy has put the
    server. `timeout_seconds` is the longest silence: before the answer, and within it.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.address = checked_url(self.address)
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
        self._session = requests.Session()
        self._session.auth = bearer(self.token) if self.token else None
        self._session.mount(f"{self._url}:predict", HTTPAdapter(max_retries=RETRY))

    def close(self) -> None:
        """Closes the connection."""
        self._session.close()

    def status(self) -> list[VersionStatus]:
        """Returns how the server is doing with the version, or with all versions if none is named.

        TensorFlow Serving does not look at labels here.

        Raises:
            ServerError: the server does not answer, or does not know the model.
        """
        url = self._base if self.version is None else self._url
        document = self._send("GET", url, timeout_seconds=self.timeout_seconds)
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
        document = self._send(
            "POST",
            f"{self._url}:predict",
            timeout_seconds=self.timeout_seconds,
            body={"signature_name": signature, "instances": _as_json(images)},
        )
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
        timeout_seconds: float,
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Returns the JSON object that a request is answered with."""
        try:
            response = self._session.request(
                method,
                url,
                json=body,
                timeout=(min(CONNECT_SECONDS, timeout_seconds), timeout_seconds),
                # Here, as the session's own would give way to REQUESTS_CA_BUNDLE.
                verify=str(self.ca_certificate) if self.ca_certificate else True,
                # Wherever they lead, it is not what the user named; nor would it get the token.
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise self._error(*request_fault(error, timeout_seconds=timeout_seconds)) from error
        document = json_document(response)
        if response.status_code != requests.codes.ok:
            raise self._error(*answer_fault(response, document=document))
        if not isinstance(document, dict):
            raise self._error(BadResponseError, f"no JSON object, but {response.text[:50]!r}")
        return document


def _as_json(images: list[bytes] | npt.NDArray[np.uint8]) -> list[Any]:
    if isinstance(images, np.ndarray):
        return list(images.tolist())
    return [{"b64": base64.b64encode(image).decode()} for image in images]


def _numbers(rows: list[list[float]]) -> npt.NDArray[np.float64]:
    # NumPy would make numbers of texts and of true and false.
    if not all(type(value) in (float, int) for row in rows for value in row):
        raise TypeError("not numbers")
    return np.array(rows, dtype=np.float64)
