"""The learning-rate range test, and what is read from its losses."""

import csv
import math
import signal

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from keras_cifar.cli import main
from keras_cifar.rate_curve import RateCurve

STEPS = np.arange(100)
FALLING = 2.3 - 1 / (1 + np.exp((50 - STEPS) / 4))  # most steeply at step 50


def curve(losses):
    return RateCurve([10.0 ** (step / 20 - 4) for step in range(len(losses))], list(losses))


def test_the_rate_where_the_loss_falls_most_steeply_is_suggested():
    noise = np.random.default_rng(0).normal(scale=0.01, size=100)
    losses = FALLING + noise + np.where(STEPS > 80, (STEPS - 80) ** 2 / 50, 0)
    # A moving mean comes some steps later: by a factor of less than 2.
    assert 48 <= curve(losses).suggested <= 56


def test_a_fall_after_the_lowest_loss_is_not_suggested():
    losses = [*FALLING, 20.0, 20.0, *[2.3] * 30]
    assert curve(losses).suggested < 60


@pytest.mark.parametrize("losses", [[2.3], 2.3 + STEPS / 100], ids=["one step", "a rise"])
def test_without_a_fall_nothing_is_suggested(losses):
    assert curve(losses).suggested is None


def test_the_smoothed_loss_of_equal_ones_is_theirs_and_four_times_the_lowest_is_divergence():
    assert curve([2.0] * 9).smoothed == pytest.approx([2.0] * 9)
    assert not curve([2.0] * 9 + [30.0]).has_diverged
    assert curve([2.0] * 9 + [60.0]).has_diverged


def test_the_command_leaves_a_picture_and_a_table_and_no_run(tmp_path):
    options = ("--dataset", "sample", "--batch-size", "10", "--precision", "float32")
    rate = ("--learning-rate", "0.5", "--run-dir", str(tmp_path / "found"))
    handler = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(main, ["train", "--find-learning-rate", *options, *rate])
    signal.signal(signal.SIGTERM, handler)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "found"
    assert {path.name for path in folder.iterdir()} == {"learning_rate.csv", "learning_rate.png"}
    with (folder / "learning_rate.csv").open() as table:
        rows = list(csv.DictReader(table))
    rates, losses, smoothed = (
        [float(row[name]) for row in rows] for name in ("learning_rate", "loss", "smoothed_loss")
    )
    found = RateCurve(rates, losses)
    assert found.smoothed == pytest.approx(smoothed, rel=1e-5)
    assert found.losses[0] == pytest.approx(math.log(10), abs=0.4)
    assert found.rates[0] == pytest.approx(0.5e-3)
    ratios = np.divide(found.rates[1:], found.rates[:-1])
    np.testing.assert_allclose(ratios, 1e5 ** (1 / 99), rtol=1e-4)
    # Diverged long before 50. A mean of all steps so far would hardly move from one to the next.
    assert 30 < len(found.losses) < 100
    assert np.abs(np.diff(found.losses[5:30])).mean() > 0.02
    assert "\nstep  10/100  learning rate 0.0014  loss 2." in result.stderr
    assert f"{folder}: try --learning-rate 0." in result.stdout
    assert f"{found.rates[found.suggested]:.2g}, where the training loss fell" in result.stdout
    with Image.open(folder / "learning_rate.png") as picture:
        assert picture.size == (1200, 860)
