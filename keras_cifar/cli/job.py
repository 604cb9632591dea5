"""Write the files that start a training with several workers on a cluster."""

import shlex
from pathlib import Path
from typing import Literal

import click

from keras_cifar.cli.options import PATH, wrong_usage
from keras_cifar.cli.several import complete, config_of, parse_train
from keras_cifar.cli.starting import new_name
from keras_cifar.run_dir import RUNS
from keras_cifar.serving import DEVICES

# The job itself sees whether there is something to go on with.
_OF_THE_JOB = ("resume", "overwrite")


@click.command()
@click.option(
    "--job", is_flag=True, expose_value=False, help="Of a training; without it, of a server."
)
@click.argument("out_dir", type=PATH)
@click.argument("arguments", metavar="[-- train OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--workers", type=click.IntRange(min=2), metavar="N", default=2, help="One on each machine."
)
@click.option(
    "--device", type=click.Choice(DEVICES), default="cpu", help="What a worker trains on."
)
@click.option(
    "--image",
    help="Docker image, made by Dockerfile.gpu, for Kubernetes.  [default: keras-cifar:VERSION]",
)
@click.option("--overwrite", is_flag=True, help="Replace files of the same names in OUT_DIR.")
def deploy_job(
    out_dir: Path,
    arguments: tuple[str, ...],
    workers: int,
    device: str,
    image: str | None,
    overwrite: bool,
) -> None:
    """Write into OUT_DIR what trains one run on N machines of a cluster.

    An Indexed Job for Kubernetes, and a batch script for Slurm. Both start again what has failed,
    and go on with the run.
    """
    from keras_cifar import deploy as stage

    arguments = arguments or ("train",)
    train = parse_train(arguments)
    for name in _OF_THE_JOB:
        if train.params[name]:
            raise click.UsageError(f"--{name}: not for a job, which goes on with its own run.")
    config = config_of(train, workers=workers)
    run = train.params["run_dir"] or RUNS / new_name(config)
    existing: Literal["refuse", "replace"] = "replace" if overwrite else "refuse"
    with wrong_usage():
        kubernetes, slurm = stage.write_job(
            complete(arguments, train, run),
            out_dir,
            run=run,
            workers=workers,
            data_dir=train.params["data_dir"],
            device=device,
            image=image,
            existing=existing,
        )
    click.echo(f"{kubernetes}\n{slurm}")
    apply = f"kubectl apply -f {shlex.quote(str(kubernetes))}"
    click.echo(f"Start it: {apply}, or: sbatch {shlex.quote(str(slurm))}", err=True)
