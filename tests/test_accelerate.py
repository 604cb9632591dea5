"""Each faster layer computes what the plain ones in its place compute: values and gradients."""

from functools import partial
from inspect import signature

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_cifar.accelerate import accelerate
from keras_cifar.accelerate.batch_norm import FusedBatchNormalization
from keras_cifar.accelerate.biases import NormalizedBias, PooledBias
from keras_cifar.accelerate.discarded import PooledConvolution
from keras_cifar.accelerate.dropout import ExactDropout
from keras_cifar.accelerate.kernel_gradients import DeepConvolution, convolve
from keras_cifar.accelerate.pooling import ComparingMaxPooling
from keras_cifar.accelerate.rows import RowRescaling
from keras_cifar.accelerate.silu import FusedSilu
from keras_cifar.cifar10 import MEAN, STANDARD_DEVIATION
from keras_cifar.model import article
from keras_cifar.model.normalization import image_normalization
from keras_cifar.recipes import RECIPES, TrainConfig
from keras_cifar.train.compile import compile_model

DEEP = {"filters": 128, "kernel_size": 3, "padding": "same", "use_bias": False}
# By the name of a replacement: the layers that it is for, on images of 64 channels, and its own.
# Behind each stands what makes outputs that a gradient of many sizes goes through.
PAIRS = {
    "batch norm": (lambda: [layers.BatchNormalization(momentum=0.9)], [FusedBatchNormalization]),
    "batch norm without gamma": (
        lambda: [layers.BatchNormalization(epsilon=1e-12, scale=False)],
        [FusedBatchNormalization],
    ),
    "normalised bias": (
        lambda: [layers.Conv2D(8, 3, padding="same"), layers.BatchNormalization()],
        [layers.Conv2D, NormalizedBias, FusedBatchNormalization],
    ),
    "pooled bias": (
        lambda: [layers.Conv2D(8, 3), layers.ReLU(), layers.MaxPooling2D(2)],
        [layers.Conv2D, PooledBias, layers.ReLU],
    ),
    "deep convolution": (lambda: [layers.Conv2D(**DEEP)], [layers.Conv2D]),
    "pooled convolution": (
        lambda: [layers.Cropping2D(((1, 0), (1, 2))), layers.Conv2D(**DEEP), layers.MaxPooling2D()],
        [layers.Cropping2D, PooledConvolution, layers.MaxPooling2D],
    ),
    "pooled convolution of few filters": (
        lambda: [
            layers.Cropping2D(((1, 0), (1, 0))),
            layers.Conv2D(**{**DEEP, "filters": 8}),
            layers.MaxPooling2D(),
        ],
        [layers.Cropping2D, PooledConvolution, layers.MaxPooling2D],
    ),
    "silu": (lambda: [layers.Activation("silu")], [FusedSilu]),
    "residual": (
        lambda: [_Residual([layers.BatchNormalization(), layers.ReLU()])],
        [FusedBatchNormalization, layers.ReLU, layers.Add],
    ),
}
IN_BFLOAT16 = {"deep convolution": [DeepConvolution]}


class _Residual(list):
    """Layers with a way round them."""


@pytest.fixture(autouse=True)
def policy():
    yield
    keras.config.set_dtype_policy("float32")


def network(make, *, precision="float32", shape=(8, 8, 64)):
    """A Functional model of the layers that are made, its weights the same each time."""
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    keras.utils.set_random_seed(0)
    image = x = keras.Input(shape)
    for layer in make():
        if isinstance(layer, _Residual):
            shortcut = x
            for inner in layer:
                x = inner(x)
            x = layers.Add()([shortcut, x])
        else:
            x = layer(x)
    model = keras.Model(image, x)
    random = np.random.default_rng(0)
    model.set_weights([0.5 + random.random(value.shape) for value in model.get_weights()])
    return model


def kinds(model):
    return [type(layer) for layer in model.layers if not isinstance(layer, layers.InputLayer)]


