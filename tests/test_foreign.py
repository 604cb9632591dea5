"""Models that this project did not train: what they want and give is found out, not believed."""

import shutil

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

from keras_cifar.cifar10 import IMAGE_SHAPE, MEAN, STANDARD_DEVIATION
from keras_cifar.cli import main
from keras_cifar.model.article import build_model
from keras_cifar.model.load import load_model
from keras_cifar.run_dir import RunDir

# Of images in a scale: what makes 0..1 of them, and what makes them of 0..255.
SCALES = {
    "0..1": ([], [layers.Rescaling(1 / 255)]),
    "-1..1": ([layers.Rescaling(0.5, offset=0.5)], [layers.Rescaling(1 / 127.5, offset=-1)]),
    "mean 0 and deviation 1": (
        [layers.Rescaling(np.divide(STANDARD_DEVIATION, 255), offset=np.divide(MEAN, 255))],
        [layers.Normalization(mean=MEAN, variance=np.square(STANDARD_DEVIATION))],
    ),
}


@pytest.fixture(scope="module")
def trained(sample):
    """Layers that have learnt a little of images in 0..1, other ones than are asked about."""
    keras.utils.set_random_seed(0)
    convolution = layers.Conv2D(32, 5, strides=2, activation="relu")
    model = network(convolution, layers.MaxPooling2D(), layers.Flatten(), layers.Dense(10))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss)
    model.fit(sample.images[100:] / 255, sample.labels[100:], epochs=4, batch_size=50, verbose=0)
    return model.layers


def network(*of_layers):
    return keras.Sequential([keras.Input(IMAGE_SHAPE), *of_layers])


@pytest.fixture
def saved(tmp_path):
    def save(model):
        path = tmp_path / "other.keras"
        model.save(path)
        return path

    return save


@pytest.mark.parametrize(
    ("ending", "name"),
    [
        ([layers.Dense(10, activation="softmax")], "softmax"),
        ([layers.Dense(10), layers.Activation("softmax")], "softmax"),
        ([layers.Dense(10), layers.Softmax()], "unknown"),
        ([layers.Dense(10, activation="sigmoid")], "sigmoid"),
    ],
)
def test_a_model_that_gives_probabilities_is_refused(saved, ending, name):
    path = saved(network(layers.Rescaling(1 / 255), layers.Flatten(), *ending))
    with pytest.raises(
        OSError, match=rf"other\.keras: .*last activation: {name}\), expected logits"
    ):
        load_model(path)


def test_an_operation_that_is_no_layer_is_seen_through(saved):
    image = keras.Input(IMAGE_SHAPE)
    logits = layers.Dense(10)(layers.Flatten()(layers.Rescaling(1 / 255)(image)))
    path = saved(keras.Model(image, keras.ops.softmax(logits)))
    with pytest.raises(OSError, match=r"the model gives probabilities"):
        load_model(path)


@pytest.mark.parametrize("scale", SCALES)
def test_a_model_that_wants_scaled_images_is_refused_and_the_remedy_helps(
    saved, trained, capsys, scale
):
    wanted, remedy = SCALES[scale]
    with pytest.raises(OSError, match=rf"other\.keras: the model wants images of {scale} \(its"):
        load_model(saved(network(*wanted, *trained)))
    load_model(saved(network(*remedy, *wanted, *trained)))
    assert capsys.readouterr().err == ""


def test_a_model_that_knows_nothing_of_cifar10_is_warned_of(saved, trained, capsys):
    mirrored = layers.Dense(10, use_bias=False, trainable=False)
    model = network(layers.Rescaling(1 / 255), *trained, mirrored)
    mirrored.set_weights([np.eye(10)[::-1]])
    load_model(saved(model))
    assert "on images of CIFAR-10 the model does worse than guessing" in capsys.readouterr().err


def test_a_model_of_this_project_is_taken_in_silence_however_bad(tmp_path, capsys):
    model = build_model(seed=0)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 1000, bias])
    model.save(tmp_path / "model.keras")
    load_model(tmp_path / "model.keras")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["predict", "evaluate", "export"])
def test_every_command_refuses_it_in_one_line(trained_run, tmp_path, name):
    run = RunDir(shutil.copytree(trained_run.path, tmp_path / "run"))
    network(layers.Flatten(), layers.Dense(10, activation="softmax")).save(run.model)
    arguments = {
        "predict": ["a.png", "--model", run.path],
        "evaluate": [run.path],
        "export": [run.path, tmp_path / "models"],
    }
    result = CliRunner().invoke(main, [name, *map(str, arguments[name])])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: {run.model}: the model gives probab")
    assert result.stdout == ""
