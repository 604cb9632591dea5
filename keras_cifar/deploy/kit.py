"""Fills the templates beside this file in, and writes them."""

import dataclasses
import os
import re
import shlex
from pathlib import Path
from typing import Literal

from keras_cifar.deploy.filled import TEMPLATES, refuse_undecodable, write_filled, yaml_string
from keras_cifar.model_dir import version_format, versions
from keras_cifar.serving import BATCHING, DEVICES, METRICS_PATH, MODEL_NAME, default_image

# A name that is also a folder's, part of a URL and, with "-" for "_" and ".", one on Kubernetes,
# which adds "-models" and stops at 63 characters.
_MODEL_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]{0,48}[A-Za-z0-9])?")
_IMAGE = re.compile(r"[A-Za-z0-9][\w./:@-]*")
_FLAGS = (
    "--port=8500",
    "--rest_api_port=8501",
    "--model_config_file=/config/models.config",
    "--model_config_file_poll_wait_seconds=30",
    # Without it the server does not start on labels of versions that it has yet to load.
    "--allow_version_labels_for_unavailable_models=true",
    "--enable_batching=true",
    "--batching_parameters_file=/config/batching_parameters.txt",
    "--monitoring_config_file=/config/monitoring.config",
    # It would listen on the port of gRPC, for anyone.
    "--enable_profiler=false",
)
_DEVICE_FLAGS = {"cpu": (), "gpu": ("--tensorflow_session_config_file=/config/session.config",)}
_COMPOSE_DEVICES = {
    "cpu": "",
    "gpu": """\
    deploy:
      resources:
        reservations:
          devices:
            - {driver: nvidia, count: 1, capabilities: [gpu]}
""",
}
_SESSION_ROW = {"cpu": "", "gpu": "| `session.config` | GPU memory as it is needed |\n"}
_KUBERNETES_LIMITS = {"cpu": "memory: 2Gi", "gpu": "memory: 4Gi, nvidia.com/gpu: 1"}


def deploy(
    model_dir: Path,
    out_dir: Path,
    *,
    model_name: str = MODEL_NAME,
    device: str = "cpu",
    image: str | None = None,
    existing: Literal["refuse", "replace"] = "refuse",
) -> list[Path]:
    """Writes what it takes to serve the highest version in `model_dir`.

    Args:
        model_dir: holds SavedModels as `export` writes them.
        out_dir: made where it is missing.
        model_name: what clients ask for.
        device: "cpu" or "gpu": decides batching, image and what is asked of Docker and Kubernetes.
        image: Docker image of TensorFlow Serving; None for the one that suits the device.
        existing: what to do with files of the same names in `out_dir`.

    Returns:
        The files, README.md first.

    Raises:
        ValueError: a name, device or image that cannot be.
        OSError: no SavedModel in `model_dir`, or `out_dir` has such files or cannot be written.
    """
    _check(model_name=model_name, device=device, image=image)
    number, folder = _highest_version(model_dir)
    # The dot tells it from the name of a volume.
    way = f"./{os.path.relpath(model_dir.resolve(), out_dir.resolve())}"
    refuse_undecodable([way])
    values = {
        **_values(model_name=model_name, device=device, image=image or default_image(device)),
        "version": number,
        "next_version": number + 1,
        "model_dir": yaml_string(way),
        "version_path": shlex.quote(f"{way}/{folder.name}"),
    }
    return write_filled(
        [*TEMPLATES.glob("*.*"), *(TEMPLATES / device).iterdir()],
        values,
        out_dir=out_dir,
        existing=existing,
    )


def server_flags(device: str) -> list[str]:
    """Returns what TensorFlow Serving is started with on "cpu" or "gpu", the kit at /config."""
    return [*_FLAGS, *_DEVICE_FLAGS[device]]


def _check(*, model_name: str, device: str, image: str | None) -> None:
    if not _MODEL_NAME.fullmatch(model_name):
        raise ValueError(
            f"model_name: got {model_name!r}, expected at most 50 letters, digits, '_', '-' and "
            "'.', the first one a letter and the last one none of those signs."
        )
    check_machine(device=device, image=image, example=default_image("cpu"))


def check_machine(*, device: str, image: str | None, example: str) -> None:
    """Raises ValueError for a device or a name of an image that cannot be.

    Args:
        device: "cpu" or "gpu".
        image: None for one that is known.
        example: of a name, for the error.
    """
    if device not in DEVICES:
        raise ValueError(f"device: got {device!r}, expected one of {', '.join(DEVICES)}.")
    if image is not None and not _IMAGE.fullmatch(image):
        raise ValueError(f"image: got {image!r}, expected a name such as {example}.")


def _highest_version(model_dir: Path) -> tuple[int, Path]:
    present = versions(model_dir)
    if not present:
        raise FileNotFoundError(
            f"{model_dir}: no version of a model here. Export one: keras-cifar export {model_dir}"
        )
    number, folder = max(present.items())
    if version_format(folder) != "saved_model":
        raise FileNotFoundError(
            f"{folder}: no SavedModel, which is what TensorFlow Serving takes. "
            "Export one into another MODEL_DIR, with --format saved_model."
        )
    return number, folder


def _values(*, model_name: str, device: str, image: str) -> dict[str, object]:
    """Returns what the templates leave open, the version and its place aside."""
    flags = server_flags(device)
    sizes = BATCHING[device].allowed_batch_sizes
    files = [Path(flag).name for flag in flags if "=/config/" in flag]
    return {
        **dataclasses.asdict(BATCHING[device]),
        "allowed_batch_sizes": "\n".join(f"allowed_batch_sizes: {size}" for size in sizes),
        "max_execution_batch_size": max(sizes),
        "model_name": model_name,
        "kubernetes_name": re.sub("[_.]", "-", model_name.lower()),
        "image": image,
        "device": device.upper(),
        "metrics_path": METRICS_PATH,
        "session_row": _SESSION_ROW[device],
        "compose_flags": "\n".join(f"      - {flag}" for flag in flags),
        "compose_devices": _COMPOSE_DEVICES[device],
        "kubernetes_flags": "\n".join(f"            - {flag}" for flag in flags),
        "kubernetes_limits": _KUBERNETES_LIMITS[device],
        "config_map_files": " ".join(f"--from-file={file}" for file in files),
    }
