import dataclasses
import json
from dataclasses import asdict

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cifar.cifar10 import CLASS_NAMES, SAMPLE
from keras_cifar.client import predict_files
from keras_cifar.data.prepare import load
from keras_cifar.evaluate import evaluate, format_table
from keras_cifar.measure.predictions import least_certain
from keras_cifar.measure.scoring import measure
from keras_cifar.model.article import build_model
from keras_cifar.model.load import load_model
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    build_model(seed=0).save(path)
    return path


@pytest.fixture
def make_run(tmp_path, model_file):
    def make(**settings):
        run = RunDir(tmp_path / "run")
        run.path.mkdir(exist_ok=True)
        config = TrainConfig(dataset="sample", **settings)
        run.config.write_text(json.dumps({"settings": asdict(config)}))
        if not run.model.exists():
            run.model.hardlink_to(model_file)
        return run

    return make


def logits_of(*predicted):
    """Logits that give each class named in `predicted` a probability of 0.91."""
    return np.log(np.eye(10)[list(predicted)] * 0.9 + 0.01)


def test_loss_and_accuracy_are_those_that_keras_computes(make_run):
    run = make_run()
    metrics = evaluate(run, split="test", data_dir=None)
    model = load_model(run.model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])
    test = load(SAMPLE, split="test", data_dir=None)
    expected = model.evaluate(test.images, test.labels, verbose=0, return_dict=True)
    assert metrics.examples == 500
    assert metrics.loss == pytest.approx(expected["loss"], abs=1e-5)
    assert metrics.accuracy == pytest.approx(expected["accuracy"], abs=1e-6)


def test_metrics_json_holds_what_is_returned(make_run):
    run = make_run()
    metrics = evaluate(run, split="test", data_dir=None)
    document = json.loads(run.metrics.read_text())
    assert document == dataclasses.asdict(metrics)
    assert document["split"] == "test"
    assert list(document["per_class"]) == list(CLASS_NAMES)
    assert {of["examples"] for of in document["per_class"].values()} == {50}
    assert np.sum(document["confusion_matrix"]) == 500
    assert len(document["calibration"]["bins"]) == 15


def test_validation_and_train_are_the_parts_that_the_run_had(make_run, sample):
    run = make_run(validation_fraction=0.1, seed=3)
    validation = evaluate(run, split="validation", data_dir=None)
    training = evaluate(run, split="train", data_dir=None)
    assert (validation.examples, training.examples) == (200, 1800)
    assert json.loads(run.metrics.read_text())["split"] == "train"
    other_seed = evaluate(
        make_run(validation_fraction=0.1, seed=4), split="validation", data_dir=None
    )
    assert other_seed.loss != validation.loss


def test_a_run_on_all_images_has_no_validation_split_to_evaluate(make_run):
    message = "split: got 'validation', expected test or train: this run trained on all images"
    with pytest.raises(ValueError, match=message):
        evaluate(make_run(validation_fraction=0.0), split="validation", data_dir=None)


def test_an_unknown_split_is_refused(make_run):
    with pytest.raises(ValueError, match="split: got 'tset', expected one of test, validation"):
        evaluate(make_run(), split="tset", data_dir=None)


def test_a_run_without_model_says_what_to_do(make_run):
    run = make_run()
    run.model.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no trained model.*Move the folder away, and train again"
    ):
        evaluate(run, split="test", data_dir=None)


@pytest.fixture
def diverged(make_run):
    run = make_run()
    model = build_model(seed=0)
    model.layers[-1].bias.assign([np.nan] * 10)
    run.model.unlink()
    model.save(run.model)
    return run


def test_a_model_whose_training_diverged_is_named_as_such(diverged, sample, tmp_path):
    said = f"^{diverged.model}: the model gives numbers that are not finite. Its training diverged"
    with pytest.raises(FloatingPointError, match=said):
        evaluate(diverged, split="test", data_dir=None)
    assert not diverged.metrics.exists()
    image = tmp_path / "image.png"
    image.write_bytes(tf.io.encode_png(sample.images[0]).numpy())
    with pytest.raises(FloatingPointError, match=said):
        predict_files([image], model=diverged.path)


def test_a_run_that_cannot_be_written_to_is_refused_before_its_model_is_asked(
    diverged, monkeypatch
):
    monkeypatch.setattr("os.access", lambda path, mode: path != diverged.path)
    with pytest.raises(
        PermissionError, match=r"run: is not writable\. Name another run, say a copy\."
    ):
        evaluate(diverged, split="test", data_dir=None)


def test_figures_of_a_small_case_are_those_worked_out_by_hand():
    # Cats: one recognised, one taken for a dog. A dog recognised. A frog taken for a cat.
    metrics = measure(logits_of(3, 5, 5, 3), labels=np.array([3, 3, 5, 6]), split="test")
    assert metrics.accuracy == 0.5
    assert metrics.loss == pytest.approx(-(np.log(0.91) + np.log(0.01)) / 2)
    assert metrics.accuracy_error == pytest.approx(0.25)
    cat, dog, frog = (metrics.per_class[name] for name in ("cat", "dog", "frog"))
    assert (cat.examples, cat.precision, cat.recall, cat.f1) == (2, 0.5, 0.5, 0.5)
    assert (dog.precision, dog.recall, dog.f1) == (0.5, 1.0, pytest.approx(2 / 3))
    assert (frog.examples, frog.precision, frog.recall, frog.f1) == (1, 0.0, 0.0, 0.0)
    assert metrics.confusion_matrix[3][5] == metrics.confusion_matrix[6][3] == 1
    assert metrics.confusion_matrix[5][3] == 0
    # All in the bin that holds 0.91: 0.5 right at a confidence of 0.91.
    assert metrics.calibration.expected_calibration_error == pytest.approx(0.41)
    (filled,) = [of for of in metrics.calibration.bins if of.examples]
    assert (filled.lower, filled.upper) == (13 / 15, 14 / 15)
    assert (filled.examples, filled.accuracy) == (4, 0.5)
    assert filled.confidence == pytest.approx(0.91)


def test_least_certain_are_those_whose_two_best_classes_are_nearest():
    logits = np.array([[0.0, 5, 1], [3, 0, 2.5], [9, 9, 0], [0, 0, 4]])
    assert least_certain(logits, count=3).tolist() == [2, 1, 0]


def test_a_certain_and_correct_model_is_perfectly_calibrated():
    metrics = measure(1000 * np.eye(10), labels=np.arange(10), split="test")
    assert (metrics.accuracy, metrics.loss) == (1.0, 0.0)
    assert metrics.calibration.expected_calibration_error == 0
    assert metrics.calibration.bins[-1].examples == 10
    assert "confusions" not in format_table(metrics)


def test_the_table_has_the_totals_a_row_a_class_and_the_confusions():
    metrics = measure(logits_of(3, 5, 5, 3, 5), labels=np.array([3, 3, 5, 6, 3]), split="test")
    lines = format_table(metrics).splitlines()
    assert lines[0] == "test: 5 images"
    assert lines[1] == "accuracy            40.00%  ± 21.91% standard error"
    assert "dog                1     33.33%  100.00%   50.00%" in lines
    assert lines[-2:] == [
        "     2  cat taken for dog (66.7% of cat)",
        "     1  frog taken for cat (100.0% of frog)",
    ]
