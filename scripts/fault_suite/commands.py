"""The commands under test, what they leave when they are left alone, and how they go on."""

import functools
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fault_suite import calls, disk
from fault_suite.calls import AtCall, Call, Ended
from fault_suite.digests import digest, digests, state_key
from fault_suite.disk import State, is_unfinished
from fault_suite.mutations import Mutation, apply

from keras_cifar.cifar10 import CLASS_NAMES, DATASETS, SAMPLE, DatasetFacts, SplitFacts

# The number of the call that comes after the last.
END = 0
# Of each class of the sample. Half of them are a step, which is an epoch.
IMAGES_OF_A_CLASS = 4
EPOCHS = 3


@dataclass
class Command:
    """A command of keras-cifar in a folder.

    Attributes:
        name: in the table.
        arguments: that begin it.
        again: that go on after a fault.
        rival: of a second process, which comes while the first is at work.
        is_alone: whether the second is to be refused.
        cleans_up: whether it removes what a killed one left unfinished. It cannot be where another
            command may be at work on the same folder: a run is evaluated while it trains.
        initial: what lies in the folder before.
        whole: the digests that a file may have, by its path, as the unbroken run showed.
        end: the digest of each file when it was left alone.
        folders: that were there then.
        calls: that change the disk.
        cuts: what a power cut before each of them would leave, every state once.
    """

    name: str
    arguments: tuple[str, ...]
    again: tuple[str, ...]
    rival: tuple[str, ...]
    is_alone: bool = False
    cleans_up: bool = True
    initial: State = field(default_factory=dict)
    whole: dict[Path, set[str]] = field(default_factory=dict)
    end: dict[Path, str] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=set)
    calls: list[Call] = field(default_factory=list)
    cuts: list[tuple[Call, disk.PowerCut]] = field(default_factory=list)


