"""A client of a model server, whichever its protocol: settings, batches, waiting, errors."""

import re
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from keras_cifar.cifar10 import IMAGE_SHAPE, NUM_CLASSES
from keras_cifar.client.answers import (
    Answer,
    Refusal,
    answer_each,
    check_encoded,
    in_batches,
    ranked,
)
from keras_cifar.client.proxies import without_password
from keras_cifar.client.server_errors import (
    BadResponseError,
    InvalidInputError,
    ModelNotFoundError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from keras_cifar.serving import (
    BYTES_SIGNATURE,
    IMAGE_SIGNATURE,
    MAX_SECONDS,
    MODEL_NAME,
    is_token,
)

# How often a request is sent at most; the waits in between double. Long enough for a full queue
# to drain, and too short for anyone to wonder.
MAX_ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 5
# Of encoded images: large enough to keep a server busy, and below the limits of all.
_MAX_REQUEST_BYTES = 8 << 20
# Of an answer, unpacked: several times what a server says of 10,000 images.
MAX_ANSWER_BYTES = 64 << 20
# Of the sum of 10 probabilities, each of which may be rounded to the 8 bits of bfloat16.
_TOLERANCE = 0.05
_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.05, 1
# TensorFlow Serving reports these as invalid arguments, like a damaged image.
_ABOUT_THE_MODEL = re.compile(r"version label|Serving signature|does not match signature")

Client = TypeVar("Client", bound="ServerClient")


class VersionStatus(NamedTuple):
    """How a server is doing with a version of a model.

    Attributes:
        version: its number.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error: why it could not be loaded; empty if nothing is wrong.
    """

    version: int
    state: str
    error: str


@dataclass(eq=False)
class ServerClient(ABC):
    """Asks a server that speaks TensorFlow Serving's protocol for one model.

    A context manager, which closes its connection. Use it from one thread at a time.

    Between it and its server is the proxy that the environment names (HTTP_PROXY and NO_PROXY;
    grpc_proxy), but none where the server is on this machine.

    Requests for predictions that the server did not take (no connection, or it says that it is
    busy) are sent again up to 3 times. Everything a server can do wrong is a `ServerError`.

    Attributes:
        address: of the server.
        model_name: what the server calls the model.
        version: its number; None for the highest that is loaded.
        label: of the version, instead of its number.
        timeout_seconds: longest wait for an answer.
        token: for servers behind a gateway that wants one (Authorization: Bearer).
        ca_certificate: PEM file of the authority that vouches for the server, if not a public one.
        batch_size: most images in a request.
    """

    address: str
    _: KW_ONLY
    model_name: str = MODEL_NAME
    version: int | None = None
    label: str | None = None
    timeout_seconds: float = 30
    token: str | None = field(default=None, repr=False)
    ca_certificate: Path | None = None
    batch_size: int = 32

    def __post_init__(self) -> None:
        self._proxy: str | None = None  # that requests go through
        for name in ("address", "model_name", "label"):
            _check_text(name, getattr(self, name))
        if not self.model_name:
            raise ValueError("model_name: got '', expected what the server calls the model.")
        if self.version is not None and self.label is not None:
            raise ValueError(
                f"label: got {self.label!r} and version {self.version}, expected one of the two."
            )
        if self.version is not None and not 0 <= self.version < 2**63:
            raise ValueError(f"version: got {self.version}, expected 0 or more.")
        if self.label == "":
            raise ValueError("label: got '', expected a label that the server knows.")
        if not 0 < self.timeout_seconds <= MAX_SECONDS:
            raise ValueError(
                f"timeout_seconds: got {self.timeout_seconds}, expected more than 0, and "
                f"{MAX_SECONDS:,} at most."
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size: got {self.batch_size}, expected 1 or more.")
        if self.token is not None and not is_token(self.token):
            raise ValueError("token: got spaces or signs beyond ASCII, expected none.")
        if self.ca_certificate is not None:
            _check_certificate(self.ca_certificate)

    def __enter__(self: Client) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def predict(self, images: Sequence[bytes]) -> list[Answer | Refusal]:
        """Asks about encoded images, as many in a request as fit.

        An image whose header is wrong or claims too much is refused here, and not sent.

        Args:
            images: PNG, JPEG, BMP, GIF or WebP of any size up to 100 million pixels; the server
                crops and scales them.

        Returns:
            For each image, in their order, an answer or a refusal.

        Raises:
            ServerError: the server does not answer, or not for this model.
            FloatingPointError: the model gives numbers that are not finite.
        """

        def answer(sound: list[bytes]) -> list[Answer | Refusal]:
            batches = in_batches(
                sound, size=len, max_items=self.batch_size, max_bytes=_MAX_REQUEST_BYTES
            )
            return [found for batch in batches for found in self._answer_or_halve(batch)]

        return answer_each(images, prepare=_with_sound_header, answer=answer)

    def _answer_or_halve(self, images: list[bytes]) -> list[Answer | Refusal]:
        """Halves a refused request until its bad images are alone, or the server can take it."""
        try:
            return [*self._answers(BYTES_SIGNATURE, images)]
        except InvalidInputError as error:
            if len(images) == 1:
                return [Refusal(str(error))]
        middle = len(images) // 2
        return self._answer_or_halve(images[:middle]) + self._answer_or_halve(images[middle:])

    def predict_pixels(self, images: npt.NDArray[np.uint8]) -> list[Answer]:
        """Asks about images as the model takes them.

        Args:
            images: uint8 (n, 32, 32, 3).

        Raises:
            ServerError: the server does not answer, or not for this model.
            FloatingPointError: the model gives numbers that are not finite.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != IMAGE_SHAPE:
            raise ValueError(
                f"images: got {images.dtype} {images.shape}, expected uint8 (n, 32, 32, 3)."
            )
        batches = (
            images[start : start + self.batch_size]
            for start in range(0, len(images), self.batch_size)
        )
        return [answer for batch in batches for answer in self._answers(IMAGE_SIGNATURE, batch)]

    def _answers(self, signature: str, images: list[bytes] | npt.NDArray[np.uint8]) -> list[Answer]:
        probabilities = self._probabilities(signature, images)
        answers = ranked(probabilities, source=self.address)
        is_wrong = (probabilities < 0).any(1) | (abs(probabilities.sum(1) - 1) > _TOLERANCE)
        if is_wrong.any():
            row = np.array2string(probabilities[is_wrong.argmax()], precision=3)
            raise self._error(BadResponseError, f"10 probabilities expected, got {row}")
        return answers

    def wait_until_available(self, seconds: float) -> None:
        """Returns once the model's version can answer.

        A server that cannot be reached or has not loaded the version is asked again. Waiting ends
        at once where it cannot help: access denied, no trusted connection, no model server.

        Args:
            seconds: longest wait.

        Raises:
            ServerTimeoutError: it cannot answer by then.
            ServerError: it never will.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds: got {seconds}, expected 0 or more.")
        deadline = time.monotonic() + seconds
        pause = _FIRST_POLL_SECONDS
        while True:
            left = max(deadline - time.monotonic(), _FIRST_POLL_SECONDS)
            try:
                self._metadata(timeout_seconds=min(left, self.timeout_seconds))
                return
            except (ServerUnavailableError, ModelNotFoundError, ServerTimeoutError) as error:
                if time.monotonic() + pause > deadline:
                    detail = f"waited {seconds:g} s; at the end: {error.fault}: {error.detail}"
                    raise self._error(ServerTimeoutError, detail) from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_SECONDS)

    def metadata(self) -> dict[str, Any]:
        """Returns the model's version and signatures.

        Returns:
            As TensorFlow Serving's REST API words it: {"model_spec": {"version": ..., ...},
            "metadata": {"signature_def": {"signature_def": {SIGNATURE: {"inputs": ...}}}}}.

        Raises:
            ServerError: the server does not answer, or the model is not loaded.
        """
        return self._metadata(timeout_seconds=self.timeout_seconds)

    def status(self) -> list[VersionStatus]:
        """Returns how the server is doing with the version, or with all versions if none is named.

        TensorFlow Serving does not look at labels here.

        Raises:
            ServerError: the server does not answer, or does not know the model.
        """
        return self._status()

    @abstractmethod
    def close(self) -> None:
        """Closes the connection."""

    @abstractmethod
    def _status(self) -> list[VersionStatus]: ...

    @abstractmethod
    def _metadata(self, *, timeout_seconds: float) -> dict[str, Any]: ...

    @abstractmethod
    def _probabilities(
        self, signature: str, images: list[bytes] | npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.float64]:
        """Returns (n, 10) for n images, which it asks for in one request."""

    def _check_shape(self, shape: tuple[int, ...], *, images: int) -> None:
        if shape != (images, NUM_CLASSES):
            raise self._error(
                BadResponseError, f"probabilities of shape {shape} for {images} images"
            )

    def _error(self, kind: type[ServerError], detail: str) -> ServerError:
        if kind is InvalidInputError and _ABOUT_THE_MODEL.search(detail):
            kind = ModelNotFoundError
        if self._proxy is not None:
            detail = f"through the proxy {without_password(self._proxy)}: {detail}"
        if kind is ModelNotFoundError:
            detail = f"{self.model_name}, {detail}"
        return kind(self.address, detail)


def _with_sound_header(encoded: bytes) -> bytes:
    check_encoded(encoded)
    return encoded


def _check_text(name: str, value: str | None) -> None:
    try:
        (value or "").encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: got {value!r}, expected UTF-8.") from error


def _check_certificate(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Name the authority's certificate, in PEM.")
    try:
        ssl.create_default_context(cafile=str(path))
    except ssl.SSLError as error:
        raise OSError(f"{path}: not a certificate. Name the authority's, in PEM.") from error
