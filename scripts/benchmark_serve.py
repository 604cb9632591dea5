"""Times `keras-cifar serve` beside the SavedModel alone, with clients that ask without a pause.

    pip install '.[serve]'
    python scripts/benchmark_serve.py models/cifar10

Server, model alone and clients have a process each, and share the machine. Just before each turn of
the server the model alone has one, and while one has its turn the others are stopped or wait. The
model alone runs in a session as TensorFlow Serving's does, on pixels in batches of 64 for the rate,
and on what a request holds for the latency. Figures are medians of the rounds, ratios medians of
the rounds' ratios. The images are real ones, and each answer must have the label that the model
alone gives. "us" are microseconds of a core for a request; with the model's own they say where the
rest of the time goes.
"""

import asyncio
import os
import platform
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import click
from shared.serve_connections import Connection, GrpcConnection, RestConnection, connect
from shared.serve_load import (
    Question,
    Server,
    grpc_encoded,
    grpc_pixels,
    load_alone,
    load_images,
    rest_encoded,
    rest_pixels,
    running_server,
)

from keras_cifar.model_dir import versions
from keras_cifar.serving import BYTES_SIGNATURE, IMAGE_SIGNATURE

CLIENTS = (1, 8, 64)
BATCH_SIZE = 64
# Of a request: from most clients, more would be over the 16 batches that a server lets wait.
MOST_IMAGES = 16
# Of a turn of the model alone: for its rate, and as much for its latency.
ALONE_SECONDS = 0.6
# Of a turn of the server, and not counted: connections are made, caches are cold.
WARM_UP_SECONDS = 0.5
# The p99 that is aimed at with one client, in latencies of the model alone.
MOST_LATENCIES = 3.0


@dataclass(frozen=True)
class Way:
    """A way to ask.

    Attributes:
        connection: the protocol.
        question: makes a question of images and their labels.
        signature: that answers.
        least_share: of the rate of the model alone, aimed at with most clients; None for no aim.
    """

    connection: type[Connection]
    question: Callable[[Any, list[str]], Question]
    signature: str
    least_share: float | None = None


WAYS = {
    "REST, encoded images": Way(RestConnection, rest_encoded, BYTES_SIGNATURE, 0.6),
    "REST, pixels": Way(RestConnection, rest_pixels, IMAGE_SIGNATURE),
    "gRPC, encoded images": Way(GrpcConnection, grpc_encoded, BYTES_SIGNATURE),
    "gRPC, pixels": Way(GrpcConnection, grpc_pixels, IMAGE_SIGNATURE, 0.8),
}


@dataclass(frozen=True)
class Alone:
    """A turn of the model alone: images/s in batches, and seconds for what a request holds."""

    rate: float
    latency: float


@dataclass(frozen=True)
class Turn:
    """A turn of the server.

    Attributes:
        rate: images/s; requests/s as long as only the clients have counted.
        p50: seconds from a request to its answer.
        p99: the same.
        requests: in all, those that warmed up as well.
        client_seconds: of a core, that the clients took.
        server_seconds: of a core, that the server took.
    """

    rate: float
    p50: float
    p99: float
    requests: int
    client_seconds: float
    server_seconds: float = 0.0


class Worker:
    """A process that works when it is asked to, and is stopped in between."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def receive(self) -> Any:
        """Returns what the process has to say; stops it then."""
        try:
            found = self.pipe.recv()
        except EOFError:
            raise click.ClickException("a process has failed: see above") from None
        os.kill(self.process.pid, signal.SIGSTOP)
        return found

    def ask(self, *question: Any) -> Any:
        """Has the process work."""
        os.kill(self.process.pid, signal.SIGCONT)
        self.pipe.send(question)
        return self.receive()


def run_alone(pipe: Pipe, path: Path, images_per_request: int) -> None:
    """Gives what each signature takes, and the labels; then measures whenever asked."""
    images, encoded = load_images(BATCH_SIZE)
    inputs = {IMAGE_SIGNATURE: images, BYTES_SIGNATURE: encoded}
    # oneDNN keeps the weights in the form that suits the first batch: single images are twice as
    # slow in a session that has begun with 64. So each is at its best in one of its own.
    in_batches, alone = load_alone(path), load_alone(path)
    labels = [label.decode() for label in in_batches(IMAGE_SIGNATURE, "label")(images)]
    pipe.send((inputs, labels))
    # For the rate pixels, whatever the clients send: decoding is the server's to bear.
    batch = in_batches(IMAGE_SIGNATURE, "probabilities")
    request = {signature: alone(signature, "probabilities") for signature in inputs}
    while True:
        (signature,) = pipe.recv()
        batches = seconds_of_calls(batch, images)
        requests = seconds_of_calls(request[signature], inputs[signature][:images_per_request])
        pipe.send(Alone(BATCH_SIZE / statistics.fmean(batches), statistics.median(requests)))


def seconds_of_calls(run: Callable[[Any], Any], batch: Any) -> list[float]:
    """Calls `run` for a turn's time; returns what each call took."""
    run(batch)  # after a stop, caches are cold
    times = [time.perf_counter()]
    while times[-1] < times[0] + ALONE_SECONDS:
        run(batch)
        times.append(time.perf_counter())
    return [end - begin for begin, end in pairwise(times)]


