"""How fast this machine trains and answers, by each choice that it has of precision and oneDNN."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from keras_cifar.data.examples import Examples
from keras_cifar.interpreter import python
from keras_cifar.machine import (
    ONEDNN,
    onednn,
    onednn_by_itself,
    pick_precision,
    precisions,
)
from keras_cifar.model.inference import inference_model
from keras_cifar.recipes import RECIPES, TrainConfig
from keras_cifar.train.compile import compile_model

# It prints for the parent.
_PROGRAM = """
import dataclasses, json, sys
from keras_cifar.start import start_tensorflow
start_tensorflow(trains=True)
from keras_cifar.train.speed import measure_here
print(json.dumps(dataclasses.asdict(measure_here(sys.argv[1]))))
"""
_MANY = 64  # images in a request
_SECONDS = 2.0  # of each measurement, at least one call
# What differs by less is taken for the same.
_TOLERANCE = 1.1


@dataclass(frozen=True)
class Speed:
    """Images/s of the article's network by one choice.

    Attributes:
        precision: of training.
        onednn: "on" or "off".
        training: by a step of the recipe's batch size.
        one: by the exported network, in float32, of one image at a time; None for the choices whose
            precision is another.
        many: the same of 64 images at a time.
    """

    precision: str
    onednn: str
    training: float
    one: float | None
    many: float | None


@dataclass(frozen=True)
class Speeds:
    """What was measured, and what is chosen where the user does not choose.

    Attributes:
        measured: by each choice.
        chosen: precision and oneDNN of `train`.
        served: oneDNN of `serve`, and of TensorFlow Serving.
    """

    measured: list[Speed]
    chosen: tuple[str, str]
    served: str


def measure() -> Speeds:
    """Measures each choice in a process of its own: TensorFlow reads oneDNN's when it starts.

    Raises:
        RuntimeError: a process failed.
    """
    measured = [in_a_process(precision, setting) for precision, setting in choices()]
    chosen = (pick_precision()[0], onednn()[0])
    return Speeds(measured, chosen=chosen, served=onednn_by_itself())


def choices() -> list[tuple[str, str]]:
    """Returns what this machine can choose, what `train` chooses too: precision and ONEDNN."""
    # Without oneDNN, half precision is measured only where it is what `train` would take.
    half = [(precision, "1") for precision in precisions() if precision != "float32"]
    chosen = (pick_precision()[0], "1" if onednn()[0] == "on" else "0")
    return list(dict.fromkeys([("float32", "1"), ("float32", "0"), *half, chosen]))


def in_a_process(precision: str, setting: str) -> Speed:
    """Measures one choice; `setting` is TF_ENABLE_ONEDNN_OPTS.

    Raises:
        RuntimeError: the process failed.
    """
    result = subprocess.run(
        python(_PROGRAM, [precision]),
        env={**os.environ, ONEDNN: setting},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"{precision}, {ONEDNN}={setting}: {result.stderr}")
    return Speed(**json.loads(result.stdout.splitlines()[-1]))


def measure_here(precision: str) -> Speed:
    """Measures this process, in which TensorFlow has been started."""
    config = TrainConfig.of(precision=precision, strategy="single")
    count = config.batch_size
    images = np.random.default_rng(0).integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(count) % 10
    model = compile_model(config, examples=Examples(images, labels), steps=1)
    training = _images_per_second(lambda: model.train_on_batch(images, labels), count)
    if precision != "float32":
        return Speed(precision, onednn()[0], training, None, None)
    plain = RECIPES[config.recipe].build_model(seed=0)
    exported = tf.function(inference_model(plain, precision="float32"))
    one, many = (
        _images_per_second(partial(exported, tf.constant(images[:few])), few) for few in (1, _MANY)
    )
    return Speed(precision, onednn()[0], training, one, many)


def _images_per_second(compute: Callable[[], Any], images: int) -> float:
    """Returns the rate of the fastest call, the one that nothing else on the machine disturbed."""
    compute()  # builds the graph
    seconds: list[float] = []
    end = time.perf_counter() + _SECONDS
    while not seconds or time.perf_counter() < end:
        started = time.perf_counter()
        compute()
        seconds.append(time.perf_counter() - started)
    return images / min(seconds)


def format_table(speeds: Speeds) -> str:
    """Returns what a person reads: a row a choice, and whether the fastest is chosen."""
    lines = [
        "speed, images/s of the article's network",
        f"  {'':<24}{'training':>10}{'1 image':>10}{'64 images':>11}",
        *(
            f"  {_name(speed):<24}{speed.training:>10,.0f}{_rate(speed.one):>10}"
            f"{_rate(speed.many):>11}"
            for speed in speeds.measured
        ),
    ]
    return "\n".join([*lines, "", *verdicts(speeds)])


def _name(speed: Speed) -> str:
    return f"{speed.precision}, oneDNN {speed.onednn}"


def _rate(images_per_second: float | None) -> str:
    return "" if images_per_second is None else f"{images_per_second:,.0f}"


def verdicts(speeds: Speeds) -> list[str]:
    """Returns a sentence on what `train` chooses, and one on what answers single images fastest."""
    fastest = max(speeds.measured, key=lambda speed: speed.training)
    chosen = next(
        speed for speed in speeds.measured if (speed.precision, speed.onednn) == speeds.chosen
    )
    if fastest.training < _TOLERANCE * chosen.training:
        training = f"train chooses {_name(chosen)}: nothing is faster here."
    else:
        setting = "1" if fastest.onednn == "on" else "0"
        training = (
            f"train chooses {_name(chosen)}, but {_name(fastest)} is "
            f"{fastest.training / chosen.training:.1f} times as fast here: "
            f"{ONEDNN}={setting} keras-cifar train --precision {fastest.precision}"
        )
    ones = {speed.onednn: speed.one for speed in speeds.measured if speed.one is not None}
    if len(ones) < 2:
        return [training, "TensorFlow has no oneDNN on this machine."]
    on, off = ones["on"], ones["off"]
    ratio = max(on, off) / min(on, off)
    state, setting = ("on", "1") if on > off else ("off", "0")
    if ratio < _TOLERANCE:
        single = "Single images are answered as fast with oneDNN as without."
    elif state == speeds.served:
        single = f"Single images are answered fastest with oneDNN {state}, as serve has it here."
    else:
        single = (
            f"Single images are answered {ratio:.1f} times as fast with oneDNN {state}: "
            f"{ONEDNN}={setting} keras-cifar serve"
        )
    return [training, single]
