"""What is kept of each request: a line of the access log, and its part in the metrics."""

import json
import logging
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone

from grpc import StatusCode

from keras_cifar.serve.prometheus import Metrics

access_log = logging.getLogger("keras_cifar.access")


@dataclass
class Record:
    """A request, noted down while it is answered.

    Attributes:
        entrypoint: "REST" or "GRPC".
        call: the request line, or the name of the procedure.
        api: "Predict" and the like, for inference; else empty.
        model: the name of a model that is loaded, and answers; else empty.
        code: the outcome.
        status: the outcome as the client sees it, where that is another one.
    """

    entrypoint: str
    call: str
    peer: str
    api: str = ""
    model: str = ""
    version: int | None = None
    examples: int = 0
    request_bytes: int = 0
    code: StatusCode = StatusCode.OK
    status: int | None = None
    started: float = field(default_factory=time.perf_counter)

    def close(self, metrics: Metrics) -> None:
        """Writes the log's line and counts the request."""
        seconds = time.perf_counter() - self.started
        access_log.info("%s", json.dumps(self._line(seconds)))
        if not (self.api and self.model):
            return
        if self.code is StatusCode.OK:
            metrics.answered(
                self.model,
                api=self.api,
                entrypoint=self.entrypoint,
                microseconds=1e6 * seconds,
                examples=self.examples,
            )
        else:
            metrics.failed(self.model, self.code)

    def _line(self, seconds: float) -> dict[str, object]:
        line = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "peer": self.peer,
            "call": self.call,
            "status": self.status or self.code.name,
            "milliseconds": round(1e3 * seconds, 2),
            "request_bytes": self.request_bytes,
        }
        if self.model:
            line |= {"model": self.model, "version": self.version, "examples": self.examples}
        return line
