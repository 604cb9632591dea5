"""Corruptions of real images, and the figures of a real model under them."""

import importlib.util
import json
import shutil
from dataclasses import asdict
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from click.testing import CliRunner

from keras_cifar.cifar10 import IMAGE_SHAPE, SAMPLE
from keras_cifar.cli import main
from keras_cifar.data.examples import Examples
from keras_cifar.data.prepare import load
from keras_cifar.measure.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from keras_cifar.measure.corruptions.sources import PARTS, chosen, published
from keras_cifar.model.load import load_model
from keras_cifar.robustness import Robustness, evaluate_corruptions, format_table
from keras_cifar.run_dir import RunDir

# Their levels turn several screws at once, of which CIFAR-10-C loosens some.
NOT_EVER_FARTHER = {"glass_blur", "frost", "elastic_transform"}
_NEAR = ((0, 0), (-1, 0), (0, -1), (-1, -1))
_TFDS_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}


@pytest.fixture(scope="module")
def images():
    return load(SAMPLE, split="test", data_dir=None).images[:60]


@pytest.fixture
def run(trained_run, tmp_path):
    """A run of its own: what is written there is nobody else's."""
    path = tmp_path / "run"
    path.mkdir()
    for file in (trained_run.config, trained_run.model):
        shutil.copy(file, path)
    return RunDir(path)


def corrupted(images, *, corruption, severity=3, seed=0, first=0):
    numbers = np.arange(first, first + len(images))
    return corrupt(images, corruption=corruption, severity=severity, seed=seed, numbers=numbers)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_what_becomes_of_an_image_depends_on_seed_and_number_alone(images, corruption):
    once = corrupted(images[:9], corruption=corruption)
    assert (once.dtype, once.shape) == (np.uint8, (9, *IMAGE_SHAPE))
    np.testing.assert_array_equal(once, corrupted(images[:9], corruption=corruption))
    alone = [corrupted(images[n : n + 1], corruption=corruption, first=n) for n in range(9)]
    np.testing.assert_array_equal(once, np.concatenate(alone))


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_each_severity_changes_images_and_a_higher_one_changes_more(images, corruption):
    before = images.astype(int)
    distances = [
        np.abs(corrupted(images, corruption=corruption, severity=severity) - before).mean()
        for severity in SEVERITIES
    ]
    assert min(distances) > 1
    if corruption not in NOT_EVER_FARTHER:
        assert distances == sorted(distances)


def test_chance_decides_by_the_seed_and_by_the_image(images):
    same = np.repeat(images[:1], 2, axis=0)
    first, second = corrupted(same, corruption="fog")
    assert (first != second).any()
    assert (corrupted(same, corruption="fog", seed=1)[0] != first).any()


def test_noise_and_contrast_are_as_strong_as_their_levels_say(images):
    grey = np.full((40, *IMAGE_SHAPE), 128, np.uint8)
    noisy = corrupted(grey, corruption="gaussian_noise", severity=5) / 255
    assert noisy.std() == pytest.approx(0.10, rel=0.02)
    counted = corrupted(grey, corruption="shot_noise", severity=5) / 255
    assert counted.std() == pytest.approx((0.5 / 50) ** 0.5, rel=0.02)
    hit = corrupted(grey, corruption="impulse_noise", severity=5)
    assert np.mean(hit != 128) == pytest.approx(0.07, rel=0.05)
    assert set(np.unique(hit)) == {0, 128, 255}
    flat = corrupted(images, corruption="contrast", severity=5)
    spread = flat.std(axis=(1, 2)) / images.std(axis=(1, 2))
    assert np.median(spread) == pytest.approx(0.15, abs=0.01)


def test_blurs_leave_one_colour_alone_and_spread_a_point():
    grey = np.full((3, *IMAGE_SHAPE), 100, np.uint8)
    for corruption in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "pixelate"):
        np.testing.assert_array_equal(corrupted(grey, corruption=corruption, severity=5), grey)
    point = np.zeros((1, *IMAGE_SHAPE), np.uint8)
    point[0, 16, 16] = 255
    defocused = corrupted(point, corruption="defocus_blur", severity=5)[0, ..., 0]
    # A disk of radius 1.5 holds 3x3 pixels.
    assert (defocused > 20).sum() == 9
    moved = corrupted(point, corruption="motion_blur", severity=5)[0, ..., 0]
    rows, columns = np.nonzero(moved)
    assert np.ptp(columns) > 2
    assert np.ptp(rows) <= np.ptp(columns)
    assert columns.max() == 16


