"""Image files -> predictions, whoever makes them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from keras_cifar.client.answers import (
    MAX_IMAGE_BYTES,
    Answer,
    Failure,
    Predict,
    Prediction,
    answer_each,
    in_batches,
)
from keras_cifar.client.server_client import ServerClient

# Files that are in memory at once, and their bytes.
_MAX_FILES = 500
_MAX_BYTES = 64 << 20


def predict_files(
    paths: Sequence[Path], *, model: Path | ServerClient
) -> list[Prediction | Failure]:
    """Classifies image files.

    Args:
        paths: PNG, JPEG, BMP, GIF or WebP of any size up to 100 million pixels.
        model: the folder of a run, a .keras file, a model directory with SavedModels (the highest
            version counts), one of its versions, or the client of a server.

    Returns:
        For each path, in their order, a prediction, or why there is none.

    Raises:
        OSError: the model is missing or is none; of a server, `ServerError`.
        FloatingPointError: the model's training had diverged.
    """
    return list(stream_predictions(paths, model=model))


def stream_predictions(
    paths: Iterable[Path | Failure], *, model: Path | ServerClient
) -> Iterator[Prediction | Failure]:
    """Classifies image files while there are more, in no more memory for a million of them.

    Args:
        paths: as for `predict_files`, read as predictions are asked for. A failure, as
            `find_images` may give it, is passed on in its place.
        model: as for `predict_files`; it is loaded with the first prediction.

    Yields:
        As `predict_files` returns and raises.
    """
    if isinstance(model, ServerClient):
        predict: Predict = model.predict
    else:
        # Imported here: it loads TensorFlow, which a server's client has no need of.
        from keras_cifar.client.local_model import local_predict

        predict = local_predict(model)
    for group in in_batches(paths, size=_file_bytes, max_items=_MAX_FILES, max_bytes=_MAX_BYTES):
        answers = answer_each(group, prepare=_read, answer=predict)
        for found, answer in zip(group, answers, strict=True):
            path = found.file if isinstance(found, Failure) else found
            yield (
                Prediction(path, *answer) if isinstance(answer, Answer) else Failure(path, *answer)
            )


def _file_bytes(path: Path | Failure) -> int:
    try:
        return 0 if isinstance(path, Failure) else path.stat().st_size
    except (OSError, ValueError):
        return 0  # reading it will say why


def _read(path: Path | Failure) -> bytes:
    if isinstance(path, Failure):
        raise ValueError(path.reason)
    try:
        with path.open("rb") as file:
            return file.read(MAX_IMAGE_BYTES + 1)  # one more is too many, and will be refused
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
