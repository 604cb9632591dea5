"""Sheets of images: what stands where."""

import numpy as np
import pytest

from keras_cifar.measure.mosaic import mosaic
from keras_cifar.measure.sheets import answered_sheet, augmented_sheet
from keras_cifar.recipes import RECIPES, TrainConfig


def test_a_mosaic_has_the_images_in_rows_and_white_where_there_is_none(sample):
    images = sample.images[:5]
    sheet = mosaic(images, columns=3, gap=1)
    assert sheet.shape == (65, 98, 3)
    for position, image in enumerate(images):
        top, left = position // 3 * 33, position % 3 * 33
        np.testing.assert_array_equal(sheet[top : top + 32, left : left + 32], image)
    assert (sheet[33:, 66:] == 255).all()
    assert (sheet[32] == 255).all()


@pytest.mark.parametrize(("recipe", "side"), [("article", 32), ("fast94", 24), ("fast96", 32)])
def test_the_first_batch_is_what_the_network_sees(tiny, recipe, side):
    config = TrainConfig.of(recipe, dataset="tiny", batch_size=50, validation_fraction=0)
    images, labels = RECIPES[recipe].first_batch(config, examples=tiny.examples, epoch=0)
    assert images.shape == (50, side, side, 3)
    # Moved, mirrored and made smaller, each image is still nearest to one of its own class.
    means = [of.reshape(len(of), -1, 3).mean(axis=1) for of in (images, tiny.examples.images)]
    distances = np.abs(means[0][:, None] - means[1]).sum(axis=2)
    nearest = tiny.examples.labels[distances.argmin(axis=1)]
    assert (nearest == labels).mean() > 0.3  # 0.1 by chance
    again = RECIPES[recipe].first_batch(config, examples=tiny.examples, epoch=0)
    later = RECIPES[recipe].first_batch(config, examples=tiny.examples, epoch=1)
    np.testing.assert_array_equal(images, again.images)
    assert list(labels) != list(later.labels)
    sheet = augmented_sheet(config, examples=tiny.examples, epoch=0, count=20, columns=10)
    np.testing.assert_array_equal(sheet, mosaic(images[:20], columns=10))


def test_the_article_sees_the_batch_that_it_is_trained_on(tiny):
    config = TrainConfig(dataset="tiny", batch_size=50)
    recipe = RECIPES["article"]
    batches = recipe.batches(config, examples=tiny.examples, epochs=range(1, 2))
    trained_on, _ = next(batches.as_numpy_iterator())
    shown = recipe.first_batch(config, examples=tiny.examples, epoch=1)
    np.testing.assert_array_equal(shown.images, trained_on)


def test_below_each_image_stands_in_another_colour_whether_the_model_is_right(tiny):
    examples = tiny.examples.take(np.arange(2))
    logits = np.zeros((2, 10))
    logits[0, examples.labels[0]] = 9
    logits[1, (examples.labels[1] + 1) % 10] = 9
    sheet = answered_sheet(examples, logits=logits, columns=2)
    large = examples.images.repeat(3, axis=1).repeat(3, axis=2)
    np.testing.assert_array_equal(sheet[:96, :96], large[0])
    np.testing.assert_array_equal(sheet[:96, 98:], large[1])
    red, green, _ = sheet[96:].astype(int).transpose(2, 0, 1)
    assert (green - red)[:, :96].max() > 50 > (red - green)[:, :96].max()
    assert (red - green)[:, 98:].max() > 50 > (green - red)[:, 98:].max()
