"""A training on several machines -> the files that start it on Kubernetes or on Slurm."""

import re
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from keras_cifar.deploy.filled import TEMPLATES, refuse_undecodable, write_filled, yaml_string
from keras_cifar.deploy.kit import check_machine

# Kubernetes allows 63 characters, and adds the number of the worker.
_NAME_LENGTH = 52
_PORT = 2222
_KUBERNETES_DATA = Path("/workspace/data")
_KUBERNETES_LIMITS = {
    "cpu": 'cpu: "4", memory: 4Gi',
    "gpu": 'cpu: "4", memory: 8Gi, nvidia.com/gpu: 1',
}
_SLURM_RESOURCES = {
    "cpu": "#SBATCH --mem=4G",
    "gpu": "#SBATCH --mem=8G\n#SBATCH --gpus-per-task=1",
}


def job_image() -> str:
    """Returns the name of an image of this version, as Dockerfile.gpu makes it."""
    return f"keras-cifar:{version('keras-cifar')}"


def write_job(  # noqa: PLR0913 (what a user may say of a job)
    train: Sequence[str],
    out_dir: Path,
    *,
    run: Path,
    workers: int = 2,
    data_dir: Path | None = None,
    device: str = "cpu",
    image: str | None = None,
    existing: Literal["refuse", "replace"] = "refuse",
) -> list[Path]:
    """Writes an Indexed Job of Kubernetes, and a batch script of Slurm, that train one run.

    Each starts all workers again when one has failed, and goes on with the run.

    Args:
        train: arguments of `keras-cifar` that begin the run, "train" first, `run` included.
        out_dir: made where it is missing.
        run: the run's folder.
        workers: one on each machine.
        data_dir: where TFDS keeps its data there; None for TFDS_DATA_DIR, and on Kubernetes for a
            folder of the volume.
        device: "cpu" or "gpu", what each of them trains on.
        image: Docker image of keras-cifar, for Kubernetes; None for `job_image`'s.
        existing: what to do with files of the same names in `out_dir`.

    Returns:
        The files.

    Raises:
        ValueError: a device or image that cannot be.
        OSError: `out_dir` has such files or cannot be written.
    """
    check_machine(device=device, image=image, example=job_image())
    refuse_undecodable([*train, str(data_dir)])
    name = _dns_name(f"train-{run.name}")
    addresses = [f"{name}-{index}.{name}:{_PORT}" for index in range(workers)]
    values = {
        "name": name,
        "workers": workers,
        "image": image or job_image(),
        "port": _PORT,
        "addresses": ", ".join(f'"{address}"' for address in addresses),
        "run_yaml": yaml_string(str(run)),
        "train_yaml": "\n".join(f"            - {yaml_string(word)}" for word in train),
        "kubernetes_limits": _KUBERNETES_LIMITS[device],
        "data_yaml": yaml_string(str(data_dir or _KUBERNETES_DATA)),
        "run": shlex.quote(str(run)),
        "data": f"export TFDS_DATA_DIR={shlex.quote(str(data_dir))}\n" if data_dir else "",
        "train": shlex.join(train),
        "slurm_resources": _SLURM_RESOURCES[device],
    }
    templates = [*(TEMPLATES / "job").iterdir()]
    return write_filled(templates, values, out_dir=out_dir, existing=existing)


def _dns_name(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower())[:_NAME_LENGTH].strip("-")
