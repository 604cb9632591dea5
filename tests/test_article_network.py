"""The network is the article's: the same function as its PyTorch original, here in NumPy."""

from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cifar.accelerate import accelerate
from keras_cifar.cifar10 import MEAN, STANDARD_DEVIATION
from keras_cifar.model.article import build_model
from keras_cifar.recipes.article import MOMENTUM

PLAIN = build_model(seed=0)
BLOCKS = ((3, 32, 64), (64, 128, 128), (128, 256, 256))
LINEAR = ((4096, 1024), (1024, 512), (512, 10))
EPSILON, BN_MOMENTUM = 1e-5, 0.1


class Step(NamedTuple):
    """What PyTorch has after loss.backward(): by parameter name, channels first."""

    logits: np.ndarray
    loss: float
    gradients: dict[str, np.ndarray]
    running: dict[str, np.ndarray]


def random_parameters(seed):
    """Weights in PyTorch's names and layouts, with running statistics that are not trivial."""
    random = np.random.default_rng(seed)
    parameters = {}
    for block, (first, middle, last) in enumerate(BLOCKS, 1):
        for layer, fan_in, out in ((1, first, middle), (2, middle, last)):
            bound = (2 / (9 * fan_in)) ** 0.5
            parameters[f"conv{block}{layer}.weight"] = random.normal(0, bound, (out, fan_in, 3, 3))
            parameters[f"conv{block}{layer}.bias"] = random.normal(0, 0.1, out)
        parameters[f"bn{block}.weight"] = random.uniform(0.5, 1.5, middle)
        parameters[f"bn{block}.bias"] = random.normal(0, 0.2, middle)
        parameters[f"bn{block}.running_mean"] = random.normal(0, 0.3, middle)
        parameters[f"bn{block}.running_var"] = random.uniform(0.5, 2, middle)
    for layer, (fan_in, out) in enumerate(LINEAR, 1):
        parameters[f"fc{layer}.weight"] = random.normal(0, fan_in**-0.5, (out, fan_in))
        parameters[f"fc{layer}.bias"] = random.normal(0, 0.1, out)
    return parameters


