"""What several workers gain: steps of 2 and 4 processes, a model on paper, its predictions.

    python scripts/benchmark_scaling.py scaling-results

Writes scaling.json and scaling.md. The processes share the cores of this machine: so a step is held
against as many processes that train by themselves at the same time, each on its share of the batch.
What a step takes longer is communication; the model says as well what it is to take, by all-reduces
that are measured by themselves. Everything is measured in turn, several times; medians count. With
--short, all is as small as can be: to see that the script works.

Bandwidths and latencies that are not measured here:

    NVLink      600 GB/s of an A100, both ways together (NVIDIA A100 data sheet)
    PCIe        28 GB/s bus bandwidth of 8 RTX 5090 (github.com/NVIDIA/nccl/issues/1639)
    on a GPU    42 us for an all-reduce of 8 bytes over 8 (github.com/NVIDIA/nccl/issues/1530)
    Ethernet    its line rate, or what TensorFlow passes here, where there is no wire; 0.13 ms one
                way, half a ping between machines of a zone (orensol.com/2009/05/24/
                network-latency-inside-and-across-amazon-ec2-availability-zones), and what a message
                takes here
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
from scaling.paper import (
    Compute,
    Link,
    Place,
    Work,
    communication,
    fit_compute,
    fit_link,
    predict,
)

from keras_cifar.files import replacing
from keras_cifar.launch.shares import cluster_environment, held_ports

WORKER = Path(__file__).parent / "scaling" / "worker.py"
# fast94 on an H200: 50,000 images in 1.0 to 1.5 s (docs/results.md). Of the article's recipe there
# is no figure on a GPU yet.
GPU = Compute(0.0, 1.25 / 50_000)
_GPU_LATENCY = 42e-6 / (2 * (8 - 1))
NVLINK, PCIE = Link(_GPU_LATENCY, 300e9), Link(_GPU_LATENCY, 28e9)
_WIRE_SECONDS = 0.13e-3
# Where the tables stand in docs/scaling.md.
BEGIN, END = "<!-- measured -->", "<!-- end -->"
MEASURED = ("processes", "apart, ms", "step, ms", "waits, ms", "on paper, ms", "apart / step")
LINKS = ("processes", "a message, µs", "bandwidth, MB/s")
PREDICTED = (
    *("workers", "number", "batch", "step, ms", "waits, ms", "images/s, by one's"),
    "efficiency",
)
_GIGABIT = 1e9 / 8


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        workers: numbers of processes, above 1.
        batch_size: images of a step, shared by all.
        rounds: of everything.
        steps: of each kind in a round.
        contents: bytes of the all-reduces.
    """

    workers: tuple[int, ...]
    batch_size: int
    rounds: int
    steps: int
    contents: tuple[int, ...]


FULL = Size((2, 4), 128, rounds=5, steps=3, contents=(4, 2**16, 2**20, 2**22, 23_412_000))
SHORT = Size((2,), 8, rounds=1, steps=1, contents=(4, 2**20))


