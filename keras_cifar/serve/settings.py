"""How a server is to be run, and how much one request may ask of it."""

import hmac
from dataclasses import dataclass, field
from pathlib import Path

from keras_cifar.serving import MODEL_NAME, is_token


@dataclass(frozen=True)
class Limits:
    """Beyond these, a request is refused before it can exhaust the machine.

    Attributes:
        body_bytes: of a request, unpacked; of each of its tensors too.
        pixels: that an encoded image claims. A decoder needs about 15 bytes for each.
        seconds: until a request over REST must have its answer.
        requests: at work or waiting at the same time.
        total_bytes: that all requests together may hold, at least twice `body_bytes`: what has come
            of them, and what they are unpacked to.
    """

    body_bytes: int = 64 * 2**20
    pixels: int = 50_000_000
    seconds: float = 30.0
    requests: int = 256
    total_bytes: int = 512 * 2**20

    def __post_init__(self) -> None:
        """Checks what belongs together."""
        if self.total_bytes < 2 * self.body_bytes:
            raise ValueError(
                f"total_bytes: got {self.total_bytes}, expected at least twice --max-body-bytes, "
                f"{2 * self.body_bytes}."
            )

    @property
    def values(self) -> int:
        """How many values a request may have: each takes many times its size, and its time."""
        return max(2**20, self.body_bytes // 64)

    @property
    def arrivals(self) -> int:
        """How many messages may arrive over gRPC at a time: gRPC tells only when one is there."""
        return max(1, self.total_bytes // 2 // self.body_bytes)

    @property
    def held_bytes(self) -> int:
        """What all other requests may hold."""
        return self.total_bytes - self.arrivals * self.body_bytes


@dataclass(frozen=True)
class Settings:
    """What the user may choose of a server.

    Attributes:
        model_dir: holds the versions of one model; None where `models_config` names the models.
        model_name: what clients ask for, with `model_dir`.
        models_config: TensorFlow Serving's file of that name.
        models_config_poll_seconds: between two looks at that file; 0 for one look, at the start.
        poll_seconds: between two looks at the models' folders.
        labels_may_wait: whether a new label may name a version that is not loaded.
        batching_parameters: TensorFlow Serving's file of that name; None for what `deploy` writes.
        monitoring_config: TensorFlow Serving's file of that name; None for metrics at its path.
        host: address to listen at.
        rest_port: 0 for any that is free.
        grpc_port: the same.
        grpc_socket: path of a Unix socket for gRPC as well.
        ssl_certificate: PEM file for both ports; with `ssl_key`, for TLS.
        ssl_key: PEM file.
        token: that requests must bear.
        cors: whether pages of other origins may read the answers.
        access_log: file for a line of JSON for each request; "-" for stderr, None for nowhere.
        limits: of a request.
    """

    model_dir: Path | None = None
    model_name: str = MODEL_NAME
    models_config: Path | None = None
    models_config_poll_seconds: float = 0.0
    poll_seconds: float = 1.0
    labels_may_wait: bool = False
    batching_parameters: Path | None = None
    monitoring_config: Path | None = None
    host: str = "127.0.0.1"
    rest_port: int = 8501
    grpc_port: int = 8500
    grpc_socket: Path | None = None
    ssl_certificate: Path | None = None
    ssl_key: Path | None = None
    token: str | None = field(default=None, repr=False)
    cors: bool = False
    access_log: str | None = "-"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Checks what belongs together."""
        if (self.model_dir is None) == (self.models_config is None):
            raise ValueError("model_dir: expected one, or --models-config in its place.")
        if (self.ssl_certificate is None) != (self.ssl_key is None):
            raise ValueError("ssl_certificate: expected with --ssl-key, or neither of the two.")
        try:
            self.host.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"host: got {self.host!r}, expected a name or an address.") from error
        if self.token is not None and not is_token(self.token):
            raise ValueError("token: expected letters, digits and signs of ASCII, and no space.")


def bears_token(authorization: str, *, token: str | None) -> bool:
    """Returns whether a request's header has the token; where there is none, any header does."""
    return token is None or hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())


def address(host: str, port: int) -> str:
    """Returns "host:port", with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
