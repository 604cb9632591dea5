"""Faults of the code itself: the suite must notice each of them."""

import importlib
import inspect
from types import FunctionType
from typing import Any, NamedTuple


class Mutation(NamedTuple):
    """A change of the code that takes a protection out.

    Attributes:
        name: what is out.
        module: that is changed.
        old: the text that is replaced; it stands there once.
        new: the text in its place.
        command: that is to show it.
        fault: that is to show it.
        is_whole: whether it leaves each file whole, so that only going on shows it.
    """

    name: str
    module: str
    old: str
    new: str
    command: str
    fault: str = "power"
    is_whole: bool = False


_FILES, _CHECKPOINT = "keras_cifar.files", "keras_cifar.train.checkpoint"
_MODEL_DIR, _FOLDER = "keras_cifar.model_dir", "keras_cifar.data.tfds_folder"
_CALLBACKS = "keras_cifar.train.callbacks"
_FAST, _ARTICLE = "train fast94", "train article"
_STATE = "[*model.variables, *model.optimizer.variables]"
_COPIED = '__import__("shutil").copytree({}, {})'
MUTATIONS = (
    Mutation(
        "the rename of a file",
        _FILES,
        "temporary.replace(path)",
        "path.write_bytes(temporary.read_bytes())",
        _FAST,
    ),
    Mutation("the sync of a file", _FILES, "sync(temporary)", "pass", _FAST),
    Mutation("the sync of a file's folder", _FILES, "sync(path.parent)", "pass", _FAST),
    Mutation(
        "the removal of what is unfinished",
        _FILES,
        'in folder.glob(f"{TEMPORARY}*")',
        "in ()",
        _FAST,
    ),
    Mutation(
        "the lock of a run",
        _FILES,
        "fcntl.flock(file, operation)",
        "pass",
        _FAST,
        fault="two",
    ),
    Mutation(
        "the checksum of a checkpoint",
        _CHECKPOINT,
        "if hashlib.sha256(archive).digest() != digest:",
        "if not digest:",
        _FAST,
        fault="damage",
    ),
    Mutation(
        "the optimiser's state",
        _CHECKPOINT,
        _STATE,
        "[*model.variables]",
        _FAST,
        is_whole=True,
    ),
    Mutation(
        "the dropout generators' state",
        _CHECKPOINT,
        _STATE,
        "[*model.weights, *model.optimizer.variables]",
        _ARTICLE,
        is_whole=True,
    ),
    Mutation(
        "the rename before checkpoints are removed",
        _CHECKPOINT,
        "folder.rename(gone)",
        "gone = folder",
        _FAST,
    ),
    Mutation(
        "the sync after that",
        _CHECKPOINT,
        "remove_path(gone)\n    sync(gone.parent)",
        "remove_path(gone)",
        _FAST,
    ),
    Mutation(
        "the order of model and checkpoint",
        _CALLBACKS,
        'if self._is_best(row["val_accuracy"]):',
        "checkpoint.save(self.run_dir.checkpoint, model=self.model, progress=self.progress)\n"
        '        if self._is_best(row["val_accuracy"]):',
        _FAST,
        is_whole=True,
    ),
    Mutation(
        "the rename of metrics.json",
        _FILES,
        "with replacing(path) as temporary:",
        "for temporary in [path]:",
        "evaluate",
    ),
    Mutation("the sync of a version", _MODEL_DIR, "sync_tree(folder)", "pass", "export"),
    Mutation(
        "the rename of a version",
        _MODEL_DIR,
        "folder.rename(target)",
        _COPIED.format("folder", "target"),
        "export",
    ),
    Mutation("the sync of a version's name", _MODEL_DIR, "sync(target.parent)", "pass", "export"),
    Mutation("the sync of a dataset", _FOLDER, "sync_tree(unfinished)", "pass", "data"),
    Mutation(
        "the rename of a dataset",
        _FOLDER,
        "unfinished.replace(folder)",
        _COPIED.format("unfinished", "folder"),
        "data",
    ),
)


def apply(mutation: Mutation) -> None:
    """Changes the code of this process, wherever its functions have been imported to."""
    module = importlib.import_module(mutation.module)
    source = inspect.getsource(module)
    if source.count(mutation.old) != 1:
        raise ValueError(f"{mutation.module}: expected once, got otherwise: {mutation.old}")
    names = vars(module).copy()
    exec(compile(source.replace(mutation.old, mutation.new), module.__name__, "exec"), names)
    for name, changed in names.items():
        _transplant(vars(module).get(name), changed, module=module.__name__)


def _transplant(live: Any, changed: Any, *, module: str) -> None:
    """Gives a function that is in use the code of its changed self."""
    if getattr(live, "__module__", None) != module:
        return
    if isinstance(live, FunctionType):
        inspect.unwrap(live).__code__ = inspect.unwrap(changed).__code__
    elif isinstance(live, type):
        for name, method in vars(live).items():
            if isinstance(method, FunctionType):
                _transplant(method, vars(changed)[name], module=module)
