import zipfile

import keras
import numpy as np
import pytest

from keras_cifar.model.article import build_model
from keras_cifar.model.load import load_model
from keras_cifar.model.logits import log_softmax, predict_logits


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    build_model(seed=0).save(path)
    return path


def test_a_loaded_model_gives_the_same_logits(model_file, sample):
    # More images than are computed at a time, and no multiple of that.
    before = build_model(seed=0).predict(sample.images[:508], verbose=0)
    after = predict_logits(load_model(model_file), sample.images[:508], source=model_file)
    np.testing.assert_allclose(after, before, atol=1e-5)
    assert after.dtype == np.float64


def test_probabilities_of_huge_logits_are_finite():
    logarithms = log_softmax(np.array([[1e4, 0.0], [-1e4, -1e4]]))
    np.testing.assert_allclose(np.exp(logarithms), [[1, 0], [0.5, 0.5]])
    assert logarithms[0, 1] == -1e4


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.keras: no such model file\. Name a model"):
        load_model(tmp_path / "none.keras")


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"model\.keras: not a Keras model"):
        load_model(path)


def test_another_suffix_is_refused(tmp_path, model_file):
    path = tmp_path / "model.h5"
    path.write_bytes(model_file.read_bytes())
    with pytest.raises(OSError, match=r"model\.h5: not a Keras model"):
        load_model(path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(OSError, match=r"model\.keras: not a Keras model"):
        load_model(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_model_file_cut_off_is_refused(tmp_path, model_file, share):
    content = model_file.read_bytes()
    path = tmp_path / "model.keras"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(OSError, match=r"model\.keras: not a Keras model"):
        load_model(path)


def test_altered_weights_are_refused(tmp_path, model_file):
    content = bytearray(model_file.read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"model\.keras: not a Keras model"):
        load_model(path)


def test_a_model_with_code_in_it_is_refused_in_one_line(tmp_path):
    path = tmp_path / "model.keras"
    harmless = keras.layers.Lambda(lambda images: images[:, 0, 0, :1] * np.ones(10))
    keras.Sequential([keras.Input((32, 32, 3)), harmless]).save(path)
    with pytest.raises(OSError, match=r"model\.keras: not a Keras model.*Lambda") as refused:
        load_model(path)
    assert "\n" not in str(refused.value)


def test_other_shapes_are_refused_and_named(tmp_path):
    path = tmp_path / "model.keras"
    layers = [keras.layers.Flatten(), keras.layers.Dense(7)]
    keras.Sequential([keras.Input((28, 28, 1)), *layers]).save(path)
    message = (
        r"takes \(None, 28, 28, 1\) and gives \(None, 7\); "
        r"expected \(None, 32, 32, 3\) and \(None, 10\)"
    )
    with pytest.raises(OSError, match=message):
        load_model(path)
