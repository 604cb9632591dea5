"""Fuzzes one target in a process of its own, by libFuzzer; scripts/fuzz.py starts it.

    python -m fuzzing.process TARGET SCRATCH CORPUS FINDINGS [options of libFuzzer]

What goes wrong in Python is kept in FINDINGS, and fuzzing goes on. libFuzzer itself notices what
ends the process or never ends.
"""

import gc
import hashlib
import sys
import traceback
from pathlib import Path
from random import Random
from types import FunctionType

import atheris

# Atheris never frees what a comparison returns: there a tensor, and with it a model's whole graph,
# 24 MB for each that is loaded (atheris 3.0, November 2026).
_LOADS_MODELS = "keras_cifar.serve.models.servable"

with atheris.instrument_imports(include=["keras_cifar"], exclude=[_LOADS_MODELS]):
    from keras_cifar.start import start_tensorflow

    start_tensorflow()

    from fuzzing.mutations import json_mutated
    from fuzzing.table import TARGETS
    from fuzzing.target import bounded

# Parsers of others, whose coverage guides as well. C and C++ are not instrumented.
_LIBRARIES = {
    *("csv", "gzip", "json.decoder", "tarfile", "zipfile"),
    *("google.protobuf.json_format", "google.protobuf.text_format"),
    *("keras.src.saving.saving_lib", "keras.src.saving.serialization_lib"),
    *("numpy.lib._format_impl", "numpy.lib._npyio_impl", "numpy.lib.format", "numpy.lib.npyio"),
    *("tensorflow_datasets.core.dataset_info", "tensorflow_datasets.core.splits"),
    *(
        "tensorflow_datasets.core.features.feature",
        "tensorflow_datasets.core.features.image_feature",
    ),
}


def main(name: str, scratch: Path, corpus: Path, findings: Path, options: list[str]) -> None:
    """Fuzzes until libFuzzer's options say that it is enough; does not return."""
    target = TARGETS[name](scratch)
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and function.__module__ in _LIBRARIES:
            atheris.instrument_func(function)
    for seed in target.seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    check = bounded(target)

    def keeping(content: bytes) -> None:
        try:
            check(content)
        except Exception as error:
            keep(content, error, folder=findings)

    atheris.Setup([sys.argv[0], *options, str(corpus)], keeping, custom_mutator=mutate)
    atheris.Fuzz()


def mutate(content: bytes, max_size: int, seed: int) -> bytes:
    """Changes a value of JSON half of the time, else what libFuzzer likes."""
    changed = json_mutated(content, Random(seed))
    return changed[:max_size] if changed else bytes(atheris.Mutate(content, max_size))


def keep(content: bytes, error: Exception, *, folder: Path) -> None:
    """Writes down an input and its traceback, the shortest for each place in the code."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    path = folder / f"{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
    if not path.exists() or path.stat().st_size > len(content):
        path.write_bytes(content)
        path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)))


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:5]), sys.argv[5:])
