"""The facts about CIFAR-10, computed again from the complete data."""

import numpy as np
import pytest

from keras_cifar.cifar10 import CIFAR10, CLASS_NAMES, MEAN, NUM_CLASSES, STANDARD_DEVIATION
from keras_cifar.data.examples import example_digests
from keras_cifar.data.prepare import load
from keras_cifar.data.tfds_folder import dataset_folder


@pytest.fixture(scope="module")
def train(full_data_dir):
    return load(CIFAR10, split="train", data_dir=full_data_dir)


def test_mean_and_deviation_are_those_of_the_training_images(train):
    # Of 51,200,000 bytes a channel: counted and not averaged, so that nothing is rounded.
    values = np.arange(256)
    for channel, (mean, deviation) in enumerate(zip(MEAN, STANDARD_DEVIATION, strict=True)):
        counts = np.bincount(train.images[..., channel].ravel(), minlength=256)
        expected = (counts @ values) / counts.sum()
        assert f"{mean:.6f}" == f"{expected:.6f}"
        variance = (counts @ values**2) / counts.sum() - expected**2
        assert f"{deviation:.6f}" == f"{np.sqrt(variance):.6f}"


def test_the_splits_share_no_example_and_have_a_tenth_of_each_class(train, full_data_dir):
    # `load` has compared the content with its digest already.
    test = load(CIFAR10, split="test", data_dir=full_data_dir)
    for examples, facts in ((train, CIFAR10.train), (test, CIFAR10.test)):
        assert np.bincount(examples.labels).tolist() == [facts.examples // 10] * NUM_CLASSES
    digests = np.concatenate([example_digests(train), example_digests(test)])
    assert len(np.unique(digests)) == CIFAR10.train.examples + CIFAR10.test.examples


def test_class_names_are_in_the_order_of_tfds(full_data_dir):
    labels = dataset_folder(CIFAR10, data_dir=full_data_dir) / "label.labels.txt"
    assert tuple(labels.read_text().split()) == CLASS_NAMES
