"""airbench94_muon in PyTorch on a CPU, to compare with; written from its published numbers.

    pip install torch==2.13.0
    python scripts/torch_airbench.py cifar10.npz --seed 0

Source of the numbers: airbench94_muon.py of KellerJordan/cifar10-airbench. `cifar10.npz` holds
train_images, train_labels, eval_images and eval_labels; scripts/benchmark_fast.py writes it. Prints
a line of JSON an epoch, {"epoch", "seconds"} and with --each-epoch "accuracy", and one at the end:
{"train_seconds", "evaluate_seconds", "accuracy", "tta_accuracy"}.
"""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WIDTHS = (64, 256, 256)
BATCH_SIZE, EPOCHS = 2000, 8
BIAS_RATE, HEAD_RATE, MUON_RATE = 0.053, 0.67, 0.24
SGD_MOMENTUM, MUON_MOMENTUM = 0.85, 0.6
WEIGHT_DECAY = 2e-6 * BATCH_SIZE
WHITENING_EPOCHS, LABEL_SMOOTHING, SHIFT = 3, 0.2, 2


class Network(nn.Module):
    """The network; images float32 (n, 3, 32, 32), normalised, to logits (n, 10)."""

    def __init__(self, whitening_images: Tensor) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, 2)
        self.whitening.weight.data = whitening_filters(whitening_images)
        self.whitening.weight.requires_grad = False
        groups = [group(c_in, c_out) for c_in, c_out in zip((24, *WIDTHS), WIDTHS, strict=False)]
        self.body = nn.Sequential(nn.GELU(), *groups, nn.MaxPool2d(3), nn.Flatten())
        self.head = nn.Linear(WIDTHS[-1], 10, bias=False)
        self.head.weight.data /= self.head.weight.data.std()

    def forward(self, images: Tensor) -> Tensor:
        """Applies the layers."""
        return self.head(self.body(self.whitening(images))) / WIDTHS[-1]


def group(channels: int, filters: int) -> nn.Sequential:
    """Returns two convolutions with what follows them."""
    return nn.Sequential(
        convolution(channels, filters),
        nn.MaxPool2d(2),
        batch_norm(filters),
        nn.GELU(),
        convolution(filters, filters),
        batch_norm(filters),
        nn.GELU(),
    )


def convolution(channels: int, filters: int) -> nn.Conv2d:
    """Returns a convolution whose first filters are the identity."""
    layer = nn.Conv2d(channels, filters, 3, padding="same", bias=False)
    nn.init.dirac_(layer.weight.data[:channels])
    return layer


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Returns a normalisation that learns biases only."""
    layer = nn.BatchNorm2d(channels, momentum=0.4, eps=1e-12)
    layer.weight.requires_grad = False
    return layer


def whitening_filters(images: Tensor) -> Tensor:
    """Returns the 24 filters that whiten 2x2 patches, (24, 3, 2, 2)."""
    patches = functional.unfold(images, 2).transpose(1, 2).reshape(-1, 12)
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / torch.sqrt(variances + 5e-4)).T.reshape(12, 3, 2, 2)
    return torch.cat([filters, -filters])


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for kernels."""

    def __init__(self, kernels: list[nn.Parameter]) -> None:
        super().__init__(kernels, {"lr": MUON_RATE})

    @torch.no_grad()
    def step(self) -> None:
        """Changes the kernels by their gradients."""
        (settings,) = self.param_groups
        for kernel in settings["params"]:
            velocity = self.state[kernel].setdefault("velocity", torch.zeros_like(kernel))
            velocity.mul_(MUON_MOMENTUM).add_(kernel.grad)
            update = orthogonalize((kernel.grad + MUON_MOMENTUM * velocity).flatten(1))
            kernel.mul_(len(kernel) ** 0.5 / kernel.norm())
            kernel.sub_(settings["lr"] * update.view_as(kernel))


def orthogonalize(matrix: Tensor) -> Tensor:
    """Brings the singular values near 1 by three Newton-Schulz steps."""
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(3):
        moments = x @ x.T
        x = 3.4445 * x + (-4.7750 * moments + 2.0315 * moments @ moments) @ x
    return x.to(matrix.dtype)


def optimizers(network: Network) -> tuple[torch.optim.SGD, Muon]:
    """Returns SGD for biases (the whitening's first) and head, and Muon for the kernels."""
    kernels = [value for value in network.body.parameters() if value.ndim == 4]
    biases = [value for value in network.body.parameters() if value.ndim == 1]
    groups = [
        {"params": values, "lr": rate, "weight_decay": WEIGHT_DECAY / rate}
        for values, rate in (
            ([network.whitening.bias], BIAS_RATE),
            ([value for value in biases if value.requires_grad], BIAS_RATE),
            ([network.head.weight], HEAD_RATE),
        )
    ]
    return torch.optim.SGD(groups, momentum=SGD_MOMENTUM, nesterov=True), Muon(kernels)


