"""A process of benchmark_scaling.py: does what stdin says, line by line, and answers in JSON.

    alone STEPS IMAGES   steps of so many images, by itself: seconds of each
    together STEPS       steps of its share of the batch with the others: seconds of each
    reduce BYTES TIMES   all-reduces with the others: seconds of each
    work                 what a step with the others reduces

Its arguments are the batch size and the precision; TF_CONFIG names the others.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from keras_cifar.start import start_tensorflow

start_tensorflow(trains=True)

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

# TensorFlow 2.21 says nowhere in public what it has traced.
from tensorflow.python.eager import context  # noqa: E402

from keras_cifar.cifar10 import SAMPLE  # noqa: E402
from keras_cifar.data.prepare import load  # noqa: E402
from keras_cifar.distribute.replicas import shared_out  # noqa: E402
from keras_cifar.distribute.workers import workers_of_this_process  # noqa: E402
from keras_cifar.recipes import RECIPES, TrainConfig  # noqa: E402
from keras_cifar.train.compile import compile_in_strategy  # noqa: E402

_STEP = "multi_step_on_iterator"
_COLLECTIVE = "CollectiveReduce"
_IN_A_CALL = 5


class Clock(keras.callbacks.Callback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Notes it."""
        self.ends.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Returns what each step but the first took: that one waits for its images."""
        return [end - start for start, end in zip(self.ends, self.ends[1:], strict=False)]


class Trainer:
    """A compiled model of the article's recipe.

    Args:
        config: its strategy says with whom it trains.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.examples = load(SAMPLE, split="train", data_dir=None)
        self.model = compile_in_strategy(config, training=self.examples)

    def steps(self, count: int, *, images: int) -> list[float]:
        """Returns the seconds of each step on so many images, the others' included."""
        config, clock = replace(self.config, batch_size=images), Clock()

        def batches(share: Any) -> tf.data.Dataset:
            recipe = RECIPES[config.recipe]
            return recipe.batches(
                config, examples=self.examples, epochs=range(1), share=share
            ).repeat()

        data = shared_out(batches, self.model.distribute_strategy)
        self.model.fit(data, steps_per_epoch=count + 1, callbacks=[clock], shuffle=False, verbose=0)
        return clock.seconds()


def reduce(strategy: tf.distribute.Strategy, content: int, *, times: int) -> list[float]:
    """Returns the seconds of all-reduces of so many bytes; the first call, untimed, traces them.

    Several follow each other in one call, as in a step: the call itself takes its time too.
    """

    def step() -> tf.Tensor:
        values = tf.ones([content // 4])
        for _ in range(_IN_A_CALL):
            values = tf.distribute.get_replica_context().all_reduce("mean", values)
        return values[0]

    run = tf.function(lambda: strategy.run(step), autograph=False)
    run()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append((time.perf_counter() - start) / _IN_A_CALL)
    return seconds


def work(model: keras.Model) -> dict[str, int]:
    """Returns the bytes of the gradients, and how many all-reduces the newest step has."""
    gradients = sum(4 * weight.shape.num_elements() for weight in model.trainable_weights)
    moments = sum(4 * weight.shape.num_elements() for weight in model.non_trainable_weights)
    count = sum(_COLLECTIVE in operation for operation in _operations(_newest_step()))
    return {"gradient_bytes": gradients, "moment_bytes": moments, "collectives": count}


def _newest_step() -> str:
    names = [name for name in context.context().list_function_names() if _STEP in name]
    return max(names, key=lambda name: int(name.rpartition("_")[2]))


def _operations(function: str) -> Iterator[str]:
    """Yields what a function does, what it calls included."""
    for node in context.get_function_def(function).node_def:
        yield node.op
        for name in ("f", "then_branch", "body"):
            if name in node.attr:
                yield from _operations(node.attr[name].func.name)


def main() -> None:
    """Answers until stdin ends."""
    batch_size, precision = int(sys.argv[1]), sys.argv[2]
    settings = {"dataset": "sample", "precision": precision, "batch_size": batch_size}
    workers_of_this_process()  # before TensorFlow computes anything
    together = Trainer(TrainConfig.of(strategy="multi-worker", **settings))
    alone = Trainer(TrainConfig.of(strategy="single", **settings))
    answers = {
        "alone": lambda count, images: alone.steps(count, images=images),
        "together": lambda count: together.steps(count, images=batch_size),
        "reduce": lambda content, times: reduce(
            together.model.distribute_strategy, content, times=times
        ),
        "work": lambda: work(together.model),
    }
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        name, *numbers = line.split()
        print(json.dumps(answers[name](*map(int, numbers))), flush=True)


if __name__ == "__main__":
    main()
