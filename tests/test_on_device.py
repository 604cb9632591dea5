"""The batches of the fast recipes."""

import numpy as np
import pytest
import tensorflow as tf

from keras_cifar.data.augment import cut_out, random_shifts, resize, resize_matrix, shift_and_mirror
from keras_cifar.data.examples import Examples
from keras_cifar.data.on_device import make_batch, mirror_half, plan_steps
from keras_cifar.optimize.hardest import hardest

SIDES = [24, 24, 32, 32]


def batches_of(sample, *, epochs, seed=1, sizes=(32,) * 4, shift=0, cutout=0):
    """Batches whose labels are the positions of their images."""
    images = mirror_half(sample.images[:300], seed=seed)
    examples = Examples(tf.constant(images), tf.range(300, dtype=tf.int64))
    plans = plan_steps(300, batch_size=100, seed=seed, epochs=epochs, sizes=sizes)
    made = [make_batch(plan, examples, shift=shift, cutout=cutout) for plan in plans]
    return [(batch.numpy(), labels.numpy()) for batch, labels in made]


def by_position(batches):
    return dict(
        (position, image)
        for images, labels in batches
        for position, image in zip(labels.tolist(), images, strict=True)
    )


def test_each_image_is_seen_both_ways_in_two_successive_epochs(sample):
    batches = batches_of(sample, epochs=range(3))
    epochs = [by_position(batches[3 * epoch : 3 * epoch + 3]) for epoch in range(3)]
    mirrored = 0
    for position, image in enumerate(sample.images[:300]):
        ways = {epoch[position].tobytes() for epoch in epochs[:2]}
        assert ways == {image.tobytes(), image[:, ::-1].tobytes()}
        assert epochs[2][position].tobytes() == epochs[0][position].tobytes()
        mirrored += epochs[0][position].tobytes() != image.tobytes()
    assert mirrored == pytest.approx(150, abs=3)  # the sample has no symmetric image


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own(sample):
    batches = batches_of(sample, epochs=range(2))
    first, second = np.split(np.concatenate([labels for _, labels in batches]), 2)
    assert sorted(first) == sorted(second) == list(range(300))
    assert list(first) != list(second)


def test_a_batch_is_a_function_of_seed_and_epoch(sample):
    settings = {"sizes": SIDES, "shift": 2, "cutout": 8}
    unbroken = batches_of(sample, epochs=range(4), **settings)
    resumed = batches_of(sample, epochs=range(1, 4), **settings)
    for (images, labels), (again, labels_again) in zip(unbroken[3:], resumed, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, labels_again)
    other = batches_of(sample, epochs=range(4), seed=2, **settings)
    assert any((a[0] != b[0]).any() for a, b in zip(unbroken, other, strict=True))


def test_a_run_without_an_epoch_left_has_no_batch(sample):
    assert batches_of(sample, epochs=range(4, 4)) == []


def test_each_epoch_has_its_size(sample):
    batches = batches_of(sample, epochs=range(4), sizes=SIDES)
    assert [images.shape[1:3] for images, _ in batches[::3]] == [(side, side) for side in SIDES]
    assert all(images.dtype == np.uint8 for images, _ in batches)


def test_images_of_full_size_are_not_resampled(sample):
    images = sample.images[:20]
    shrunk = resize(tf.constant(images), tf.constant(resize_matrix(32, to=32)))
    np.testing.assert_array_equal(shrunk, images)


def test_shrinking_is_the_mean_of_what_a_pixel_covers(sample):
    images = sample.images[:20]
    halved = resize(tf.constant(images), tf.constant(resize_matrix(32, to=16)))
    expected = images.reshape(20, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved.numpy() - expected).max() <= 0.5
    for side in (24, 28):
        matrix = resize_matrix(32, to=side)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(matrix.sum(axis=0), side / 32, rtol=1e-6)


def test_images_move_by_at_most_the_shift(sample):
    shifts = random_shifts(1000, at_most=2, seed=[1, 2]).numpy()
    assert set(np.unique(shifts)) == {-2, -1, 0, 1, 2}
    moved = shift_and_mirror(
        sample.images[:1], shifts=tf.constant([[1], [-2]]), mirrored=tf.constant([False])
    )
    padded = np.pad(sample.images[0], [(2, 2), (2, 2), (0, 0)], mode="reflect")
    np.testing.assert_array_equal(moved[0], padded[3:35, 0:32])


def test_cutout_blanks_one_square_somewhere(sample):
    images = sample.images[:200]
    changed = (cut_out(tf.constant(images), side=12, seed=[1, 2]).numpy() != images).any(axis=-1)
    rows, columns = changed.any(axis=2), changed.any(axis=1)
    assert rows.sum(axis=1).max() == columns.sum(axis=1).max() == 12
    assert changed.sum() > 0.9 * 200 * 144
    assert len({tuple(row) for row in rows}) > 10


def test_the_hardest_are_those_with_the_highest_last_losses_and_those_never_seen():
    unseen = float("inf")
    losses = tf.constant([0.1, unseen, 3.0, 0.2, 2.0, unseen, 9.0])
    positions = tf.constant([5, 4, 3, 2, 0], tf.int64)
    assert hardest(positions, losses, count=3).numpy().tolist() == [5, 2, 4]
    assert sorted(hardest(positions, losses, count=5).numpy()) == [0, 2, 3, 4, 5]