def run_clients(pipe: Pipe) -> None:
    """Has clients ask whenever told to: as `measure_clients` has it."""
    import uvloop

    while True:
        pipe.send(uvloop.run(measure_clients(*pipe.recv())))


async def measure_clients(
    kind: type[Connection], port: int, questions: list[Question], clients: int, seconds: float
) -> Turn:
    """Has so many clients ask one question after the other, each for itself; counts requests."""
    connections = [await connect(kind, port) for _ in range(clients)]
    used = time.process_time()
    start = time.perf_counter() + WARM_UP_SECONDS
    times = await asyncio.gather(
        *(
            ask_until(start + seconds, connection, questions[client % len(questions) :] + questions)
            for client, connection in enumerate(connections)
        )
    )
    used = time.process_time() - used
    for connection in connections:
        connection.close()
    asked = [pair for of_client in times for pair in of_client]
    counted = sum(start <= end < start + seconds for _, end in asked)
    latencies = sorted(end - begin for begin, end in asked if begin >= start)
    if not latencies:
        raise RuntimeError(f"no answer in {seconds:g} s: give more --seconds")
    p50, p99 = (latencies[int(share * len(latencies))] for share in (0.5, 0.99))
    return Turn(counted / seconds, p50, p99, len(asked), used)


async def ask_until(
    end: float, connection: Connection, questions: list[Question]
) -> list[tuple[float, float]]:
    """Returns when each question was asked and when it was answered.

    Raises:
        RuntimeError: an answer was not the right one.
    """
    times: list[tuple[float, float]] = []
    while (now := time.perf_counter()) < end:
        question = questions[len(times) % len(questions)]
        answer = await connection.ask(question.request)
        times.append((now, time.perf_counter()))
        if not question.fits(answer):
            raise RuntimeError(f"expected {question.content!r}; got {answer}")
    return times


def write_questions(
    inputs: dict[str, Any], labels: list[str], images_per_request: int
) -> dict[str, list[Question]]:
    """Returns for each way the same questions; each begins at another image."""
    size = images_per_request
    starts = range(BATCH_SIZE - size + 1)
    return {
        name: [
            way.question(inputs[way.signature][at : at + size], labels[at : at + size])
            for at in starts
        ]
        for name, way in WAYS.items()
    }


def describe() -> str:
    """Returns what the figures depend on."""
    from keras_cifar.start import start_tensorflow

    start_tensorflow()
    from keras_cifar.machine import cpu_model

    names = ("tensorflow", "grpcio", "protobuf", "uvicorn", "uvloop", "httptools")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    machine = f"{cpu_model()}, {os.cpu_count()} cores, {platform.platform()}"
    return f"{machine}\nPython {platform.python_version()}, {packages}"


@click.command()
@click.argument("model_dir", type=click.Path(path_type=Path, exists=True))
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=float, default=2.0, show_default=True, help="Of each turn.")
@click.option(
    "--images",
    type=click.IntRange(1, MOST_IMAGES),
    default=1,
    show_default=True,
    help="Of each request.",
)
def main(model_dir: Path, rounds: int, seconds: float, images: int) -> None:
    """Prints the server's rates and latencies, and how many times the model's they are."""
    started = time.monotonic()
    os.environ["TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"] = "1"  # as the server sets it
    present = versions(model_dir)
    alone = Worker(run_alone, present[max(present)], images)
    inputs, labels = alone.receive()
    # In a process that ends, so that no threads of TensorFlow's stay with this one.
    with get_context("spawn").Pool(1) as writer:
        questions = writer.apply(write_questions, (inputs, labels, images))
        print(writer.apply(describe))
    clients = Worker(run_clients)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(model_dir, log=Path(folder) / "log") as server,
    ):
        bench = Bench(server, alone, clients, questions, images)
        bench.measure(rounds=1, seconds=seconds)  # the first round prepares kernels
        found = bench.measure(rounds=rounds, seconds=seconds)
    for worker in (alone, clients):
        worker.process.kill()
    print_table(found)
    print(f"\n{rounds} rounds in {time.monotonic() - started:.0f} s")


