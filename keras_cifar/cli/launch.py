"""Train with several workers on this machine."""

import shlex
from collections.abc import Sequence

import click

from keras_cifar.cli.several import STRATEGY, complete, config_of, parse_train, settings
from keras_cifar.cli.starting import new_name, refuse_other_settings, require_tensorboard
from keras_cifar.launch import WorkerShare, held_ports, run_workers, share_out
from keras_cifar.recipes.equal_shares import require_equal_shares_of_run
from keras_cifar.run_dir import RunDir, is_group, new_run, newest_to_resume


# Without interspersed options, "--" may be left out.
@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", required=True, help="Processes to start."
)
@click.argument(
    "arguments", metavar="-- train [OPTIONS]", nargs=-1, required=True, type=click.UNPROCESSED
)
def launch(workers: int, arguments: tuple[str, ...]) -> None:
    """Train one model with N workers on this machine, as on N machines.

    They share its CPU cores or its GPUs. Worker 0 shows the progress; the lines of the others are
    marked. When one fails, all end.
    """
    train = parse_train(arguments)
    run = _begun(train, workers=workers) if train.params["resume"] else _new(train, workers=workers)
    with held_ports(workers) as ports:
        shares = share_out(ports)
        click.echo(f"{run.path}: {_in_words(shares)}", err=True)
        ending = run_workers(complete(arguments, train, run.path), shares)
    if ending.exit_code:
        again = f"keras-cifar launch --workers {workers} -- train --resume --run-dir"
        way_on = f" Go on with: {again} {shlex.quote(str(run.path))}" if run.is_unfinished else ""
        click.echo(f"{ending.what}.{way_on}", err=True)
        click.get_current_context().exit(ending.exit_code)


def _new(train: click.Context, *, workers: int) -> RunDir:
    """Returns a run that is chosen once for all workers, as `train` chooses it."""
    config, path = config_of(train, workers=workers), train.params["run_dir"]
    if train.params["tensorboard"]:
        require_tensorboard()
    return RunDir(path or click.get_current_context().with_resource(new_run(new_name(config))).path)


def _begun(train: click.Context, *, workers: int) -> RunDir:
    """Returns the run to go on with."""
    path = train.params["run_dir"]
    run = RunDir(path) if path else newest_to_resume()
    if is_group(run.path):
        raise click.UsageError(f"{run.path}: a group of runs, which one process trains.")
    stored = run.read_record().settings
    if stored.strategy != STRATEGY:
        raise click.UsageError(
            f"{run.path} was started with --strategy {stored.strategy}. "
            f"Go on with it: keras-cifar train --resume --run-dir {shlex.quote(str(run.path))}"
        )
    with train.scope(cleanup=False):
        refuse_other_settings(run.path, stored, settings(train))
    require_equal_shares_of_run(stored, replicas=workers)
    if train.params["tensorboard"] or run.tensorboard.is_dir():
        require_tensorboard()
    return run


def _in_words(shares: Sequence[WorkerShare]) -> str:
    """Returns who gets what: "2 workers, each on 1 CPU core"."""
    first, *others = shares
    if not others:
        return "1 worker"
    workers = f"{len(shares)} workers"
    if first.gpus:
        return f"{workers}, each on {_counted(len(first.gpus), 'GPU')}"
    if not first.cores:
        return f"{workers}, which share the CPU cores"
    return f"{workers}, each on {_counted(first.cores_used, 'CPU core')}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"
