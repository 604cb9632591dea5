"""Polls a model directory as a server does, while exports come into it, some of them killed.

    python scripts/poll_exports.py runs/RUN --exports 20

The directory is listed 100 times a second. Whatever looks like a version is loaded at once by the
loader that TensorFlow Serving uses; at the end it must still hold what it held at first sight.
"""

import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import click

from keras_cifar.model_dir import versions
from keras_cifar.start import start_tensorflow

start_tensorflow()

from keras_cifar.export import saved_model  # noqa: E402

POLL_SECONDS = 0.01


class Poller(threading.Thread):
    """Lists a model directory and keeps what each version held when it was first seen."""

    def __init__(self, model_dir: Path) -> None:
        super().__init__()
        self.model_dir = model_dir
        self.first_sight: dict[Path, dict[str, int]] = {}
        self.broken: list[str] = []
        self.polls = 0
        self.ending = threading.Event()

    def run(self) -> None:
        """Polls until `ending` is set, and once more: what came last may have found it busy."""
        is_last = False
        while not is_last:
            is_last = self.ending.wait(POLL_SECONDS)
            self.polls += 1
            for version in versions(self.model_dir).values():
                if version not in self.first_sight:
                    self.first_sight[version] = contents(version)
                    self.load(version)

    def load(self, version: Path) -> None:
        """Loads a version as a server would."""
        try:
            saved_model.probabilities(version, [])
        except Exception as error:
            self.broken.append(f"{version}: {error!r}")


def contents(folder: Path) -> dict[str, int]:
    """Returns the size of every file in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option("--exports", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the moments of the kills.")
@click.option("--work-dir", type=click.Path(path_type=Path), help="[default: a temporary folder]")
def main(run: Path, exports: int, seed: int, work_dir: Path | None) -> None:
    """Exports in turn, kills every second one, and reports what the poller saw."""
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=work_dir) as folder:
        model_dir = Path(folder) / "models"
        poller = Poller(model_dir)
        poller.start()
        killed, whole = 0, 10.0
        for number in range(exports):
            started = time.monotonic()
            command = [sys.executable, "-m", "keras_cifar", "export", str(run), str(model_dir)]
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            try:
                # Every second one: at any moment from its start to its end.
                process.wait(moments.uniform(0, whole) if number % 2 else None)
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
            _, errors = process.communicate()
            if process.returncode > 0:
                raise click.ClickException(errors)
            if process.returncode == 0:
                whole = time.monotonic() - started
        time.sleep(1)
        poller.ending.set()
        poller.join()
        changed = [str(v) for v, seen in poller.first_sight.items() if contents(v) != seen]
        print(
            f"{exports} exports, {killed} killed; {poller.polls:,} polls saw "
            f"{len(poller.first_sight)} versions"
        )
        # A kill after the last step has hit an export whose version is there.
        present = set(versions(model_dir).values())
        unseen = present != set(poller.first_sight) or len(present) < exports - killed
        if poller.broken or changed or unseen:
            raise click.ClickException("\n".join([*poller.broken, *changed]) or "some never came")
    print("each one whole from its first sight to the end")


if __name__ == "__main__":
    main()