class Workshop:
    """A folder for the commands, and the data that they read.

    Attributes:
        path: of the folder.
        data_dir: with the dataset "tiny".
        archive: that "tiny" can be prepared from.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.data_dir = self.path / "tensorflow_datasets"
        self.archive = self.path / "archive"

    def run(
        self,
        *arguments: str,
        state: State,
        at_call: AtCall | None = None,
        mutation: Mutation | None = None,
        before: Callable[[], object] = lambda: None,
    ) -> Ended:
        """Runs keras-cifar on a state, and leaves what it made in `folder`.

        Args:
            arguments: of keras-cifar.
            state: what lies in the folder before.
            at_call: as `calls.run` takes it.
            mutation: of the code that runs; None for the code as it is.
            before: what the process does first.
        """
        disk.write(disk.emptied(self.folder), state)
        return self.go_on(*arguments, at_call=at_call, mutation=mutation, before=before)

    def go_on(
        self,
        *arguments: str,
        at_call: AtCall | None = None,
        mutation: Mutation | None = None,
        before: Callable[[], object] = lambda: None,
    ) -> Ended:
        """Runs keras-cifar on what is in `folder`."""
        work = functools.partial(_work, arguments, mutation, before)
        return calls.run(work, folder=self.folder, output=self.path / "output", at_call=at_call)

    def fork(self, *arguments: str, output: Path, mutation: Mutation | None = None) -> int:
        """Starts keras-cifar on what is in `folder`; returns its process id."""
        work = functools.partial(_work, arguments, mutation, lambda: None)
        return calls.fork(work, folder=self.folder, output=output)

    @property
    def folder(self) -> Path:
        """Where the commands run."""
        return self.path / "folder"

    def make_data(self) -> None:
        """Makes the dataset "tiny" of the packaged sample, and has this process know it."""
        disk.emptied(self.data_dir)
        facts = self.path / "facts.json"
        ended = calls.run(
            functools.partial(_make_tiny, self.data_dir, self.archive, facts),
            folder=self.path,
            output=self.path / "output",
        )
        if ended.code:
            raise RuntimeError(ended.output)
        DATASETS["tiny"] = _facts(*json.loads(facts.read_text()))


def _work(
    arguments: tuple[str, ...], mutation: Mutation | None, before: Callable[[], object]
) -> None:
    """Does what the command does."""
    import tensorflow as tf

    from keras_cifar.cli import main

    before()
    if mutation:
        apply(mutation)
    if arguments[0] == "train":
        # To trace its functions takes longer than to run them step by step.
        tf.config.run_functions_eagerly(True)  # noqa: FBT003
    # A shell lets what it starts with "&" ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(list(arguments), prog_name="keras-cifar")


def _make_tiny(data_dir: Path, archive: Path, facts: Path) -> None:
    """Writes a few images of the sample as a dataset and as an archive; tells what they are."""
    from keras_cifar.data.examples import Splits, in_canonical_order
    from keras_cifar.data.prepare import load
    from keras_cifar.data.tfds_folder import write_folder

    sample = load(SAMPLE, split="train", data_dir=None)
    chosen = [
        np.flatnonzero(sample.labels == label)[:IMAGES_OF_A_CLASS]
        for label in range(len(CLASS_NAMES))
    ]
    examples, sha256 = in_canonical_order(sample.take(np.concatenate(chosen)))
    described = [len(examples.labels), sha256]
    tiny = _facts(*described)
    write_folder(Splits(examples, examples), dataset=tiny, data_dir=data_dir, id_prefix="")
    planes = examples.images.transpose(0, 3, 1, 2).reshape(len(examples.labels), -1)
    records = np.concatenate([examples.labels.astype(np.uint8)[:, None], planes], axis=1)
    archive.mkdir()
    for number, part in enumerate(np.split(records, 5), start=1):
        (archive / f"data_batch_{number}.bin").write_bytes(part.tobytes())
    (archive / "test_batch.bin").write_bytes(records.tobytes())
    facts.write_text(json.dumps(described))


def _facts(examples: int, sha256: str) -> DatasetFacts:
    split = SplitFacts(examples, sha256)
    return DatasetFacts("cifar10_tiny", "1.0.0", train=split, test=split)


def train(workshop: Workshop, recipe: str) -> Command:
    """Returns a training run from nothing."""
    settings = {"recipe": recipe, "dataset": "tiny", "epochs": EPOCHS, "batch-size": 20}
    settings |= {"validation-fraction": 0.5, "precision": "float32"}
    # What `accelerate` puts in must be traced, which takes longer than all the rest.
    options = [*(f"--{name}={value}" for name, value in settings.items()), "--no-accelerate"]
    place = (f"--data-dir={workshop.data_dir}", "--run-dir=run")
    arguments = ("train", *options, *place)
    rival = (*arguments, "--overwrite")
    return Command(
        f"train {recipe}", arguments, ("train", "--resume", *place), rival, is_alone=True
    )


def data(workshop: Workshop) -> Command:
    """Returns a preparation of data from an archive."""
    source = (f"--archive={workshop.archive}", "--validation-fraction=0.5")
    arguments = ("data", "--dataset=tiny", *source, "--data-dir=data")
    return Command("data", arguments, arguments, arguments)


def evaluate(workshop: Workshop, run: State) -> Command:
    """Returns an evaluation of a run that has been evaluated before, on other images."""
    arguments = ("evaluate", "run", f"--data-dir={workshop.data_dir}")
    _succeed(workshop.run(*arguments, "--split=validation", state=run))
    command = _on(workshop, "evaluate", arguments)
    command.cleans_up = False
    return command


def export(workshop: Workshop, run: State) -> Command:
    """Returns an export of a run beside an earlier one."""
    arguments = ("export", "run", "models")
    _succeed(workshop.run(*arguments, state=run))
    return _on(workshop, "export", arguments)


def _on(workshop: Workshop, name: str, arguments: tuple[str, ...]) -> Command:
    """Returns a command on what lies in the folder."""
    initial = disk.read(workshop.folder)
    return Command(name, arguments, arguments, arguments, initial=initial)


def _succeed(ended: Ended) -> None:
    if ended.code:
        raise RuntimeError(ended.output)


def leave_alone(workshop: Workshop, command: Command) -> None:
    """Runs a command and notes what it leaves, and what a power cut before each call would."""
    command.cuts, whole = follow(workshop, command, noted=command.calls)
    state = disk.read(workshop.folder)
    command.end, command.folders = digests(state), _folders(state)
    for path, found in (*digests(command.initial).items(), *command.end.items()):
        whole.setdefault(path, set()).add(found)
    command.whole = whole


def follow(
    workshop: Workshop,
    command: Command,
    *,
    mutation: Mutation | None = None,
    noted: list[Call] | None = None,
) -> tuple[list[tuple[Call, disk.PowerCut]], dict[Path, set[str]]]:
    """Runs a command to its end.

    Args:
        workshop: where.
        command: to run.
        mutation: of its code; None for the code as it is.
        noted: gets the calls; None to drop them.

    Returns:
        What a power cut before each call would leave, every state once; and, by path, the digests
        of what was replaced or removed, which was whole.
    """
    disk.write(disk.emptied(workshop.folder), command.initial)
    follower = disk.Disk(workshop.folder)
    cuts: list[tuple[Call, disk.PowerCut]] = []
    seen: set[frozenset[tuple[Path, str]]] = set()
    whole: dict[Path, set[str]] = {}

    def collect(call: Call) -> None:
        for cut in follower.cuts():
            key = state_key(cut.state)
            if key not in seen:
                seen.add(key)
                cuts.append((call, cut))

    def at_call(call: Call) -> int:
        collect(call)
        _note_whole(whole, call, folder=workshop.folder)
        follower.note(call)
        if noted is not None:
            noted.append(call)
        return calls.GO_ON

    ended = workshop.go_on(*command.arguments, at_call=at_call, mutation=mutation)
    if ended.code:
        raise RuntimeError(ended.output)
    # What the command has said it did must be there after a power cut as well.
    seen.clear()
    collect(Call(END, "its end", (), 0))
    follower.close()
    return cuts, whole


def _note_whole(whole: dict[Path, set[str]], call: Call, *, folder: Path) -> None:
    """Notes what a file is before it is replaced, removed or written anew: whole."""
    if not call.name.startswith(("rename", "unlink", "open", "creat")):
        return
    for path in call.paths:
        for file in (path, *path.rglob("*")):
            inside = file.relative_to(folder)
            if file.is_file() and not is_unfinished(inside):
                whole.setdefault(inside, set()).add(digest(inside, file.read_bytes()))


def half(command: Command, state: State) -> list[str]:
    """Returns which files of a state are neither an old one nor a new one."""
    return [
        str(path)
        for path, found in digests(state).items()
        if found not in command.whole.get(_as_second(path), set())
    ]


def differences(command: Command, state: State) -> list[str]:
    """Returns what is not as after the command that was left alone."""
    found = digests(state)
    # Empty folders that nobody takes for finished may stay.
    left = {path for path, content in state.items() if is_unfinished(path) and content is not None}
    wrong = left if command.cleans_up else set()
    wrong |= {path for path in command.end if path not in found}
    # An export that comes again makes the next version, of the same content.
    wrong |= {path for path in found if found[path] != command.end.get(_as_second(path))}
    # One alone can say something: a run with a folder of checkpoints has not ended.
    wrong |= {path for path in _folders(state) if _as_second(path) not in command.folders}
    return [str(path) for path in sorted(wrong)]


def _folders(state: State) -> set[Path]:
    return {path for path, content in state.items() if content is None and not is_unfinished(path)}


def _as_second(path: Path) -> Path:
    is_version = path.parts[0] == "models" and path.parts[1:2] not in ((), ("1",), ("2",))
    return Path("models", "2", *path.parts[2:]) if is_version else path