def patches(x):
    """(n, c, h, w) -> (n, h, w, c * 9): the 3x3 neighbourhoods, padded with 0."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    n, c, h, w = x.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * 9)


def convolve(x, weight):
    return (patches(x) @ weight.reshape(len(weight), -1).T).transpose(0, 3, 1, 2)


def convolve_backward(x, weight, gradient):
    """Gradients of the input and of the weight."""
    out = gradient.transpose(0, 2, 3, 1).reshape(-1, len(weight))
    weight_gradient = (out.T @ patches(x).reshape(len(out), -1)).reshape(weight.shape)
    turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return convolve(gradient, turned), weight_gradient


def per_channel(values):
    return values[None, :, None, None]


def windows(x):
    """(n, c, h, w) -> (n, c, h / 2, w / 2, 4): the 2x2 windows, row by row."""
    n, c, h, w = x.shape
    split = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return split.reshape(n, c, h // 2, w // 2, 4)


def pool(x):
    return windows(x).max(axis=-1)


def pool_backward(x, gradient):
    """To the first of the highest: in an image's white background, all four are the same."""
    first = np.eye(4)[windows(x).argmax(axis=-1)] * gradient[..., None]
    n, c, h, w, _ = first.shape
    return first.reshape(n, c, h, w, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(x.shape)


def pytorch_step(p, images, labels, *, training):
    """Forward, and where `training` backward, of the original in train() or eval() mode."""
    x = images.transpose(0, 3, 1, 2).astype(np.float64)
    x = (x - per_channel(np.array(MEAN))) / per_channel(np.array(STANDARD_DEVIATION))
    kept, running = [], {}
    for block in (1, 2, 3):
        a = convolve(x, p[f"conv{block}1.weight"]) + per_channel(p[f"conv{block}1.bias"])
        if training:
            mean, variance = a.mean(axis=(0, 2, 3)), a.var(axis=(0, 2, 3))
            # PyTorch divides the squares of the running variance by count - 1, Keras by count.
            for name, value in (("mean", mean), ("var", variance)):
                old = p[f"bn{block}.running_{name}"]
                running[f"bn{block}.running_{name}"] = (1 - BN_MOMENTUM) * old + BN_MOMENTUM * value
        else:
            mean, variance = p[f"bn{block}.running_mean"], p[f"bn{block}.running_var"]
        normal = (a - per_channel(mean)) / per_channel(np.sqrt(variance + EPSILON))
        b = normal * per_channel(p[f"bn{block}.weight"]) + per_channel(p[f"bn{block}.bias"])
        c = np.maximum(b, 0)
        d = convolve(c, p[f"conv{block}2.weight"]) + per_channel(p[f"conv{block}2.bias"])
        kept.append((x, normal, variance, b, c, d))
        x = pool(np.maximum(d, 0))
    features = [x.reshape(len(x), -1)]
    for layer in (1, 2, 3):
        z = features[-1] @ p[f"fc{layer}.weight"].T + p[f"fc{layer}.bias"]
        features.append(np.maximum(z, 0) if layer < 3 else z)
    logits = features[-1]
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    if not training:
        return Step(logits, loss, {}, {})
    gradient = (np.exp(log_probabilities) - np.eye(10)[labels]) / len(labels)
    return Step(logits, loss, backward(p, kept, features, gradient), running)


def backward(p, kept, features, gradient):
    g = {}
    for layer in (3, 2, 1):
        if layer < 3:
            gradient = gradient * (features[layer] > 0)
        g[f"fc{layer}.weight"] = gradient.T @ features[layer - 1]
        g[f"fc{layer}.bias"] = gradient.sum(axis=0)
        gradient = gradient @ p[f"fc{layer}.weight"]
    gradient = gradient.reshape(-1, 256, 4, 4)
    for block in (3, 2, 1):
        x, normal, variance, b, c, d = kept[block - 1]
        gradient = pool_backward(np.maximum(d, 0), gradient) * (d > 0)
        g[f"conv{block}2.bias"] = gradient.sum(axis=(0, 2, 3))
        gradient, g[f"conv{block}2.weight"] = convolve_backward(
            c, p[f"conv{block}2.weight"], gradient
        )
        gradient = gradient * (b > 0)
        g[f"bn{block}.weight"] = (gradient * normal).sum(axis=(0, 2, 3))
        g[f"bn{block}.bias"] = gradient.sum(axis=(0, 2, 3))
        gradient = gradient * per_channel(p[f"bn{block}.weight"] / np.sqrt(variance + EPSILON))
        gradient = (
            gradient
            - gradient.mean(axis=(0, 2, 3), keepdims=True)
            - normal * (gradient * normal).mean(axis=(0, 2, 3), keepdims=True)
        )
        g[f"conv{block}1.bias"] = gradient.sum(axis=(0, 2, 3))
        gradient, g[f"conv{block}1.weight"] = convolve_backward(
            x, p[f"conv{block}1.weight"], gradient
        )
    return g


def in_keras_layout(parameters):
    """PyTorch's parameters by the names and in the layouts of the Keras model."""
    names = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    arrays = {}
    for name, value in parameters.items():
        layer, kind = name.split(".")
        if layer.startswith("conv"):
            path = f"block{layer[4]}_conv{layer[5]}"
            value = value.transpose(2, 3, 1, 0) if kind == "weight" else value
        elif layer.startswith("bn"):
            path = f"block{layer[2]}_batch_norm"
            kind = {"weight": "gamma", "bias": "beta", **names}[kind]
        else:
            path = {"fc1": "dense1", "fc2": "dense2", "fc3": "logits"}[layer]
            if layer == "fc1" and kind == "weight":
                # PyTorch flattens (256, 4, 4), Keras (4, 4, 256).
                value = value.reshape(-1, 256, 4, 4).transpose(0, 2, 3, 1).reshape(-1, 4096)
            value = value.T if kind == "weight" else value
        arrays[f"{path}/{'kernel' if kind == 'weight' else kind}"] = value
    return arrays


def variables_of(model):
    """The model's weights by the plain network's names; they are in its order."""
    names = [weight.path.removeprefix("article/") for weight in PLAIN.weights]
    return dict(zip(names, model.weights, strict=True))


def carry_over(parameters, model):
    arrays, variables = in_keras_layout(parameters), variables_of(model)
    assert arrays.keys() == variables.keys()
    for name, value in arrays.items():
        variables[name].assign(value)


@pytest.fixture(scope="module")
def textured(sample):
    """The images with the fewest equal neighbours, the least of them first.

    In flat areas the inputs of a pooling window are equal, and float32 and float64 may take
    another one for the highest: the gradients are then both right, and differ. ReLUs at about 0
    do the same, which is why the batches are small.
    """
    equal = (np.diff(sample.images.astype(int), axis=2) == 0).mean(axis=(1, 2, 3))
    return sample.take(np.argsort(equal))


@pytest.fixture(scope="module")
def parameters():
    return random_parameters(seed=1)


@pytest.fixture(params=["plain", "accelerated"])
def model(parameters, request):
    """The network as it is kept, and as it is trained on a CPU."""
    model = build_model(seed=0, dropout=0.0, channel_dropout=0.0)
    carry_over(parameters, model)
    return model if request.param == "plain" else accelerate(model, device="CPU")


def test_the_network_has_the_articles_number_of_parameters(model):
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == 5_852_170


def test_the_network_is_the_articles_layer_by_layer():
    """As Z. Na's PyTorch code lists them; the first one is what that does to the data before."""
    block = ["Conv2D", "BatchNormalization", "ReLU", "Conv2D", "ReLU", "MaxPooling2D"]
    head = ["Flatten", "Dropout", "Dense", "ReLU", "Dense", "ReLU", "Dropout", "Dense"]
    expected = ["Rescaling", *block, *block, "SpatialDropout2D", *block, *head]
    assert [type(layer).__name__ for layer in PLAIN.layers] == expected
    assert all(type(layer).__module__.startswith("keras.") for layer in PLAIN.layers)
    widths = [
        getattr(layer, "filters", 0) or getattr(layer, "units", 0)
        for layer in PLAIN.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
    ]
    assert widths == [32, 64, 128, 128, 256, 256, 1024, 512, 10]
    rates = [layer.rate for layer in PLAIN.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.05, 0.1, 0.1]


def test_inference_agrees_with_pytorch(parameters, model, sample):
    images, labels = sample.images[:2], sample.labels[:2]
    expected = pytorch_step(parameters, images, labels, training=False)
    np.testing.assert_allclose(model(images), expected.logits, atol=1e-4)


def test_gradients_agree_with_pytorch(parameters, model, textured):
    images, labels = textured.images[:2], textured.labels[:2]
    expected = pytorch_step(parameters, images, labels, training=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    names = {id(variable): name for name, variable in variables_of(model).items()}
    trainable = {names[id(variable)]: variable.value for variable in model.trainable_variables}
    with tf.GradientTape() as tape:
        value = loss(labels, model(images, training=True))
    gradients = tape.gradient(value, trainable)
    np.testing.assert_allclose(value, expected.loss, atol=1e-4)
    assert gradients.keys() == in_keras_layout(expected.gradients).keys()
    for name, gradient in in_keras_layout(expected.gradients).items():
        np.testing.assert_allclose(gradients[name], gradient, atol=1e-4, err_msg=name)


def keras_and_pytorch_after(steps, *, parameters, model, examples):
    """Both sides' parameters, in Keras's layout, after some steps of SGD with momentum."""
    # At a fixed rate: Keras keeps the rate inside the velocity, PyTorch outside.
    rate = 0.003
    optimizer = keras.optimizers.SGD(rate, momentum=MOMENTUM, nesterov=True)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    expected, velocity = dict(parameters), {}
    for step in range(steps):
        images, labels = (part[2 * step : 2 * (step + 1)] for part in examples)
        model.reset_metrics()  # Keras 3.12 gives the mean of all batches so far
        loss = model.train_on_batch(images, labels)
        torch = pytorch_step(expected, images, labels, training=True)
        np.testing.assert_allclose(loss, torch.loss, atol=1e-4)
        expected |= torch.running
        for name, gradient in torch.gradients.items():
            velocity[name] = MOMENTUM * velocity.get(name, 0) + gradient
            nesterov = gradient + MOMENTUM * velocity[name]
            expected[name] = expected[name] - rate * nesterov
    return variables_of(model), in_keras_layout(expected)


def test_a_training_step_with_momentum_agrees_with_pytorch(parameters, model, textured):
    variables, expected = keras_and_pytorch_after(
        1, parameters=parameters, model=model, examples=textured
    )
    for name, value in expected.items():
        np.testing.assert_allclose(variables[name], value, atol=1e-4, err_msg=name)


def test_momentum_is_carried_on_as_in_pytorch(parameters, model, textured):
    """After three steps, within a hundredth of the way: a ReLU may have tipped over by then."""
    variables, expected = keras_and_pytorch_after(
        3, parameters=parameters, model=model, examples=textured
    )
    for name, before in in_keras_layout(parameters).items():
        way = np.linalg.norm(expected[name] - before)
        assert np.linalg.norm(variables[name] - expected[name]) < 0.01 * way + 1e-5, name


def test_initial_weights_are_pytorchs_uniform_distribution():
    for name, variable in variables_of(build_model(seed=3)).items():
        if name.endswith("kernel"):
            bound = np.prod(variable.shape[:-1]) ** -0.5
            assert np.abs(variable).max() <= bound
            np.testing.assert_allclose(np.std(variable), bound / 3**0.5, rtol=0.06, err_msg=name)


def test_the_seed_decides_the_initial_weights():
    one, same, other = (build_model(seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_logits_are_float32_and_near_in_half_precision(policy, parameters, sample):
    keras.config.set_dtype_policy(policy)
    try:
        half = build_model(seed=0)
    finally:
        keras.config.set_dtype_policy("float32")
    carry_over(parameters, half)
    expected = pytorch_step(parameters, sample.images[:2], sample.labels[:2], training=False)
    logits = half(sample.images[:2])
    assert logits.dtype == tf.float32
    scale = np.abs(expected.logits).max()
    np.testing.assert_allclose(logits, expected.logits, atol=0.03 * scale)
