"""The fast recipes: what the airbench family found, and where this project differs.

Sources: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv:2404.00498), here "the
paper", and the programs airbench94_muon.py and airbench96.py of KellerJordan/cifar10-airbench.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from keras_cifar.recipes.recipe import Defaults

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from keras_cifar.data.examples import Examples
    from keras_cifar.data.pipeline import Share
    from keras_cifar.optimize.group_sgd import Group
    from keras_cifar.recipes.config import TrainConfig

# airbench94.py: the whitening layer's bias is trained at first and then left alone.
WHITENING_BIAS_EPOCHS = 3
_MOMENTUM = 0.85  # of SGD, in both programs


@dataclass(frozen=True)
class FastRecipe:
    """A network and a method of the airbench family.

    Attributes:
        defaults: by optimiser, as every recipe's.
        groups: filters of the convolutions of each group.
        head_bound: the head's weights are uniform within this at first.
        logit_scale: factor of the head's outputs.
        batch_norm_momentum: share of the moving moments that a step keeps.
        label_smoothing: share of the target that is divided among all classes.
        kept: share of the examples of a batch that are trained on: those that had the highest loss
            the last time they were.
        sizes: side of the training images, in pixels, in equal parts of the run.
        shift: pixels by which a training image is moved at most, up or down and left or right.
        cutout: side of the square that is blanked in a training image, in pixels; 0 for none.
        warmup: share of the run in which the rate rises, before it falls to 0.
        bias_rate: learning rate of the biases, as a multiple of the convolutions'.
        head_rate: learning rate of the head, as a multiple of the convolutions'.
        kernel_momentum: of Muon.
        lookahead_decay: share of themselves that lookahead's slow weights keep at the end of the
            run; 0 for no slow weights.
        strategies: as every recipe's. Lookahead averages all weights after a step on one device.
    """

    defaults: dict[str, Defaults]
    groups: tuple[tuple[int, ...], ...]
    head_bound: float
    logit_scale: float
    batch_norm_momentum: float
    label_smoothing: float
    kept: float
    sizes: tuple[int, ...]
    shift: int
    cutout: int
    warmup: float
    bias_rate: float
    head_rate: float
    kernel_momentum: float
    lookahead_decay: float
    strategies: tuple[str, ...] = ("single",)

    def build_model(self, *, seed: int, **options: Any) -> keras.Model:
        """Returns the network; `options` are those of `keras_cifar.model.airbench.build_model`."""
        from keras_cifar.model import airbench

        return airbench.build_model(
            self.groups,
            head_bound=self.head_bound,
            logit_scale=self.logit_scale,
            batch_norm_momentum=self.batch_norm_momentum,
            seed=seed,
            **options,
        )

    def compile_model(
        self,
        config: TrainConfig,
        *,
        examples: Examples,
        steps: int,
        device: str,
        jit_compile: bool,
    ) -> keras.Model:
        """Returns the network, compiled; its steps take elements of `batches`."""
        import keras

        from keras_cifar.data.on_device import make_batch, mirror_half
        from keras_cifar.optimize.hardest import HardestModel, MultiWorkerHardestModel
        from keras_cifar.optimize.loss import smoothed_cross_entropy
        from keras_cifar.optimize.loss_scale import agreed

        is_shared = config.strategy == "multi-worker"
        model = (MultiWorkerHardestModel if is_shared else HardestModel)(
            self._network(config, examples=examples, device=device),
            examples=examples._replace(images=mirror_half(examples.images, seed=config.seed)),
            make_batch=partial(make_batch, shift=self.shift, cutout=self.cutout),
            kept=self.images_per_step(config),
        )
        optimizer = self._optimizer(config, model=model, steps=steps)
        model.compile(
            optimizer=agreed(optimizer, precision=config.precision),
            loss=smoothed_cross_entropy(self.label_smoothing),
            metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
            jit_compile=jit_compile,
            # Compiled by XLA, a whole epoch is one call: nothing comes back to the host in between.
            steps_per_execution=steps // config.epochs if jit_compile else 1,
        )
        # Now, so that the slow weights of lookahead start from the initial ones.
        model.optimizer.build(model.trainable_variables)
        return model

    def _network(self, config: TrainConfig, *, examples: Examples, device: str) -> keras.Model:
        """Returns the network for images of any size, its first layer whitening `examples`."""
        from keras_cifar.accelerate import accelerate
        from keras_cifar.distribute.replicas import synchronise
        from keras_cifar.model.whitening import WHITENING_IMAGES, whitening_filters

        network = self.build_model(seed=config.seed, image_shape=(None, None, 3))
        if config.sync_batch_norm:
            synchronise(network)
        if config.accelerate:
            network = accelerate(network, device=device)
        kernel = network.get_layer("whitening").kernel
        kernel.assign(whitening_filters(examples.images[:WHITENING_IMAGES]))
        kernel.trainable = False
        return network

    def _optimizer(
        self, config: TrainConfig, *, model: keras.Model, steps: int
    ) -> keras.optimizers.Optimizer:
        from keras_cifar.optimize.group_sgd import GroupSGD, Lookahead
        from keras_cifar.optimize.muon import Muon
        from keras_cifar.optimize.schedules import WarmupThenLinear

        schedule = WarmupThenLinear(config.learning_rate, steps=steps, warmup=self.warmup)
        group_of = partial(self._group, config, model=model, steps=steps)
        options: dict[str, Any] = {"group_of": group_of, "momentum": _MOMENTUM}
        if self.lookahead_decay:
            options["lookahead"] = Lookahead(model.weights, self.lookahead_decay, steps)
        if config.optimizer == "muon":
            return Muon(schedule, kernel_momentum=self.kernel_momentum, **options)
        return GroupSGD(schedule, **options)

    def _group(
        self, config: TrainConfig, variable: keras.Variable, *, model: keras.Model, steps: int
    ) -> Group:
        """Returns how one variable is trained."""
        from keras_cifar.optimize.group_sgd import Group

        if len(variable.shape) == 4:  # a convolution's kernel
            rate = 1.0
        else:
            rate = self.head_rate if variable.name == "kernel" else self.bias_rate
        is_whitening = variable is model.get_layer("whitening").bias
        return Group(
            rate=rate,
            # As part of the gradient, momentum makes 1 / (1 - momentum) of it.
            weight_decay=config.weight_decay * (1 - _MOMENTUM) / rate,
            steps=steps * WHITENING_BIAS_EPOCHS // config.epochs if is_whitening else None,
        )

    def set_weights(self, model: keras.Model, weights: Sequence[Any]) -> None:
        """Sets them, the whitening too, and has lookahead's slow weights start from them."""
        model.set_weights(weights)
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # in float16
        optimizer.restart_slow_weights()

    def images_per_step(self, config: TrainConfig) -> int:
        """Returns how many of a batch are kept."""
        return round(config.batch_size * self.kept)

    def batches(
        self, config: TrainConfig, *, examples: Examples, epochs: range, share: Share | None = None
    ) -> tf.data.Dataset:
        """Returns plans of steps: which images, how they are augmented, and their size.

        All replicas get the same plans, and take their parts after the hardest are known.
        """
        from keras_cifar.data.on_device import plan_steps

        return plan_steps(
            len(examples.labels),
            batch_size=config.batch_size,
            seed=config.seed,
            epochs=epochs,
            sizes=self._sizes(config),
            copies=len(share.replicas) if share else 1,
        )

    def _sizes(self, config: TrainConfig) -> list[int]:
        """Returns the side of the images in each epoch."""
        parts = len(self.sizes)
        return [self.sizes[epoch * parts // config.epochs] for epoch in range(config.epochs)]

    def first_batch(self, config: TrainConfig, *, examples: Examples, epoch: int) -> Examples:
        """Returns the images of an epoch's first step, those included that it leaves out."""
        from keras_cifar.data.on_device import make_batch, mirror_half

        plans = self.batches(config, examples=examples, epochs=range(epoch, epoch + 1))
        mirrored = examples._replace(images=mirror_half(examples.images, seed=config.seed))
        images, labels = make_batch(
            next(iter(plans)), mirrored, shift=self.shift, cutout=self.cutout
        )
        return examples._replace(images=images.numpy(), labels=labels.numpy())

    def epoch_costs(self, config: TrainConfig) -> list[float]:
        """Returns the pixels of an image in each."""
        return [float(size**2) for size in self._sizes(config)]

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns what leaves the whitening alone once its rate is 0."""
        from keras_cifar.optimize.freezing import FreezeBias

        return [FreezeBias("whitening", epochs=WHITENING_BIAS_EPOCHS)]


def _airbench94(
    *, epochs: int, batch_size: int, learning_rate: float, **settings: Any
) -> FastRecipe:
    """Returns airbench94_muon.py's recipe for batches of a size, at a rate of Muon."""
    return FastRecipe(
        defaults={
            "muon": Defaults(
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                # There, a step takes 2e-6 for each image, before momentum makes more of it.
                weight_decay=2e-6 * batch_size / learning_rate / (1 - _MOMENTUM),
                validation_fraction=0.0,
            )
        },
        groups=((64, 64), (256, 256), (256, 256)),
        head_bound=math.sqrt(3),  # deviation 1
        logit_scale=1 / 256,
        label_smoothing=0.2,
        shift=2,
        cutout=0,
        warmup=0.0,
        # For each image 0.053 and 0.67; the loss here is the mean of the batch.
        bias_rate=0.053 * batch_size / learning_rate,
        head_rate=0.67 * batch_size / learning_rate,
        lookahead_decay=0.0,
        strategies=("single", "multi-worker"),
        **settings,
    )


# airbench94_muon.py but for the batch: it has 2,000 images, a size for a GPU. A CPU is as fast with
# 500, and ends better after as many epochs, by validation loss. What is per step follows the batch:
# for k steps in place of one, the momentum of the moments becomes its k-th root, and a rate of
# Muon's, which is an angle, is divided by about the root of k. The rates of SGD stay the same for
# each image.
#
# Chosen by validation accuracy (45,000 images, test-time augmentation, the means of seeds 1 to 4
# after 9 epochs): rates of 0.09, 0.12 and 0.15 gave 93.52, 93.49 and 93.29 %; momenta of 0.7, 0.8
# and 0.88 gave 93.45, 93.49 and 93.08 %. Half or twice the rate of the biases, half that of the
# head, twice the weight decay and half the label smoothing all gave 93.44 to 93.48 %.
FAST94 = _airbench94(
    epochs=12,
    batch_size=500,
    learning_rate=0.09,  # there 0.24
    batch_norm_momentum=0.6 ** (1 / 4),
    # Measured as above: 12 epochs of 0.6 gave 93.73 %, 9 of all examples 93.59 % (seeds 1 to 3), in
    # 5/4 of the time. 9 epochs of 0.7 of the larger images gave 93.37 %, of a random 0.7 92.79 %.
    # Of 500, 0.64 are 320: four even parts, as `accelerate/kernel_gradients.py` takes them.
    kept=0.64,
    # As in a variant of hiverge/cifar10-speedrun: small images teach the coarse for less.
    sizes=(24,) * 5 + (28,) * 4 + (32,) * 3,
    kernel_momentum=0.8,  # there 0.6
)
# airbench94_muon.py as it is, made for a GPU. Here it has not been measured on one.
FAST94_GPU = _airbench94(
    epochs=8,
    batch_size=2000,
    learning_rate=0.24,
    batch_norm_momentum=0.6,
    kept=1.0,
    sizes=(32,),
    kernel_momentum=0.6,
)
# airbench96.py. Its rate and decay are those of 1,024 images and of the momentum's sum, 7,850.7.
FAST96 = FastRecipe(
    defaults={
        "sgd": Defaults(
            epochs=37,
            batch_size=1024,
            learning_rate=9.0 / 7850.7 * 1024,
            weight_decay=0.012 / 9.0 / (1 - _MOMENTUM),
            validation_fraction=0.0,
        )
    },
    groups=((128,) * 3, (384,) * 3, (512,) * 3),
    head_bound=1 / 16,
    logit_scale=1 / 9,
    batch_norm_momentum=0.9,
    label_smoothing=0.2,
    kept=1.0,
    sizes=(32,),
    shift=4,
    cutout=12,
    warmup=0.1,
    bias_rate=64.0,  # fast statistics and biases: the paper, section 3.3
    head_rate=1.0,
    kernel_momentum=0.0,  # no Muon
    lookahead_decay=0.95**5,
)
