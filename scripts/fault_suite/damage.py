"""Flips a byte, or cuts the end off, in each file that is read again; it must be noticed."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from fault_suite import calls, disk
from fault_suite.commands import Command
from fault_suite.digests import is_whole_checkpoint
from fault_suite.disk import State
from fault_suite.mutations import apply
from fault_suite.suite import LOST, REFUSED, SURVIVED, Result, Suite

from keras_cifar.cifar10 import DATASETS
from keras_cifar.run_dir import RunDir

# In so many places of each file.
PLACES = 50


def damaged(suite: Suite, command: Command) -> Iterator[Result]:
    """Damages each file that the command reads, in a copy of what it would read."""
    if command.name.startswith("train"):
        state = _stopped(command)
        yield from _read_all(suite, command, state, _checkpoints, "run/checkpoint/*.ckpt")
        yield from _settings(suite, command, state)
    elif command.name == "evaluate":
        yield from _read_all(suite, command, command.initial, _model, "run/model.keras")
        prepared = disk.read(suite.workshop.data_dir)
        data = {Path("data") / path: content for path, content in prepared.items()}
        yield from _read_all(suite, command, data, _dataset, "data/*/*/*")


def _stopped(command: Command) -> State:
    """Returns a run as it is when it is killed with two checkpoints and epochs to go."""
    return next(
        cut.state
        for _, cut in command.cuts
        if sum(path.suffix == ".ckpt" and not disk.is_unfinished(path) for path in cut.state) == 2
    )


def _read_all(
    suite: Suite,
    command: Command,
    state: State,
    read: Callable[[Path], object],
    pattern: str,
) -> Iterator[Result]:
    """Reads each damaged file in another process, since reading takes TensorFlow."""
    workshop, found = suite.workshop, suite.workshop.path / "found.json"
    places = min(PLACES, suite.most or PLACES)
    disk.write(disk.emptied(workshop.folder), state)

    def work() -> None:
        if suite.mutation:
            apply(suite.mutation)
        found.write_text(json.dumps(_try_all(read, pattern, places)))

    ended = calls.run(work, folder=workshop.folder, output=workshop.path / "output")
    if ended.code:
        yield Result(command.name, "damage", pattern, LOST, ended.output[-2000:])
        return
    for where, outcome, detail in json.loads(found.read_text()):
        yield Result(command.name, "damage", where, outcome, detail)


def _try_all(
    read: Callable[[Path], object], pattern: str, places: int
) -> list[tuple[str, str, str]]:
    results = []
    for path in sorted(Path().glob(pattern)):
        whole = read(path)
        content = path.read_bytes()
        for where, changed in _damages(content, places=places):
            path.write_bytes(changed)
            results.append((f"{path}: {where}", *_outcome(read, path, whole)))
            path.write_bytes(content)
    return results


def _damages(content: bytes, *, places: int) -> Iterator[tuple[str, bytes]]:
    for number in range(places):
        place = len(content) * number // places
        flipped = bytearray(content)
        flipped[place] ^= 1
        yield f"byte {place} flipped", bytes(flipped)
        yield f"cut to {place} bytes", content[:place]


def _outcome(read: Callable[[Path], object], path: Path, whole: object) -> tuple[str, str]:
    """Tells what came of reading a damaged file: noticed by name, harmless, or lost."""
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            same = read(path) == whole
    except OSError as error:
        if any(name in str(error) for name in (path.name, str(path.parent))):
            return REFUSED, str(error)
        return LOST, f"it does not say which file: {error}"
    except Exception as error:
        return LOST, f"a traceback: {type(error).__name__}: {error}"
    if path.name in said.getvalue():
        return (REFUSED, said.getvalue().strip()) if same else (LOST, "the one before is another")
    return (SURVIVED, "") if same else (LOST, "unnoticed")


def _checkpoints(path: Path) -> object:
    """Returns whether the newest whole checkpoint is taken, and a damaged one never."""
    from keras_cifar.train import checkpoint

    kept = {other: other.read_bytes() for other in path.parent.glob("*.ckpt")}
    newest = checkpoint.load_newest(path.parent)
    removed = [other for other in kept if not other.exists()]
    for other in removed:
        other.write_bytes(kept[other])
    expected = max(set(kept) - set(removed))
    if newest is None:
        return "none is whole"
    if not is_whole_checkpoint(kept[expected]):
        return "a damaged one is taken"
    one = checkpoint.read(expected)
    return newest.progress == one.progress and all(
        np.array_equal(ours, theirs)
        for ours, theirs in zip(newest.variables, one.variables, strict=True)
    )


def _model(path: Path) -> object:
    from keras_cifar.model.load import load_model

    weights = load_model(path).get_weights()
    return [(weight.shape, weight.tobytes()) for weight in weights]


def _dataset(path: Path) -> object:
    from keras_cifar.data.tfds_folder import read_split

    tiny = DATASETS["tiny"]
    splits = [read_split(path.parent, split=split, dataset=tiny) for split in ("train", "test")]
    return [(split.images.tobytes(), split.labels.tobytes()) for split in splits]


def _settings(suite: Suite, command: Command, state: State) -> Iterator[Result]:
    """Damages config.json; where its settings are others then, goes on with it."""
    config = Path("run/config.json")
    content = state[config] or b""
    places = min(PLACES, suite.most or PLACES)
    folder = disk.emptied(suite.workshop.path / "settings")
    run = RunDir(folder / "run")
    disk.write(folder, {config: content})
    whole = run.read_record()
    for where, changed in _damages(content, places=places):
        run.config.write_bytes(changed)
        outcome = REFUSED, ""
        try:
            if run.read_record().settings == whole.settings:
                outcome = SURVIVED, ""
            else:
                outcome = _altered(suite, command, {**state, config: changed})
        except OSError as error:
            if config.name not in str(error):
                outcome = LOST, f"it does not say which file: {error}"
        except Exception as error:
            outcome = LOST, f"a traceback: {type(error).__name__}: {error}"
        yield Result(command.name, "damage", f"{config}: {where}", *outcome)


def _altered(suite: Suite, command: Command, state: State) -> tuple[str, str]:
    """Goes on with a run whose settings are others: only to say so."""
    ended = suite.workshop.run(*command.again, state=state, mutation=suite.mutation)
    if ended.code == 1 and "config.json" in ended.output and "Traceback" not in ended.output:
        return REFUSED, ended.output.strip().splitlines()[-1]
    return LOST, f"unnoticed: {ended.output.strip().splitlines()[-1]}"
