import hashlib

import numpy as np
import pytest

from keras_cifar.cifar10 import CIFAR10
from keras_cifar.data.examples import Examples, example_digests, in_canonical_order
from keras_cifar.data.prepare import load
from keras_cifar.data.split import split_stratified


def test_the_split_of_cifar10_has_4000_and_1000_of_each_class(full_data_dir):
    examples = load(CIFAR10, split="train", data_dir=full_data_dir)
    training, validation = split_stratified(examples, validation_fraction=0.2, seed=0)
    assert np.bincount(training.labels).tolist() == [4000] * 10
    assert np.bincount(validation.labels).tolist() == [1000] * 10


def test_training_and_validation_are_disjoint_and_together_everything(sample):
    training, validation = split_stratified(sample, validation_fraction=0.2, seed=5)
    parts = np.concatenate([example_digests(training), example_digests(validation)])
    assert len(np.unique(parts)) == len(sample.labels)
    assert np.array_equal(np.sort(parts), np.sort(example_digests(sample)))


@pytest.mark.parametrize(("fraction", "per_class"), [(0.0, 0), (0.2, 40), (0.333, 67), (0.99, 198)])
def test_every_class_gives_the_same_share(sample, fraction, per_class):
    training, validation = split_stratified(sample, validation_fraction=fraction, seed=1)
    assert np.bincount(validation.labels, minlength=10).tolist() == [per_class] * 10
    assert np.bincount(training.labels, minlength=10).tolist() == [200 - per_class] * 10


def test_the_seed_alone_decides_the_split(sample):
    shuffled = np.random.default_rng(0).permutation(len(sample.labels))
    again, _ = in_canonical_order(sample.take(shuffled))
    one, same, other = (
        split_stratified(examples, validation_fraction=0.2, seed=seed)[1]
        for examples, seed in ((sample, 7), (again, 7), (sample, 8))
    )
    assert np.array_equal(one.images, same.images)
    assert not np.array_equal(one.images, other.images)


def test_the_split_stays_what_it_is_from_version_to_version(sample):
    """A changed split would make old runs' validation images new runs' training images."""
    _, validation = split_stratified(sample, validation_fraction=0.2, seed=0)
    digest = hashlib.sha256(validation.images.tobytes()).hexdigest()
    assert digest == "64ec959823ee6b31f68dd5bb70977d84175fcd6108c35c42011da3de9ecff63d"


def test_the_content_digest_sees_a_changed_pixel_and_a_changed_label_but_no_order(sample):
    images, labels = sample.images.copy(), sample.labels.copy()
    _, digest = in_canonical_order(sample)
    images[17, 3, 4, 1] ^= 1
    assert in_canonical_order(Examples(images, sample.labels))[1] != digest
    labels[17] = (labels[17] + 1) % 10
    assert in_canonical_order(Examples(sample.images, labels))[1] != digest
    backwards = sample.take(np.arange(len(labels))[::-1])
    assert in_canonical_order(backwards)[1] == digest