def epoch_batches(images: Tensor, labels: Tensor, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batches of an epoch from images that are padded and half of them mirrored."""
    order = torch.randperm(len(images))
    for positions in order.split(BATCH_SIZE):
        if len(positions) == BATCH_SIZE:
            batch = crop(images[positions])
            batch = batch.flip(-1) if epoch % 2 else batch
            yield batch.contiguous(memory_format=torch.channels_last), labels[positions]


def crop(padded: Tensor) -> Tensor:
    """Crops each image at a place of its own."""
    size = padded.shape[-1] - 2 * SHIFT
    top, left = torch.randint(2 * SHIFT + 1, (2, len(padded), 1))
    rows, columns = top + torch.arange(size), left + torch.arange(size)
    image = torch.arange(len(padded))
    pixels = padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)


def train(
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    precision: torch.dtype,
    after_epoch: Callable[[Network], dict[str, float]],
) -> tuple[Network, float]:
    """Trains; prints a line an epoch. Returns the network and the seconds, all included."""
    started = time.perf_counter()
    network = Network(images[:5000]).to(memory_format=torch.channels_last)
    padded = functional.pad(images, [SHIFT] * 4, mode="reflect")
    mirrored = torch.rand(len(padded)) < 0.5
    padded[mirrored] = padded[mirrored].flip(-1)
    steps_per_epoch = len(images) // BATCH_SIZE
    steps, step = EPOCHS * steps_per_epoch, 0
    sgd, muon = optimizers(network)
    initial = [[group["lr"] for group in optimizer.param_groups] for optimizer in (sgd, muon)]
    for epoch in range(epochs):
        begin = time.perf_counter()
        network.train()
        for batch, classes in epoch_batches(padded, labels, epoch):
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                logits = network(batch)
            loss = functional.cross_entropy(
                logits.float(), classes, label_smoothing=LABEL_SMOOTHING, reduction="sum"
            )
            loss.backward()
            for optimizer, rates in zip((sgd, muon), initial, strict=True):
                for settings, rate in zip(optimizer.param_groups, rates, strict=True):
                    settings["lr"] = rate * (1 - step / steps)
            whitening_steps = WHITENING_EPOCHS * steps_per_epoch
            sgd.param_groups[0]["lr"] = BIAS_RATE * max(0.0, 1 - step / whitening_steps)
            sgd.step()
            muon.step()
            network.zero_grad()
            step += 1
        values = after_epoch(network)
        seconds = time.perf_counter() - begin
        print(json.dumps({"epoch": epoch + 1, "seconds": seconds, **values}), flush=True)
    return network, time.perf_counter() - started


@torch.inference_mode()
def accuracy(
    network: Network, images: Tensor, labels: Tensor, *, precision: torch.dtype, augmented: bool
) -> float:
    """Returns the accuracy, with test-time augmentation or without, 0..1."""
    network.eval()

    def logits(batch: Tensor) -> Tensor:
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            return network(batch).float()

    def both_ways(batch: Tensor) -> Tensor:
        return (logits(batch) + logits(batch.flip(-1))) / 2

    def six_views(batch: Tensor) -> Tensor:
        padded = functional.pad(batch, [1] * 4, mode="reflect")
        corners = [both_ways(padded[:, :, at : at + 32, at : at + 32]) for at in (0, 2)]
        return both_ways(batch) / 2 + sum(corners) / 4

    predict = six_views if augmented else logits
    answers = torch.cat([predict(batch).argmax(1) for batch in images.split(BATCH_SIZE)])
    return (answers == labels).float().mean().item()


def load(path: Path, split: str) -> tuple[Tensor, Tensor]:
    """Reads images, normalised, and labels."""
    with np.load(path) as arrays:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (pixels - mean) / deviation, torch.from_numpy(labels)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--seed", default=0, show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="bfloat16")
@click.option("--epochs", default=EPOCHS, show_default=True, help="Fewer stop the run early.")
@click.option("--each-epoch", is_flag=True, help="Have an accuracy of each epoch, in its seconds.")
@click.option("--threads", type=int, help="[default: PyTorch's]")
def main(
    data: Path, *, seed: int, precision: str, epochs: int, each_epoch: bool, threads: int | None
) -> None:
    """Trains once and evaluates."""
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)
    dtype = getattr(torch, precision)
    images, labels = load(data, "eval")
    measure = partial(accuracy, images=images, labels=labels, precision=dtype)

    def after_epoch(network: Network) -> dict[str, float]:
        return {"accuracy": measure(network, augmented=False)} if each_epoch else {}

    network, seconds = train(
        *load(data, "train"), epochs=epochs, precision=dtype, after_epoch=after_epoch
    )
    plain = measure(network, augmented=False)
    begin = time.perf_counter()
    augmented = measure(network, augmented=True)
    figures = {
        "train_seconds": seconds,
        "evaluate_seconds": time.perf_counter() - begin,
        "accuracy": plain,
        "tta_accuracy": augmented,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
