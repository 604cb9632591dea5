"""Train a run for each of several seeds, or go on with such a group."""

import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from keras_cifar.cli.starting import (
    new_name,
    refuse_other_settings,
    require_tensorboard,
    saying_how_to_resume,
    summary,
)
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunGroup, new_run
from keras_cifar.run_record import MAX_SEEDS, check_seeds
from keras_cifar.start import provide_temporary_folder, start_tensorflow

if TYPE_CHECKING:
    from keras_cifar.train.summary import Summary

_ITEM = re.compile("([0-9]{1,10})(?:-([0-9]{1,10}))?")


class _Seeds(click.ParamType):  # type: ignore[type-arg]  # click before 8.2 has none
    """Seeds and ranges of seeds, ends included: 0-2,5 is 0, 1, 2 and 5."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the seeds in their order; anything else is wrong usage."""
        ranges = []
        for item in value.split(","):
            if not (found := _ITEM.fullmatch(item.strip())):
                self.fail(f"got {value!r}, expected seeds such as 0-4 or 0,3,7-9.", param, ctx)
            first, last = int(found[1]), int(found[2] or found[1])
            if last < first:
                self.fail(f"got {item.strip()!r}, expected the lower seed first.", param, ctx)
            ranges.append(range(first, last + 1))
        if (count := sum(map(len, ranges))) > MAX_SEEDS:  # before there are millions
            self.fail(f"got {count:,} seeds, expected at most {MAX_SEEDS:,}.", param, ctx)
        seeds = tuple(itertools.chain(*ranges))
        try:
            check_seeds(seeds)
        except ValueError as error:
            self.fail(str(error).removeprefix("seeds: "), param, ctx)
        return seeds


SEEDS = _Seeds()


def in_words(seeds: Sequence[int]) -> str:
    """Returns seeds as the option takes them, as ranges where that is shorter."""
    runs = itertools.groupby(enumerate(seeds), key=lambda pair: pair[1] - pair[0])
    ranges = ([seed for _, seed in run] for _, run in runs)
    return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in ranges)


def start_group(
    config: TrainConfig,
    path: Path | None,
    *,
    seeds: tuple[int, ...],
    existing: Literal["refuse", "replace"],
    tensorboard: bool,
    data_dir: Path | None,
) -> None:
    """Trains a run for each seed, in the folder `path` or a new one under runs/."""
    context = click.get_current_context()
    group = RunGroup(path or context.with_resource(new_run(new_name(config))).path)
    with _starting(group, config, seeds=seeds, tensorboard=tensorboard) as logs:
        from keras_cifar.train import train_seeds

        outcome = train_seeds(
            config, group, seeds=seeds, data_dir=data_dir, existing=existing, logs=logs
        )
    _tell(group, outcome)


def resume_group(
    group: RunGroup,
    settings: dict[str, Any],
    *,
    seeds: tuple[int, ...] | None,
    tensorboard: bool,
    data_dir: Path | None,
) -> None:
    """Goes on with a group; refuses settings and seeds that the user gave and that it has not."""
    if "seed" in settings:
        raise click.UsageError(f"--seed: {group.path} is a group of runs, each of its own seed.")
    record = group.read_record()
    refuse_other_settings(group.path, record.common.settings, settings)
    if seeds and seeds != record.seeds:
        raise click.UsageError(
            f"{group.path} was started with --seeds {in_words(record.seeds)}, not "
            f"{in_words(seeds)}. Resume it without that option, or train anew in another --run-dir."
        )
    tensorboard = tensorboard or any(run.tensorboard.is_dir() for run in group.runs())
    with _starting(
        group, record.common.settings, seeds=record.seeds, tensorboard=tensorboard
    ) as logs:
        from keras_cifar.train import resume_seeds

        outcome = resume_seeds(group, data_dir=data_dir, logs=logs)
    _tell(group, outcome)


@contextmanager
def _starting(
    group: RunGroup, config: TrainConfig, *, seeds: Sequence[int], tensorboard: bool
) -> Iterator[Literal["none", "tensorboard"]]:
    """Gives what is to be logged to a block that trains; if interrupted, says how to go on."""
    if tensorboard:
        require_tensorboard()
    click.echo(f"{group.path}: {summary(config)}, seeds {in_words(seeds)}", err=True)
    provide_temporary_folder(group.path)
    start_tensorflow(trains=True)
    with saying_how_to_resume(group):
        yield "tensorboard" if tensorboard else "none"


def _tell(group: RunGroup, outcome: "Summary") -> None:
    click.echo(f"{group.path}:\n{outcome}")
    click.echo(f"Test them: keras-cifar evaluate {shlex.quote(str(group.path))}", err=True)
