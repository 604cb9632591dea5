"""The article's network in PyTorch, to compare with: images a second.

    pip install torch==2.13.0
    python scripts/torch_article.py --precision bfloat16

Channels-last, and eager unless told otherwise, which is the fastest that PyTorch 2.13 does with it
on a CPU. The batches are on the device; a step is forward, backward and SGD with Nesterov momentum.
Prints a number.
"""

import time

import click
import torch
from torch import Tensor, nn
from torch.nn import functional

WARMUP_STEPS = 3


def build_network() -> nn.Sequential:
    """Returns the network; images (n, 3, 32, 32) to logits (n, 10)."""
    return nn.Sequential(
        *block(3, 32, 64),
        *block(64, 128, 128),
        nn.Dropout2d(0.05),
        *block(128, 256, 256),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(4096, 1024),
        nn.ReLU(inplace=True),
        nn.Linear(1024, 512),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
        nn.Linear(512, 10),
    )


def block(channels: int, middle: int, last: int) -> list[nn.Module]:
    """Returns two convolutions and a pooling."""
    return [
        nn.Conv2d(channels, middle, 3, padding=1),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, last, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    ]


def step(
    network: nn.Module, sgd: torch.optim.SGD, batch: tuple[Tensor, Tensor], dtype: torch.dtype
) -> None:
    """Trains on a batch."""
    images, labels = batch
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        loss = functional.cross_entropy(network(images), labels)
    sgd.zero_grad()
    loss.backward()
    sgd.step()


def wait(device: str) -> None:
    """Returns when the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


@click.command()
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), required=True)
@click.option("--batch-size", default=128, show_default=True)
@click.option("--steps", default=100, show_default=True, help="That are timed.")
@click.option("--device", default="cpu", show_default=True, help="Or cuda.")
@click.option("--compile/--no-compile", "is_compiled", default=False, show_default=True)
@click.option("--threads", type=int, help="[default: PyTorch's]")
def main(
    precision: str,
    batch_size: int,
    steps: int,
    device: str,
    threads: int | None,
    *,
    is_compiled: bool,
) -> None:
    """Prints images a second."""
    torch.manual_seed(0)
    if threads:
        torch.set_num_threads(threads)
    dtype = getattr(torch, precision)
    network: nn.Module = build_network().to(device, memory_format=torch.channels_last).train()
    sgd = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    if is_compiled:
        network = torch.compile(network)
    images = torch.randn(batch_size, 3, 32, 32, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    batch = images, torch.randint(10, (batch_size,), device=device)
    for _ in range(WARMUP_STEPS):
        step(network, sgd, batch, dtype)
    wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        step(network, sgd, batch, dtype)
    wait(device)
    print(steps * batch_size / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