class Processes:
    """Workers that have been started and wait for orders."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]], logs: Sequence[Path]) -> None:
        self.processes, self.logs = processes, logs

    def first(self) -> "Processes":
        """Returns the first of them."""
        return Processes(self.processes[:1], self.logs[:1])

    def ask(self, *order: object) -> list[Any]:
        """Gives all of them an order; returns their answers."""
        for process in self.processes:
            print(*order, file=process.stdin, flush=True)
        return self.answers()

    def answers(self) -> list[Any]:
        """Reads a line from each."""
        lines = [process.stdout.readline() for process in self.processes if process.stdout]
        for line, log in zip(lines, self.logs, strict=True):
            if not line:
                raise click.ClickException(f"A worker has ended: {log.read_text()[-2000:]}")
        return [json.loads(line) for line in lines]


@contextmanager
def started(workers: int, *, batch_size: int, precision: str) -> Iterator[Processes]:
    """Starts so many workers on free ports of this machine, and ends them."""
    with ExitStack() as stack:
        ports = stack.enter_context(held_ports(workers))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        logs = [folder / str(index) for index in range(workers)]
        processes = []
        for index, log in enumerate(logs):
            command = [sys.executable, str(WORKER), str(batch_size), precision]
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(log.open("w")),
                env=os.environ | cluster_environment(ports, index=index),
                text=True,
            )
            stack.callback(process.kill)
            processes.append(process)
        found = Processes(processes, logs)
        found.answers()
        yield found


def measure(size: Size, *, precision: str) -> dict[str, Any]:
    """Returns all seconds that were measured, by what and by the number of workers."""
    seconds: dict[str, dict[str, list[float]]] = {}

    def note(what: str, workers: int, found: list[float]) -> None:
        seconds.setdefault(what, {}).setdefault(str(workers), []).extend(found)

    with ExitStack() as stack:
        groups = {
            workers: stack.enter_context(
                started(workers, batch_size=size.batch_size, precision=precision)
            )
            for workers in size.workers
        }
        first = groups[min(groups)].first()
        for round_ in range(size.rounds + 1):
            click.echo(f"round {round_} of {size.rounds}", err=True)
            for what, workers, found in [*_single(first, size), *_round(groups, size)]:
                if round_:  # the first one traces
                    note(what, workers, found)
        return {"seconds": seconds, "work": first.ask("work")[0]}


def _single(first: Processes, size: Size) -> Iterator[tuple[str, int, list[float]]]:
    """Measures one process by itself, on the whole batch and on a quarter of it."""
    for what, images in (("alone", size.batch_size), ("quarter", size.batch_size // 4)):
        yield what, 1, first.ask("alone", size.steps, images)[0]


def _round(groups: dict[int, Processes], size: Size) -> Iterator[tuple[str, int, list[float]]]:
    """Measures each group: apart, together, and all-reduces."""
    for workers, group in groups.items():
        apart = group.ask("alone", size.steps, size.batch_size // workers)
        yield "alone", workers, [each for found in apart for each in found]
        yield "together", workers, group.ask("together", size.steps)[0]
        for content in size.contents:
            yield f"reduce {content}", workers, group.ask("reduce", content, 3)[0]


def evaluate(measured: dict[str, Any], size: Size) -> dict[str, Any]:
    """Returns what the figures say: links, each number of workers beside the model, predictions."""
    medians = {
        what: {int(workers): statistics.median(each) for workers, each in by_workers.items()}
        for what, by_workers in measured["seconds"].items()
    }
    facts = measured["work"]
    work = Work(facts["gradient_bytes"], facts["collectives"] - 1)
    links = {
        workers: fit_link(
            [(content, medians[f"reduce {content}"][workers]) for content in size.contents],
            workers=workers,
        )
        for workers in medians["together"]
    }
    one = medians["alone"][1]
    rows = [{"workers": 1, "alone": one, "step": one, "efficiency": 1.0}]
    for workers, step in medians["together"].items():
        alone = medians["alone"][workers]
        waits = communication(work, workers=workers, link=links[workers])
        rows.append(
            {
                "workers": workers,
                "alone": alone,
                "step": step,
                "waits": step - alone,
                "paper_waits": waits,
                "efficiency": alone / step,
            }
        )
    compute = fit_compute([(size.batch_size // 4, medians["quarter"][1]), (size.batch_size, one)])
    link = links[min(links)]  # a core for each
    return {
        **facts,
        "compute": compute._asdict(),
        "links": {workers: each._asdict() for workers, each in links.items()},
        "measured": rows,
        "predicted": [
            predict(place, work, batch=batch, batch_of_one=size.batch_size)._asdict()
            for place in places(compute, link)
            for batch in (size.batch_size, size.batch_size * place.workers)
        ],
    }


def places(compute: Compute, link: Link) -> list[Place]:
    """Returns where the model is asked: GPUs of one machine, machines like this one."""
    latency = link.latency + _WIRE_SECONDS
    networks = {
        "10 Gbit/s": 10 * _GIGABIT,
        "100 Gbit/s": 100 * _GIGABIT,
        "TensorFlow's own rate here": link.bandwidth,
    }
    machines = [
        Place(f"machines, {name}", workers, compute, Link(latency, bandwidth))
        for workers in (8, 64)
        for name, bandwidth in networks.items()
    ]
    return [Place("GPUs, NVLink", 8, GPU, NVLINK), Place("GPUs, PCIe", 8, GPU, PCIE), *machines]


def markdown(results: dict[str, Any]) -> str:
    """Returns the tables."""
    links = (
        [workers, f"{1e6 * link['latency']:,.0f}", f"{link['bandwidth'] / 1e6:,.0f}"]
        for workers, link in results["links"].items()
    )
    return "\n".join(
        [
            *table(MEASURED, map(_measured_row, results["measured"])),
            *table(LINKS, links),
            *table(PREDICTED, map(_predicted_row, results["predicted"])),
        ]
    )


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Returns the lines of a table, and an empty one."""
    lines = [heading, ["---"] * len(heading), *rows]
    return [*(f"| {' | '.join(map(str, cells))} |" for cells in lines), ""]


def _measured_row(row: dict[str, Any]) -> list[str]:
    names = ("alone", "step", "waits", "paper_waits")
    return [str(row["workers"]), *map(_ms, map(row.get, names)), f"{row['efficiency']:.0%}"]


def _predicted_row(row: dict[str, Any]) -> list[str]:
    return [
        row["place"],
        row["workers"],
        f"{row['batch']:,}",
        _ms(row["step"]),
        _ms(row["waits"]),
        f"{row['speedup']:.1f}",
        f"{row['speedup'] / row['workers']:.0%}",
    ]


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:,.1f}"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--short", is_flag=True, help="As small as can be.")
@click.option("--precision", default="bfloat16", show_default=True, help="Of the arithmetic.")
@click.option("--page", type=click.Path(path_type=Path), help="Put the tables into it as well.")
def main(folder: Path, page: Path | None, precision: str, *, short: bool) -> None:
    """Writes scaling.json and scaling.md to FOLDER."""
    size = SHORT if short else FULL
    measured = measure(size, precision=precision)
    results = {"precision": precision, **evaluate(measured, size), **measured}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("json", json.dumps(results, indent=2)), ("md", markdown(results))):
        with replacing(folder / f"scaling.{name}") as path:
            path.write_text(text)
    print(markdown(results))
    if page:
        before, _, rest = page.read_text().partition(BEGIN)
        with replacing(page) as path:
            _, _, after = rest.partition(END)
            path.write_text(f"{before}{BEGIN}\n{markdown(results)}{END}{after}")


if __name__ == "__main__":
    main()
