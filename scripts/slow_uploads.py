"""Sends a server large bodies slowly, hundreds at a time, and looks whether it bears that.

    pip install '.[serve]'
    python scripts/slow_uploads.py models/cifar10 --uploads 500 --mebibytes 60 --seconds 60

Each upload sends 256 KiB every half second; one that is refused begins anew. Meanwhile, two clients
ask for a prediction and for the versions. It ends with exit code 1 if the server needed more than
1.5 GB, or if one of the two was refused or waited for over a second.
"""

import asyncio
import resource
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import click
from shared.serve_load import running_server

from keras_cifar.serving import MODEL_NAME

PIECE = bytes(2**18)
PAUSE_SECONDS = 0.5
MAX_GIGABYTES = 1.5
MAX_SECONDS = 1.0
PREDICT = f"POST /v1/models/{MODEL_NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: "
ROW = b"[" + b",".join([b"[0,0,0]"] * 32) + b"]"
IMAGE = b'{"instances": [[' + b",".join([ROW] * 32) + b"]]}"
QUESTIONS = (
    f"{PREDICT}{len(IMAGE)}\r\n\r\n".encode() + IMAGE,
    f"GET /v1/models/{MODEL_NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
)


@dataclass
class Seen:
    """What came of it."""

    uploads: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


async def upload(port: int, size: int, seen: Seen) -> None:
    """Uploads slowly, again and again."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{PREDICT}{size}\r\n\r\n".encode())
            answer = asyncio.create_task(reader.read(12))
            for _ in range(0, size, len(PIECE)):
                if answer.done():
                    break
                writer.write(PIECE)
                await writer.drain()
                await asyncio.sleep(PAUSE_SECONDS)
            seen.uploads[(await answer)[9:].decode() or "closed"] += 1
            writer.close()


async def ask(port: int, question: bytes, seen: Seen) -> None:
    """Asks again and again, each time over a new connection."""
    while True:
        started = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(question)
        status = (await reader.read(12))[9:].decode()
        seen.slowest = max(seen.slowest, time.perf_counter() - started)
        seen.answers[status] += 1
        writer.close()
        await asyncio.sleep(0.05)


async def press(port: int, *, uploads: int, size: int, seconds: float) -> Seen:
    """Does all of it for a time."""
    seen = Seen()
    tasks = [asyncio.create_task(upload(port, size, seen)) for _ in range(uploads)]
    tasks += [asyncio.create_task(ask(port, question, seen)) for question in QUESTIONS]
    done, _ = await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()  # raises
    return seen


def most_memory(pid: int) -> float:
    """Returns the gigabytes that a process had at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9


@click.command()
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option("--uploads", default=500, show_default=True, help="At a time.")
@click.option("--mebibytes", default=60, show_default=True, help="Of an upload.")
@click.option("--seconds", default=60.0, show_default=True)
def main(model_dir: Path, uploads: int, mebibytes: int, seconds: float) -> None:
    """Runs a server and uploads."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(model_dir, log=Path(folder) / "server.log") as server,
    ):
        before = most_memory(server.process.pid)
        seen = asyncio.run(
            press(server.rest_port, uploads=uploads, size=mebibytes * 2**20, seconds=seconds)
        )
        memory = most_memory(server.process.pid)
    print(f"{uploads} uploads of {mebibytes} MiB at a time, for {seconds:g} s")
    print(f"memory at most: {memory:.2f} GB, {before:.2f} GB before")
    print(f"uploads by their end: {dict(seen.uploads)}")
    print(f"others' answers: {dict(seen.answers)}, the slowest after {seen.slowest:.2f} s")
    is_well = memory < MAX_GIGABYTES and seen.slowest < MAX_SECONDS and set(seen.answers) == {"200"}
    sys.exit(not is_well)


if __name__ == "__main__":
    main()
