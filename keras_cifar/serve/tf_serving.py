"""TensorFlow Serving itself, run with the files that `deploy` writes."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from keras_cifar.serve.settings import Settings, address
from keras_cifar.serving import default_image

_BINARY = "tensorflow_model_server"
_ALL_INTERFACES = "0.0.0.0"
# How long it may take to stop before it is killed.
_STOP_SECONDS = 30


def tf_serving_command(settings: Settings, *, kit: Path, flags: Sequence[str]) -> list[str]:
    """Returns what runs TensorFlow Serving: its program, else its Docker image.

    Args:
        settings: of which a model directory, its name, the host and the ports count.
        kit: the folder that `deploy` has written.
        flags: of the server in its image, where the kit is at /config.

    Raises:
        ValueError: what `settings` asks for is not to be had from it.
        OSError: there is neither.
    """
    _check_ports(settings)
    if program := shutil.which(_BINARY):
        _check_host(settings)
        return [program, *_program_flags(settings, kit)]
    if (docker := shutil.which("docker")) and _has_engine(docker):
        return [docker, "run", "--rm", *_docker_options(settings, kit), *flags]
    raise OSError(
        f"--engine tf-serving: no {_BINARY} on the PATH, and no Docker that runs. "
        "Install one of them, or leave the option out."
    )


def _check_ports(settings: Settings) -> None:
    """Refuses what would leave a port out, or have Docker choose one that nobody is told of."""
    for name in ("rest_port", "grpc_port"):
        if not getattr(settings, name):
            raise ValueError(f"{name}: got 0; TensorFlow Serving cannot look for a free port.")
    if settings.rest_port == settings.grpc_port:
        raise ValueError(f"grpc_port: got {settings.grpc_port}, expected another than --rest-port.")


def _check_host(settings: Settings) -> None:
    """Refuses an address of its own: the program's server.cc and evhttp_server.cc name none."""
    if settings.host != _ALL_INTERFACES:
        raise ValueError(
            f"host: got {settings.host}, but {_BINARY} listens on all interfaces, without TLS or "
            f"a token, and cannot be told otherwise. Allow it: --host {_ALL_INTERFACES}; or take "
            "its Docker image, which is used where the program is not on the PATH."
        )


def _program_flags(settings: Settings, kit: Path) -> list[str]:
    return [
        f"--port={settings.grpc_port}",
        f"--rest_api_port={settings.rest_port}",
        f"--model_name={settings.model_name}",
        f"--model_base_path={_models(settings)}",
        "--enable_batching=true",
        f"--batching_parameters_file={kit / 'batching_parameters.txt'}",
        f"--monitoring_config_file={kit / 'monitoring.config'}",
        "--enable_profiler=false",
    ]


def _docker_options(settings: Settings, kit: Path) -> list[str]:
    return [
        f"--publish={address(settings.host, settings.rest_port)}:8501",
        f"--publish={address(settings.host, settings.grpc_port)}:8500",
        f"--volume={_models(settings)}:/models/{settings.model_name}:ro",
        f"--volume={kit}:/config:ro",
        "--env=TF_ONEDNN_ASSUME_FROZEN_WEIGHTS=1",
        f"--entrypoint={_BINARY}",
        "--init",
        default_image("cpu"),
    ]


def _models(settings: Settings) -> Path:
    return (settings.model_dir or Path()).absolute()


def _has_engine(docker: str) -> bool:
    return subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


def run(command: Sequence[str]) -> int:
    """Runs a command until it ends, or is told to; returns its exit code."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # SIGTERM too
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            return 0
