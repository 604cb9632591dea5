import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_cifar.data.examples import Examples
from keras_cifar.data.on_device import plan_steps
from keras_cifar.data.pipeline import CROP_PADDING, augment, eval_batches, train_batches


def numbered(sample, count):
    """Examples whose labels are their positions, so that a repeated or lost one shows."""
    return Examples(sample.images[:count], np.arange(count))


def batches_of(sample, *, epochs, seed=1, count=300, batch_size=100):
    batches = train_batches(
        numbered(sample, count), batch_size=batch_size, seed=seed, epochs=epochs
    )
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own(sample):
    batches = batches_of(sample, epochs=range(2))
    first, second = np.split(np.concatenate([labels for _, labels in batches]), 2)
    assert sorted(first) == sorted(second) == list(range(300))
    assert list(first) != list(second)
    assert list(first) != list(range(300))


def test_an_epoch_leaves_out_the_rest_that_fills_no_batch(sample):
    batches = batches_of(sample, epochs=range(2), count=299)
    assert [len(labels) for _, labels in batches] == [100] * 4
    assert len(set(np.concatenate([labels for _, labels in batches[:2]]))) == 200


def test_order_and_augmentation_are_a_function_of_seed_and_epoch(sample):
    unbroken = batches_of(sample, epochs=range(4))
    resumed = batches_of(sample, epochs=range(2, 4))
    for (images, labels), (again, labels_again) in zip(unbroken[6:], resumed, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, labels_again)
    other_seed = batches_of(sample, epochs=range(4), seed=2)
    assert any((a[1] != b[1]).any() for a, b in zip(unbroken, other_seed, strict=True))


def test_an_image_is_augmented_anew_in_each_epoch_and_batch(sample):
    same = Examples(np.repeat(sample.images[:1], 200, axis=0), np.zeros(200, dtype=np.int64))
    batches = train_batches(same, batch_size=100, seed=1, epochs=range(2))
    seen = [images.numpy().tobytes() for images, _ in batches]
    assert len(set(seen)) == 4


def test_batches_are_uint8_images_and_int64_labels_of_a_fixed_size(sample):
    images, labels = train_batches(sample, batch_size=64, seed=0, epochs=range(1)).element_spec
    assert images == tf.TensorSpec((64, 32, 32, 3), tf.uint8)
    assert labels == tf.TensorSpec((64,), tf.int64)


@settings(max_examples=20)
@given(seed=st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)))
def test_augment_depends_only_on_its_seed(sample, seed):
    once, again = (augment(sample.images[:8], seed=seed) for _ in range(2))
    assert once.shape == (8, 32, 32, 3)
    assert once.dtype == tf.uint8
    np.testing.assert_array_equal(once, again)


def test_augment_gives_crops_of_the_reflected_image_mirrored_or_not(sample):
    images = np.repeat(sample.images[:1], 2000, axis=0)
    padding = [(CROP_PADDING, CROP_PADDING)] * 2 + [(0, 0)]
    padded = np.pad(sample.images[0], padding, mode="reflect")
    offsets = range(2 * CROP_PADDING + 1)
    crops = {(y, x): padded[y : y + 32, x : x + 32] for y in offsets for x in offsets}
    expected = {crop.tobytes() for crop in crops.values()}
    expected |= {crop[:, ::-1].tobytes() for crop in crops.values()}
    seen = [image.tobytes() for image in augment(images, seed=[3, 4]).numpy()]
    # All 162 outcomes, each about 12 times; half of all mirrored.
    assert set(seen) == expected
    mirrored = {crop[:, ::-1].tobytes() for crop in crops.values()}
    assert 900 < sum(image in mirrored for image in seen) < 1100


def test_no_batches_wait_for_autotune_at_their_end(sample):
    training = train_batches(sample, batch_size=100, seed=0, epochs=range(1))
    plans = plan_steps(500, batch_size=100, seed=0, epochs=range(1), sizes=[32])
    for batches in (training, plans, eval_batches(sample, batch_size=100)):
        assert batches.options().autotune.enabled is False


def test_evaluation_keeps_order_and_the_short_last_batch(sample):
    batches = list(eval_batches(numbered(sample, 250), batch_size=100))
    assert [len(labels) for _, labels in batches] == [100, 100, 50]
    labels = np.concatenate([labels for _, labels in batches])
    images = np.concatenate([images for images, _ in batches])
    np.testing.assert_array_equal(labels, np.arange(250))
    np.testing.assert_array_equal(images, sample.images[:250])