@dataclass(frozen=True)
class Bench:
    """All that takes turns."""

    server: Server
    alone: Worker
    clients: Worker
    questions: dict[str, list[Question]]
    images_per_request: int

    def measure(
        self, *, rounds: int, seconds: float
    ) -> dict[tuple[str, int], list[tuple[Alone, Turn]]]:
        """Returns the turns by way and number of clients, each with the one just before it."""
        found: dict[tuple[str, int], list[tuple[Alone, Turn]]] = {
            (name, count): [] for name in WAYS for count in CLIENTS
        }
        for _ in range(rounds):
            for (name, count), turns in found.items():
                alone = self.alone.ask(WAYS[name].signature)
                turns.append((alone, self.turn(name, count, seconds)))
        return found

    def turn(self, name: str, count: int, seconds: float) -> Turn:
        """Has the clients ask the server."""
        kind = WAYS[name].connection
        port = self.server.rest_port if kind is RestConnection else self.server.grpc_port
        process_id = self.server.process.pid
        used = cpu_seconds(process_id)
        turn: Turn = self.clients.ask(kind, port, self.questions[name], count, seconds)
        return replace(
            turn,
            rate=turn.rate * self.images_per_request,
            server_seconds=cpu_seconds(process_id) - used,
        )


def cpu_seconds(process_id: int) -> float:
    """Returns how long a process has had a core."""
    # man 5 proc_pid_stat: utime and stime, counted from after the name, which may hold anything.
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def print_table(found: dict[tuple[str, int], list[tuple[Alone, Turn]]]) -> None:
    """Prints a row of Markdown for each way and number of clients."""
    print(
        f"\n| | clients | images/s | of the model's ({BATCH_SIZE} at a time) | p50, ms | p99, ms "
        "| p99 by the model's | server, us | clients, us |"
    )
    print("| --- " * 9 + "|")
    for (name, count), turns in found.items():
        print(f"| {name} | {count} | {' | '.join(cells(WAYS[name], count, turns))} |")
    every = [alone for turns in found.values() for alone, _ in turns]
    latencies = {
        way.signature: statistics.median(alone.latency for alone, _ in found[name, min(CLIENTS)])
        for name, way in WAYS.items()
    }
    print(
        f"\nThe model alone: {statistics.median(alone.rate for alone in every):,.0f} images/s; "
        "for the content of a request, "
        + " and ".join(f"{1e3 * own:.1f} ms ({signature})" for signature, own in latencies.items())
    )


def cells(way: Way, count: int, turns: list[tuple[Alone, Turn]]) -> list[str]:
    """Returns what a row of the table says."""
    shares = [turn.rate / alone.rate for alone, turn in turns]
    latencies = [turn.p99 / alone.latency for alone, turn in turns]
    share = f"{statistics.median(shares):.0%} ({min(shares):.0%}-{max(shares):.0%})"
    latency = f"{statistics.median(latencies):.1f}"
    if way.least_share and count == max(CLIENTS):
        share += _aim(f">= {way.least_share:.0%}", statistics.median(shares) >= way.least_share)
    if count == min(CLIENTS):
        latency += _aim(f"< {MOST_LATENCIES:g}", statistics.median(latencies) < MOST_LATENCIES)

    def median(of: Callable[[Turn], float]) -> float:
        return statistics.median(of(turn) for _, turn in turns)

    return [
        f"{median(lambda turn: turn.rate):,.0f}",
        share,
        f"{1e3 * median(lambda turn: turn.p50):.1f}",
        f"{1e3 * median(lambda turn: turn.p99):.1f}",
        latency,
        f"{1e6 * median(lambda turn: turn.server_seconds / turn.requests):,.0f}",
        f"{1e6 * median(lambda turn: turn.client_seconds / turn.requests):,.0f}",
    ]


def _aim(aim: str, is_met: Any) -> str:
    return f", aim {aim}: {'met' if is_met else 'missed'}"


if __name__ == "__main__":
    main()