def values_and_gradients(model, images):
    """Outputs, gradients by the images and by each weight, and the weights after the step."""
    images = tf.constant(images, tf.float32)

    @tf.function(reduce_retracing=True)  # as in training: a graph is changed before it runs
    def step(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = tf.cast(model(images, training=True), tf.float32)
            weights = np.random.default_rng(1).normal(size=outputs.shape)
            loss = tf.reduce_sum(outputs * weights)
        return outputs, tape.gradient(loss, [images, *model.trainable_variables])

    outputs, gradients = step(images)
    moved = [variable.numpy() for variable in model.non_trainable_variables]
    return [outputs.numpy(), *(gradient.numpy() for gradient in gradients), *moved]


def distances(found, expected):
    """The distance of each array from what it should be, beside its own size."""
    return [
        np.linalg.norm(one - other) / (np.linalg.norm(other) + 1e-3 * other.size**0.5)
        for one, other in zip(found, expected, strict=True)
    ]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).normal(size=(6, 8, 8, 64)).astype("float32")


@pytest.mark.parametrize("name", PAIRS)
def test_in_float32_values_and_gradients_are_those_of_the_plain_layers(name, images):
    make, expected_kinds = PAIRS[name]
    plain = network(make)
    fast = accelerate(plain, device="CPU")
    assert kinds(fast) == expected_kinds
    for distance in distances(
        values_and_gradients(fast, images), values_and_gradients(plain, images)
    ):
        assert distance < 5e-4


@pytest.mark.parametrize("name", PAIRS)
def test_in_bfloat16_they_are_as_near_to_float32s_as_the_plain_layers_are(name, images):
    make, expected_kinds = PAIRS[name]
    exact = values_and_gradients(network(make), images)
    plain = network(make, precision="bfloat16")
    fast = accelerate(plain, device="CPU")
    assert kinds(fast) == IN_BFLOAT16.get(name, expected_kinds)
    of_fast = distances(values_and_gradients(fast, images), exact)
    of_plain = distances(values_and_gradients(plain, images), exact)
    for distance, other in zip(of_fast, of_plain, strict=True):
        assert distance < max(1.5 * other, 0.01)


def test_weights_go_over_in_order_both_ways(sample):
    plain = article.build_model(seed=3)
    fast = accelerate(plain, device="CPU")
    for one, other in zip(fast.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    other = article.build_model(seed=4)
    other.set_weights(fast.get_weights())
    np.testing.assert_allclose(other(sample.images[:4]), fast(sample.images[:4]), atol=1e-5)


@pytest.mark.parametrize(
    "plain",
    [
        layers.BatchNormalization(axis=1),
        layers.BatchNormalization(center=False),
        layers.Conv2D(128, 3, padding="same", use_bias=False, strides=2),
        layers.Conv2D(128, 3, padding="valid", use_bias=False),
        layers.Conv2D(128, 3, padding="same", use_bias=False, dilation_rate=2),
        layers.Conv2D(128, 3, padding="same", use_bias=False, groups=2),
        layers.Conv2D(128, 3, padding="same", use_bias=False, activation="relu"),
        layers.Conv2D(128, 3, padding="same"),
        layers.Conv2D(128, 5, padding="same", use_bias=False),
        layers.Conv2D(63, 3, padding="same", use_bias=False),
        layers.Rescaling(1 / 255),
        layers.Activation("gelu"),
    ],
    ids=lambda layer: f"{type(layer).__name__}",
)
def test_where_a_condition_fails_the_plain_layer_stays(plain):
    config = {**plain.get_config(), "dtype": "mixed_bfloat16"}
    model = network(lambda: [plain.__class__.from_config(config)], precision="bfloat16")
    assert kinds(accelerate(model, device="CPU")) == [type(plain)]


@pytest.mark.skipif(
    "renorm" not in signature(layers.BatchNormalization).parameters, reason="Keras 3.12 has none"
)
def test_a_batch_renormalization_stays_one():
    model = network(lambda: [layers.BatchNormalization(renorm=True)])
    assert kinds(accelerate(model, device="CPU")) == [layers.BatchNormalization]


@pytest.mark.parametrize(
    "layer",
    [
        layers.BatchNormalization(beta_regularizer="l2"),
        layers.Conv2D(128, 3, padding="same", use_bias=False, kernel_constraint="max_norm"),
    ],
)
def test_a_layer_with_a_regularizer_or_a_constraint_stays_plain(layer):
    model = network(lambda: [layer.__class__.from_config(layer.get_config())], precision="bfloat16")
    assert kinds(accelerate(model, device="CPU")) == kinds(model)


@pytest.mark.parametrize(
    "behind",
    [
        [layers.ReLU(max_value=6), layers.MaxPooling2D(2)],
        [layers.ReLU(), layers.MaxPooling2D(2, strides=1)],
        [layers.ReLU(), layers.MaxPooling2D(2, padding="same")],
        [layers.ReLU(), layers.MaxPooling2D(3)],
        [layers.MaxPooling2D(2), layers.ReLU()],
    ],
)
def test_another_pooling_leaves_the_bias_with_its_convolution(behind):
    copies = [layer.__class__.from_config(layer.get_config()) for layer in behind]
    plain = network(lambda: [layers.Conv2D(8, 3), *copies])
    assert kinds(accelerate(plain, device="CPU")) == kinds(plain)


def test_what_else_takes_a_convolutions_output_keeps_its_bias_there():
    image = keras.Input((8, 8, 4))
    convolved = layers.Conv2D(4, 3, padding="same")(image)
    normalised = layers.BatchNormalization()(convolved)
    plain = keras.Model(image, layers.Add()([convolved, normalised]))
    assert NormalizedBias not in kinds(accelerate(plain, device="CPU"))


def test_a_gpu_gets_what_does_not_depend_on_a_cpu():
    fast = accelerate(article.build_model(seed=0), device="GPU")
    assert {FusedBatchNormalization, ComparingMaxPooling} <= set(kinds(fast))
    assert layers.MaxPooling2D not in kinds(fast)
    assert not {RowRescaling, PooledBias, NormalizedBias, DeepConvolution} & set(kinds(fast))


@pytest.mark.parametrize(
    ("precision", "names"),
    [
        ("bfloat16", ["block2_conv1", "block2_conv2", "block3_conv1", "block3_conv2"]),
        ("float32", []),
    ],
)
@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="is for a CPU")
def test_training_uses_it_and_a_setting_switches_it_off(sample, precision, names):
    config = TrainConfig(dataset="sample", precision=precision, strategy="single")
    model = compile_model(config, examples=sample, steps=10)
    assert [layer.name for layer in model.layers if type(layer) is DeepConvolution] == names
    assert "updates" in type(model.optimizer).__module__
    plain = compile_model(
        TrainConfig(dataset="sample", precision=precision, strategy="single", accelerate=False),
        examples=sample,
        steps=10,
    )
    assert kinds(plain) == kinds(article.build_model(seed=0))
    assert type(plain.optimizer) is keras.optimizers.SGD


