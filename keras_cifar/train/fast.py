"""The fast recipes (see `keras_cifar.fast`): what `fit` trains, and on what."""

from functools import partial
from typing import Any

import keras
import tensorflow as tf

from keras_cifar.config import TrainConfig
from keras_cifar.data.examples import Examples
from keras_cifar.data.on_device import UNSEEN, hardest, make_batch, mirror_half, plan_steps
from keras_cifar.fast import FAST_METHODS, FastMethod
from keras_cifar.model import fast
from keras_cifar.model.whitening import WHITENING_IMAGES, whitening_filters
from keras_cifar.optimize.group_sgd import Group, GroupSGD, Lookahead
from keras_cifar.optimize.loss import smoothed_cross_entropy
from keras_cifar.optimize.muon import Muon, is_kernel
from keras_cifar.optimize.schedules import WarmupThenLinear

# airbench94.py: the whitening layer's bias is trained at first and then left alone.
WHITENING_BIAS_EPOCHS = 3


class _FreezeWhitening(keras.callbacks.Callback):
    """Leaves the whitening layer alone after its epochs: its gradient is not computed any more."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Freezes the bias, its rate being 0, and has the step traced anew."""
        bias = self.model.get_layer("whitening").bias
        if epoch >= WHITENING_BIAS_EPOCHS and bias.trainable:
            bias.trainable = False
            self.model.make_train_function(force=True)


class _OnDevice(keras.Model):
    """Makes each step's batch itself, from a plan of it: of the examples that are hardest.

    Attributes:
        make_batch: plan to images and labels.
        kept: examples of a plan that are trained on.
        last_losses: float32 (examples,), of each example when it was last trained on.
    """

    make_batch: Any
    kept: int
    last_losses: tf.Variable

    @property
    def variables(self) -> list[Any]:
        """All state, as Keras's, for checkpoints: the last losses decide what comes next."""
        return [*super().variables, self.last_losses]

    def train_step(self, plan: dict[str, tf.Tensor]) -> Any:
        """Trains on a batch."""
        self._positions = hardest(plan["positions"], self.last_losses, count=self.kept)
        return super().train_step(self.make_batch(plan | {"positions": self._positions}))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,  # noqa: FBT001, FBT002
    ) -> Any:
        """Returns the loss of a batch, and notes that of each example."""
        if training:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=y_pred)
            self.last_losses.scatter_nd_update(self._positions[:, tf.newaxis], losses)
        return super().compute_loss(x, y, y_pred, sample_weight, training)


def build_model(config: TrainConfig) -> keras.Model:
    """Returns the network, uncompiled."""
    return fast.build_model(FAST_METHODS[config.recipe], seed=config.seed)


def compile_model(
    config: TrainConfig, *, examples: Examples, steps: int, jit_compile: bool
) -> keras.Model:
    """Returns the network, compiled; its steps take elements of `batches`."""
    method = FAST_METHODS[config.recipe]
    network = fast.build_model(method, seed=config.seed, image_shape=(None, None, 3))
    whitening = network.get_layer("whitening")
    whitening.kernel.assign(whitening_filters(examples.images[:WHITENING_IMAGES]))
    model = _OnDevice(network.inputs, network.outputs, name=network.name)
    mirrored = mirror_half(examples.images, seed=config.seed)
    model.make_batch = partial(
        make_batch,
        # Variables: as constants they would be compiled into the step.
        examples=Examples(
            tf.Variable(mirrored, trainable=False), tf.Variable(examples.labels, trainable=False)
        ),
        shift=method.shift,
        cutout=method.cutout,
    )
    model.kept = round(config.batch_size * method.kept)
    model.last_losses = tf.Variable(tf.fill(examples.labels.shape, UNSEEN), trainable=False)
    model.compile(
        optimizer=_build_optimizer(config, method, model=model, steps=steps),
        loss=smoothed_cross_entropy(method.label_smoothing),
        metrics=["accuracy"],
        jit_compile=jit_compile,
        # Compiled by XLA, a whole epoch is one call: nothing comes back to the host in between.
        steps_per_execution=steps // config.epochs if jit_compile else 1,
    )
    # Now, so that the slow weights of lookahead start from the initial ones.
    model.optimizer.build(model.trainable_variables)
    return model


def _build_optimizer(
    config: TrainConfig, method: FastMethod, *, model: keras.Model, steps: int
) -> keras.optimizers.Optimizer:
    whitening_bias = model.get_layer("whitening").bias
    whitening_steps = steps * WHITENING_BIAS_EPOCHS // config.epochs

    def group_of(variable: keras.Variable) -> Group:
        if is_kernel(variable):
            rate = 1.0
        else:
            rate = method.head_rate if variable.name == "kernel" else method.bias_rate
        return Group(
            rate=rate,
            weight_decay=config.weight_decay / (rate * config.learning_rate),
            steps=whitening_steps if variable is whitening_bias else None,
        )

    schedule = WarmupThenLinear(config.learning_rate, steps=steps, warmup=method.warmup)
    options: dict[str, Any] = {"group_of": group_of, "momentum": method.momentum}
    if method.lookahead_decay:
        options["lookahead"] = Lookahead(model.weights, method.lookahead_decay, steps)
    if config.optimizer == "muon":
        return Muon(schedule, kernel_momentum=method.kernel_momentum, **options)
    return GroupSGD(schedule, **options)


def callbacks(config: TrainConfig) -> list[keras.callbacks.Callback]:
    """Returns what `fit` has to call."""
    return [_FreezeWhitening()]


def batches(config: TrainConfig, *, examples: Examples, epochs: range) -> tf.data.Dataset:
    """Returns what `fit` is given for these epochs."""
    sizes = FAST_METHODS[config.recipe].sizes
    return plan_steps(
        len(examples.labels),
        batch_size=config.batch_size,
        seed=config.seed,
        epochs=epochs,
        sizes=[sizes[epoch * len(sizes) // config.epochs] for epoch in range(config.epochs)],
    )
