"""TensorFlow Serving itself, run with the files that `deploy` writes."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from keras_cifar.serve.settings import Settings
from keras_cifar.serving import default_image

_BINARY = "tensorflow_model_server"
# How long it may take to stop before it is killed.
_STOP_SECONDS = 30


def tf_serving_command(settings: Settings, *, kit: Path, flags: Sequence[str]) -> list[str]:
    """Returns what runs TensorFlow Serving: its program, else its Docker image.

    Args:
        settings: of which a model directory, its name, the host and the ports count.
        kit: the folder that `deploy` has written.
        flags: of the server in its image, where the kit is at /config.

    Raises:
        OSError: there is neither.
    """
    if program := shutil.which(_BINARY):
        return [program, *_program_flags(settings, kit)]
    if (docker := shutil.which("docker")) and _has_engine(docker):
        return [docker, "run", "--rm", *_docker_options(settings, kit), *flags]
    raise OSError(
        f"--engine tf-serving: no {_BINARY} on the PATH, and no Docker that runs. "
        "Install one of them, or leave the option out."
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
        f"--publish={settings.host}:{settings.rest_port}:8501",
        f"--publish={settings.host}:{settings.grpc_port}:8500",
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