@pytest.mark.parametrize(("recipe", "count"), [("fast94", 3), ("fast96", 6)])
def test_the_convolutions_of_the_fast_networks_are_replaced(recipe, count):
    keras.config.set_dtype_policy("mixed_bfloat16")
    fast = accelerate(RECIPES[recipe].build_model(seed=0), device="CPU")
    assert kinds(fast).count(DeepConvolution) == count
    pooled = [layer for layer in fast.layers if type(layer) is PooledConvolution]
    assert [layer.as_convolution for layer in pooled] == [False, True, True]
    # The whitening's alone, of 2x2 pixels.
    assert kinds(fast).count(layers.Conv2D) == 1
    assert not {layers.BatchNormalization, layers.Activation} & set(kinds(fast))


# Kernel gradients.


def outcome_and_gradients(convolution, images, kernel, upstream):
    with tf.GradientTape() as tape:
        tape.watch([images, kernel])
        outputs = convolution(images, kernel)
    return outputs, *tape.gradient(outputs, [images, kernel], upstream)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("count", [4, 5])
@pytest.mark.parametrize("size", [(7, 7), (6, 6), (2, 2), (3, 5)])
def test_convolution_and_gradients_are_those_of_tensorflow(size, count, known):
    """Whether the number of images and their size are known beforehand or not."""
    random = np.random.default_rng(0)
    images, kernel, upstream = (
        tf.constant(random.normal(size=shape), tf.float32)
        for shape in ((count, *size, 5), (3, 3, 5, 6), (count, *size, 6))
    )
    expected = outcome_and_gradients(
        lambda images, kernel: tf.nn.conv2d(images, kernel, 1, "SAME"), images, kernel, upstream
    )
    shapes = [None, None, None, 5], [3, 3, 5, 6], [None, None, None, 6]
    compiled = tf.function(
        partial(outcome_and_gradients, convolve),
        input_signature=None if known else [tf.TensorSpec(shape) for shape in shapes],
    )
    found = compiled(images, kernel, upstream)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("as_convolution", [True, False])
