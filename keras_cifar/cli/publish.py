"""Export a model, and write what it takes to serve it."""

import importlib.util
import shlex
from pathlib import Path
from typing import Any, Literal

import click

from keras_cifar.cli.job import deploy_job
from keras_cifar.cli.options import PATH, tta_option, wrong_usage
from keras_cifar.files import is_closed
from keras_cifar.model_dir import FORMATS, MAX_VERSION, versions
from keras_cifar.run_dir import RunDir, newest_run
from keras_cifar.serving import DEVICES, EXPORT_PRECISIONS, MODEL_NAME, default_image
from keras_cifar.start import provide_temporary_folder, start_tensorflow

# What a format needs and only its extra, of the same name, brings.
_MODULES = {
    "saved_model": (),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "litert": ("ai_edge_litert",),
}


@click.command()
@click.argument("paths", metavar="[RUN] MODEL_DIR", type=PATH, nargs=-1, required=True)
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default="saved_model",
    help="A SavedModel is what TensorFlow Serving takes; the others need extras of their names.",
)
@click.option(
    "--precision",
    type=click.Choice(EXPORT_PRECISIONS),
    default="float32",
    help="Of weights and arithmetic; bfloat16 is for servers that compute it faster.",
)
@click.option(
    "--version",
    "number",
    type=click.IntRange(1, MAX_VERSION),
    metavar="N",
    help="Number of the version.  [default: one above the highest]",
)
@tta_option
def export(
    paths: tuple[Path, ...], format_: str, precision: str, number: int | None, views: int
) -> None:
    """Publish a run's model (default: the newest run's) as MODEL_DIR/N for a server.

    It gets its number only after its answers have been compared with the Keras model's.
    """
    if len(paths) > 2:
        raise click.UsageError(f"Expected [RUN] MODEL_DIR, got {len(paths)} paths.")
    if any(importlib.util.find_spec(module) is None for module in _MODULES[format_]):
        raise click.ClickException(
            f"--format {format_} needs more: pip install 'keras-cifar[{format_}]'"
        )
    *run, model_dir = paths
    run_dir = RunDir(run[0]) if run else newest_run()
    run_dir.require_model()
    provide_temporary_folder(model_dir)
    start_tensorflow()
    from keras_cifar import export as stage

    with wrong_usage():
        exported = stage.export(
            run_dir, model_dir, format=format_, precision=precision, number=number, views=views
        )
    click.echo(str(exported))
    _say_if_closed(model_dir, exported.version, *exported.version.rglob("*"))
    if format_ == "saved_model":
        kit = shlex.quote(f"{model_dir.resolve().name}-server")
        click.echo(f"Deploy it: keras-cifar deploy {shlex.quote(str(model_dir))} {kit}", err=True)


def _say_if_closed(folder: Path, *paths: Path) -> None:
    """Tells how to open a folder if a server's user cannot read it and the paths in it."""
    closed = [path for path in (folder, *paths) if is_closed(path)]
    if closed:
        click.echo(
            f"{closed[0]}: other users cannot read it, and a server in a container is one. "
            f"Open it: chmod -R a+rX {shlex.quote(str(folder))}",
            err=True,
        )


class _Deploy(click.Command):
    """With --job, another command is in its place, with options of its own."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        own = args[: args.index("--")] if "--" in args else args
        if "--job" in own:
            return deploy_job.make_context(f"{info_name} --job", args, *rest, **extra)
        return super().make_context(info_name, args, *rest, **extra)


@click.command(cls=_Deploy)
@click.option(
    "--job",
    is_flag=True,
    expose_value=False,
    help="The files of a training on several machines instead: see deploy --job --help.",
)
@click.argument("model_dir", type=PATH)
@click.argument("out_dir", type=PATH)
@click.option("--model-name", default=MODEL_NAME, help="What clients ask the server for.")
@click.option(
    "--device", type=click.Choice(DEVICES), default="cpu", help="What the server computes on."
)
@click.option(
    "--image",
    help=f"Docker image of TensorFlow Serving.  [default: {default_image('cpu')}, or its -gpu]",
)
@click.option("--overwrite", is_flag=True, help="Replace files of the same names in OUT_DIR.")
def deploy(
    model_dir: Path,
    out_dir: Path,
    model_name: str,
    device: str,
    image: str | None,
    overwrite: bool,
) -> None:
    """Write into OUT_DIR what TensorFlow Serving needs to serve MODEL_DIR.

    For Docker Compose and for Kubernetes, with a README of the commands and the reasons.
    """
    from keras_cifar import deploy as stage

    existing: Literal["refuse", "replace"] = "replace" if overwrite else "refuse"
    with wrong_usage():
        files = stage.deploy(
            model_dir, out_dir, model_name=model_name, device=device, image=image, existing=existing
        )
    click.echo("\n".join(str(file) for file in files))
    published = versions(model_dir).values()
    _say_if_closed(model_dir, *published, *(path for each in published for path in each.rglob("*")))
    _say_if_closed(out_dir, *files)
    click.echo(f"Start it: cd {shlex.quote(str(out_dir))} && docker compose up -d --wait", err=True)