def test_frosted_glass_mixes_near_pixels_but_not_across_edges(images):
    glassy = corrupted(images, corruption="glass_blur", severity=1)
    np.testing.assert_array_equal(glassy[:, :2], images[:, :2])
    np.testing.assert_array_equal(glassy[:, :, :2], images[:, :, :2])
    near = np.stack(
        [images[:, 2 + down : 32 + down, 2 + right : 32 + right] for down, right in _NEAR]
    )
    assert (near == glassy[None, :, 2:, 2:]).all(axis=-1).any(axis=0).all()


def test_each_class_gives_as_many_images_as_possible(sample):
    positions = chosen(sample.labels, 25)
    counts = np.bincount(sample.labels[positions], minlength=10)
    assert (len(positions), set(counts)) == (25, {2, 3})
    np.testing.assert_array_equal(positions, np.unique(positions))
    np.testing.assert_array_equal(chosen(sample.labels, None), np.arange(2000))
    assert set(chosen(sample.labels, 20)) < set(positions)


def test_figures_are_those_of_another_computation(run, capsys):
    found = evaluate_corruptions(run, split="test", data_dir=None, corruption_images=10)
    test = load(SAMPLE, split="test", data_dir=None)
    model = load_model(run.model)
    positions = chosen(test.labels, 10)
    right = np.array(
        [
            model.predict(
                np.concatenate(
                    [
                        corrupted(test.images[n : n + 1], corruption=name, severity=level, first=n)
                        for n in positions
                    ]
                ),
                verbose=0,
            ).argmax(axis=1)
            == test.labels[positions]
            for name, level in (("fog", 5), ("shot_noise", 1))
        ]
    )
    assert found.accuracy["fog"][4] == right[0].mean()
    assert found.accuracy["shot_noise"][0] == right[1].mean()
    clean = model.predict(test.images[positions], verbose=0).argmax(axis=1)
    assert found.clean_accuracy == (clean == test.labels[positions]).mean()
    cells = [value for values in found.accuracy.values() for value in values]
    assert len(cells) == 75
    assert found.mean_accuracy == pytest.approx(np.mean(cells))
    assert found.mean_corruption_error == pytest.approx(1 - np.mean(cells))
    # All parts show the same 10 images: the error is larger than that of 75 times as many.
    assert (0.25 / 10 / 75) ** 0.5 < found.mean_accuracy_error < (0.25 / 10) ** 0.5
    assert json.loads(run.corruptions.read_text()) == asdict(found)
    assert (found.examples, found.clean_examples, found.seed) == (10, 10, 0)
    assert set(found.versions) == {"NumPy", "SciPy", "Pillow", "matplotlib"}
    assert "15/15  jpeg_compression" in capsys.readouterr().err


def test_the_table_has_a_row_a_corruption_and_says_what_it_is():
    found = Robustness(
        name="15 corruptions, computed here",
        source="computed",
        seed=0,
        versions={},
        split="test",
        views=1,
        views_share=1.0,
        examples=10_000,
        clean_examples=10_000,
        clean_accuracy=0.9332,
        accuracy={name: [0.9, 0.8, 0.7, 0.6, 0.5] for name in CORRUPTIONS},
        mean_accuracy=0.7,
        mean_accuracy_error=0.00312,
        mean_corruption_error=0.3,
    )
    lines = format_table(found).splitlines()
    assert lines[:2] == [
        "test: 10,000 images of each corruption and severity",
        "15 corruptions, computed here",
    ]
    assert lines[8] == ("glass_blur          70.00%   90.00%   80.00%   70.00%   60.00%   50.00%")
    assert lines[-2:] == [
        "corrupted               70.00%  ± 0.31% standard error",
        "mean corruption error   30.00%  unnormalised",
    ]


