"""Where a server's messages and its access log go."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from keras_cifar.serve.access_log import access_log


@contextmanager
def logging_to(access_path: str | None) -> Iterator[None]:
    """Sends what the server has to say to stderr, and a line of JSON a request to a file.

    Args:
        access_path: of that file, to which is appended; "-" for stderr, None for nowhere.

    Raises:
        OSError: it cannot be written.
    """
    messages = logging.StreamHandler()
    messages.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    http = logging.getLogger("uvicorn")
    handlers: dict[logging.Logger, logging.Handler] = {
        logging.getLogger("keras_cifar.serve"): messages,
        http: messages,
    }
    if access_path is not None:
        handlers[access_log] = (
            logging.StreamHandler() if access_path == "-" else logging.FileHandler(access_path)
        )
    for logger, handler in handlers.items():
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    http.setLevel(logging.ERROR)  # its warnings are of what clients sent, and they are told
    access_log.disabled = access_path is None
    try:
        yield
    finally:
        for logger, handler in handlers.items():
            logger.removeHandler(handler)
            handler.close()