@pytest.mark.parametrize("size", [(7, 7), (6, 6), (2, 3), (3, 5)])
def test_a_pooling_gets_of_a_convolution_what_it_takes(size, as_convolution, known):
    """Whether the images' size is known beforehand or not; odd sizes lose a row and a column."""
    random = np.random.default_rng(0)
    height, width = size
    images, kernel, upstream = (
        tf.constant(random.normal(size=shape), tf.float32)
        for shape in ((4, *size, 5), (3, 3, 5, 6), (4, height // 2, width // 2, 6))
    )
    layer = PooledConvolution(6, as_convolution=as_convolution)
    layer.build((None, None, None, 5))

    def pooled(images, kernel):
        layer.kernel.assign(kernel)
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images)
            pooled = tf.nn.max_pool2d(outputs, 2, 2, "VALID")
        return pooled, *tape.gradient(pooled, [images, layer.kernel.value], upstream), outputs

    expected = outcome_and_gradients(
        lambda images, kernel: tf.nn.max_pool2d(
            tf.nn.conv2d(images, kernel, 1, "SAME"), 2, 2, "VALID"
        ),
        images,
        kernel,
        upstream,
    )
    shapes = [None, None, None, 5], [3, 3, 5, 6]
    compiled = tf.function(
        pooled, input_signature=None if known else [tf.TensorSpec(shape) for shape in shapes]
    )
    *found, outputs = compiled(images, kernel)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    dropped = int(height % 2 == width % 2 == 1)
    assert outputs.shape == (4, height - dropped, width - dropped, 6)


@pytest.mark.parametrize(
    "layer",
    [
        layers.MaxPooling2D(3),
        layers.MaxPooling2D(2, strides=1),
        layers.MaxPooling2D(2, padding="same"),
        layers.AveragePooling2D(2),
    ],
)
def test_another_pooling_gets_all_of_a_convolution(layer):
    convolution = layers.Conv2D(8, 3, padding="same", use_bias=False)
    plain = network(lambda: [convolution, layer], shape=(7, 7, 4))
    assert kinds(accelerate(plain, device="CPU")) == kinds(plain)


def test_of_even_sizes_nothing_is_discarded():
    convolution = layers.Conv2D(8, 3, padding="same", use_bias=False)
    plain = network(lambda: [convolution, layers.MaxPooling2D(2)], shape=(7, 8, 4))
    assert kinds(accelerate(plain, device="CPU")) == kinds(plain)


@pytest.mark.parametrize(("count", "expected"), [(17, 6), (20, 6), (24, 6), (25, 8)])
def test_onednn_never_gets_an_odd_number_of_channels(count, expected):
    """It would read the memory behind its input, and give NaN where that holds NaN."""

    @tf.function
    def gradients(images, kernel):
        return tf.gradients(convolve(images, kernel), [images, kernel])

    graph = gradients.get_concrete_function(
        tf.TensorSpec([count, 7, 7, 2], tf.bfloat16), tf.TensorSpec([3, 3, 2, 4], tf.bfloat16)
    ).graph
    channels = {op.inputs[0].shape[-1] for op in graph.get_operations() if op.type == "Conv2D"}
    assert channels == {2, expected}


# Pooling for XLA on a GPU.


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (2, 5)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pooling_by_comparisons_is_tensorflows_equal_values_included(size, precision):
    """Of equal values in a window, the first gets the gradient."""
    plain = network(lambda: [layers.MaxPooling2D(2)], precision=precision, shape=(*size, 64))
    compared = accelerate(plain, device="GPU")
    assert kinds(compared) == [ComparingMaxPooling]
    images = np.random.default_rng(0).integers(3, size=(6, *size, 64)).astype("float32")
    found, expected = (values_and_gradients(model, images) for model in (compared, plain))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


# Biases.


def test_a_biases_gradient_is_added_up_in_float32():
    """TensorFlow's own comes to 256 here: the next number of bfloat16 is 258."""
    layer = PooledBias(dtype="mixed_bfloat16")
    images = tf.zeros([16, 32, 32, 4])
    layer.build(images.shape)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(tf.cast(layer(images), tf.float32))
    gradient = tape.gradient(value, layer.bias.value)
    assert keras.backend.standardize_dtype(gradient.dtype) == "float32"
    np.testing.assert_array_equal(gradient, 16 * 16 * 16)


@pytest.mark.parametrize("size", [8, 7])
def test_the_shape_after_the_pooling_is_told(size):
    assert PooledBias().compute_output_shape((None, size, None, 4)) == (None, size // 2, None, 4)
    assert PooledBias()(tf.zeros([2, size, size, 4])).shape == (2, size // 2, size // 2, 4)


def test_a_bias_before_a_batch_norm_has_no_gradient():
    layer = NormalizedBias()
    layer.build((None, 8, 8, 4))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer(tf.ones([2, 8, 8, 4])))
    np.testing.assert_array_equal(tape.gradient(value, layer.bias.value), 0)


# Rows of pixels.


@pytest.mark.parametrize("size", [(32, 24), (None, None)])
def test_images_are_normalised_whether_their_size_is_known_or_not(sample, size):
    image = keras.Input((*size, 3), dtype="uint8")
    plain = keras.Model(image, image_normalization()(image))
    fast = accelerate(plain, device="CPU")
    assert kinds(fast) == [RowRescaling]
    images = sample.images[:8, :, :24]
    expected = (images - np.array(MEAN)) / np.array(STANDARD_DEVIATION)
    for model in (plain, fast):
        np.testing.assert_allclose(model(images), expected, rtol=1e-5, atol=1e-5)


# Dropout: its random numbers are others than Keras's, so its rate is what is compared.


def dropped(layer, *shape):
    outputs = layer(tf.ones(shape), training=True)
    assert outputs.dtype == layer.compute_dtype
    return tf.cast(outputs, tf.float32).numpy()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_as_many_are_dropped_as_it_says(rate, dtype):
    count = 1_000_000
    outputs = dropped(ExactDropout(rate, seed=0, dtype=dtype), count)
    deviation = (rate * (1 - rate) / count) ** 0.5
    assert (outputs == 0).mean() == pytest.approx(rate, abs=4 * deviation)
    np.testing.assert_allclose(outputs[outputs != 0], 1 / (1 - rate), rtol=2**-8)


def test_whole_channels_are_dropped_where_keras_does():
    plain = network(lambda: [layers.SpatialDropout2D(0.3)], shape=(3, 5, 7))
    (layer,) = accelerate(plain, device="CPU").layers[1:]
    assert type(layer) is ExactDropout
    outputs = dropped(layer, 50, 3, 5, 7)
    assert (outputs == outputs[:, :1, :1]).all()
    assert (outputs[:, 0, 0] == 0).mean() == pytest.approx(0.3, abs=0.1)


def test_each_call_drops_others_and_a_seed_the_same_again():
    first, again = (ExactDropout(0.5, seed=3) for _ in range(2))
    one, other = dropped(first, 9, 9), dropped(first, 9, 9)
    assert (one != other).any()
    np.testing.assert_array_equal(dropped(again, 9, 9), one)
    assert (dropped(ExactDropout(0.5, seed=4), 9, 9) != one).any()


def test_the_generators_of_dropout_go_over_too():
    plain = article.build_model(seed=5)
    states = [variable.numpy() for variable in plain.variables if "seed" in variable.path]
    fast = accelerate(plain, device="CPU")
    found = [variable.numpy() for variable in fast.variables if "seed" in variable.path]
    assert len(states) == 3
    np.testing.assert_array_equal(found, states)


def test_the_gradient_goes_through_what_was_kept():
    images = tf.ones([4, 9])
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = ExactDropout(0.5, seed=0)(images, training=True)
    np.testing.assert_array_equal(tape.gradient(outputs, images), outputs)


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_otherwise_nothing_is_dropped(rate, training):
    images = tf.random.normal([4, 9])
    np.testing.assert_array_equal(ExactDropout(rate)(images, training=training), images)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_number_of_images_that_is_not_known_beforehand_is_fine(jit_compile):
    layer = ExactDropout(0.5, seed=0)
    call = tf.function(
        lambda images: layer(images, training=True),
        input_signature=[tf.TensorSpec([None, 3])],
        jit_compile=jit_compile,
    )
    assert {len(call(tf.ones([count, 3]))) for count in (1, 2, 5)} == {1, 2, 5}