class _Part(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Has TFDS write a part as it writes those of cifar10_corrupted."""

    name = "cifar10_corrupted"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=f"{_TFDS_NAMES.get(name, name)}_{severity}")
        for name, severity in PARTS
    ]
    examples = Examples(np.zeros(0), np.zeros(0))

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=IMAGE_SHAPE),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        for number, (image, label) in enumerate(zip(*self.examples, strict=True)):
            yield number, {"image": image, "label": label}


@pytest.fixture(scope="module")
def cifar10_c(images, tmp_path_factory):
    """A TFDS folder of all 75 parts, whose images are darker the higher the severity."""
    data_dir = tmp_path_factory.mktemp("cifar10_c")
    labels = load(SAMPLE, split="test", data_dir=None).labels[:20]
    first = None
    for config, (_, severity) in zip(_Part.BUILDER_CONFIGS, PARTS, strict=True):
        folder = data_dir / "cifar10_corrupted" / config.name
        if config.name.startswith("gaussian_noise"):
            _Part.examples = Examples(images[:20] // severity, labels)
            _Part(data_dir=data_dir, config=config.name).download_and_prepare()
            first = first or folder
        else:
            shutil.copytree(first, folder)
    return data_dir


def test_cifar10_c_of_tfds_is_used_and_named(run, cifar10_c, images, tmp_path, capsys):
    source = published(cifar10_c, count=None)
    assert (source.name, source.kind, source.seed) == ("CIFAR-10-C", "CIFAR-10-C", None)
    shown, darkest = source.part("gaussian_noise", 1), source.part("gaussian_noise", 5)
    assert sorted(map(bytes, shown.images)) == sorted(map(bytes, images[:20]))
    np.testing.assert_array_equal(darkest.images, shown.images // 5)
    assert len(published(cifar10_c, count=10).part("elastic_transform", 2).labels) == 10
    # The run's images come with the package, so that CIFAR-10-C alone is looked for there.
    data_dir = damaged(cifar10_c, tmp_path, part="gaussian_noise_4")
    with pytest.raises(OSError, match=r"gaussian_noise_4.*: is damaged"):
        evaluate_corruptions(run, split="test", data_dir=data_dir, corruption_images=10)
    assert capsys.readouterr().err == "CIFAR-10-C\n"
    assert not run.corruptions.exists()


def damaged(cifar10_c, folder, *, part):
    """A copy of which one part is cut short."""
    data_dir = folder / "data"
    shutil.copytree(cifar10_c, data_dir)
    (record,) = (data_dir / "cifar10_corrupted" / part).rglob("*.tfrecord*")
    record.write_bytes(record.read_bytes()[:-20])
    return data_dir


def test_without_all_its_parts_cifar10_c_is_not_used_and_they_are_named(
    cifar10_c, tmp_path, capsys
):
    assert published(tmp_path, count=None) is None
    data_dir = tmp_path / "data"
    shutil.copytree(cifar10_c, data_dir)
    for part in ("frosted_glass_blur_2", "elastic_5"):
        shutil.rmtree(data_dir / "cifar10_corrupted" / part)
    assert published(data_dir, count=None) is None
    assert capsys.readouterr().err == (
        f"{data_dir}: CIFAR-10-C lacks 2 of 75 parts (frosted_glass_blur_2, elastic_5); "
        "the corruptions are computed instead.\n"
    )


def test_what_is_wrong_with_cifar10_c_is_one_line(cifar10_c, tmp_path):
    source = published(damaged(cifar10_c, tmp_path, part="fog_4"), count=None)
    with pytest.raises(OSError, match=r"fog_4.*: is damaged or is not CIFAR-10-C \(.*Move that"):
        source.part("fog", 4)
    other = tmp_path / "data" / "cifar10_corrupted" / "fog_5"
    shutil.rmtree(other)
    labels = source.part("fog", 3).labels
    _Part.examples = Examples(np.zeros((20, *IMAGE_SHAPE), np.uint8), (labels + 1) % 10)
    _Part(data_dir=tmp_path / "data", config="fog_5").download_and_prepare()
    with pytest.raises(OSError, match=r"fog_5 has its images in another order"):
        source.part("fog", 5)


def test_more_images_than_there_are_is_wrong_usage(cifar10_c, sample):
    for choose, most in (
        (lambda: published(cifar10_c, count=21), "20"),
        (lambda: chosen(sample.labels, 2001), "2,000"),
    ):
        with pytest.raises(ValueError, match=rf"^corruption_images: got \d+, expected 1 to {most}"):
            choose()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corruption-images", "5"], "--corruption-images: is for --corruptions; give both."),
        (["--top", "5"], "--top: is for --suspect-labels; give both."),
        (["--corruptions", "--suspect-labels"], "give one of them."),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(options, message):
    ended = CliRunner().invoke(main, ["evaluate", *options])
    assert ended.exit_code == 2
    assert message in ended.output


def test_what_comes_with_an_extra_is_asked_for_in_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for option in ("--corruptions", "--suspect-labels"):
        ended = CliRunner().invoke(main, ["evaluate", "nowhere", option])
        assert ended.exit_code == 1
        assert ended.output == (f"Error: {option} needs more: pip install 'keras-cifar[report]'\n")
