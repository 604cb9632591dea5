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
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
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
    """What the two other clients saw."""

    answers: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


def upload_for(port: int, uploads: int, size: int, seconds: float) -> Counter[str]:
    """Uploads for a time, in a process of its own; returns how uploads ended."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ends: Counter[str] = Counter()

    async def run() -> None:
        tasks = [asyncio.create_task(upload(port, size, ends)) for _ in range(uploads)]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    return ends


async def upload(port: int, size: int, ends: Counter[str]) -> None:
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
            ends[(await answer)[9:].decode() or "closed"] += 1
            writer.close()


async def ask_for(port: int, seconds: float) -> Seen:
    """Asks for a time, each time over a new connection."""
    seen, end = Seen(), time.monotonic() + seconds
    while time.monotonic() < end:
        for question in QUESTIONS:
            started = time.perf_counter()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(question)
            seen.answers[(await reader.read(12))[9:].decode()] += 1
            seen.slowest = max(seen.slowest, time.perf_counter() - started)
            writer.close()
        await asyncio.sleep(0.05)
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
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(model_dir, log=Path(folder) / "server.log") as server,
        ProcessPoolExecutor(mp_context=get_context("spawn")) as pool,
    ):
        before, port = most_memory(server.process.pid), server.rest_port
        ends = pool.submit(upload_for, port, uploads, mebibytes * 2**20, seconds)
        seen = asyncio.run(ask_for(port, seconds))
        uploaded = dict(ends.result())
        memory = most_memory(server.process.pid)
    print(f"{uploads} uploads of {mebibytes} MiB at a time, for {seconds:g} s")
    print(f"memory at most: {memory:.2f} GB, {before:.2f} GB before")
    print(f"uploads by their end: {uploaded}")
    print(f"others' answers: {dict(seen.answers)}, the slowest after {seen.slowest:.2f} s")
    is_well = memory < MAX_GIGABYTES and seen.slowest < MAX_SECONDS and set(seen.answers) == {"200"}
    sys.exit(not is_well)


if __name__ == "__main__":
    main()
