"""Labels of real images, some of them wrong on purpose, and models that have not learned those."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

from keras_cifar.cifar10 import CLASS_NAMES, DATASETS, IMAGE_SHAPE, DatasetFacts, SplitFacts
from keras_cifar.cli import main
from keras_cifar.data.examples import Examples, Splits, in_canonical_order
from keras_cifar.data.tfds_folder import write_folder
from keras_cifar.evaluate import evaluate_group
from keras_cifar.measure.predictions import load_model_and_split
from keras_cifar.model.logits import log_softmax, predict_logits
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir, RunGroup
from keras_cifar.run_record import GroupRecord
from keras_cifar.suspects import Suspect, Suspects, find_suspects, format_table


class Doubted(NamedTuple):
    """A dataset with wrong labels, and a group of two runs that knew the right ones.

    Attributes:
        data_dir: where TFDS finds it.
        examples: of both splits, in canonical order.
        right: the right labels of these.
        group: the runs' folder.
    """

    data_dir: Path
    examples: Examples
    right: np.ndarray
    group: Path

    @property
    def wrong(self) -> set[int]:
        """Numbers of the images whose label is wrong."""
        return set(np.flatnonzero(self.examples.labels != self.right).tolist())


@pytest.fixture(scope="module")
def doubted(sample, tmp_path_factory) -> Iterator[Doubted]:
    """200 images, of which 10 in pairs have each other's label."""
    folder = tmp_path_factory.mktemp("doubted")
    chosen = np.concatenate([np.flatnonzero(sample.labels == label)[:20] for label in range(10)])
    images, right = sample.take(chosen)
    labels = right.copy()
    labels[:200:20] = right[(np.arange(0, 200, 20).reshape(5, 2)[:, ::-1]).ravel()]
    examples, sha256 = in_canonical_order(Examples(images, labels))
    by_image = dict(zip(map(bytes, images), right.tolist(), strict=True))
    right = np.array([by_image[bytes(image)] for image in examples.images])
    split = SplitFacts(200, sha256)
    facts = DatasetFacts("cifar10_doubted", "1.0.0", train=split, test=split)
    DATASETS["doubted"] = facts
    write_folder(Splits(examples, examples), dataset=facts, data_dir=folder, id_prefix="")
    group = folder / "group"
    group.mkdir()
    for seed in (0, 1):
        write_run(RunDir(group / f"seed-{seed}"), seed, images=examples.images, labels=right)
    record = RunDir(group / "seed-0").read_record()
    RunGroup(group).write_record(GroupRecord((0, 1), record))
    yield Doubted(folder, examples, right, group)
    del DATASETS["doubted"]


def write_run(run: RunDir, seed: int, *, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes a run of a linear classifier that has learned these labels."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE, dtype="uint8", name="image"),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Flatten(),
            layers.Dense(10, name="logits"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.002), loss=loss, jit_compile=False)
    for _ in range(60):
        model.train_on_batch(images, labels)
    run.path.mkdir()
    model.save(run.model)
    settings = asdict(
        TrainConfig(dataset="doubted", seed=seed, validation_fraction=0.5, batch_size=50)
    )
    run.config.write_text(json.dumps({"settings": settings}))


def answers_of(run: RunDir, *, split: str, data_dir: Path) -> tuple[Examples, np.ndarray]:
    """Returns a split and the probabilities that a run's model gives."""
    model, examples = load_model_and_split(run, split=split, data_dir=data_dir)
    logits = predict_logits(model, examples.images, source=run.model)
    return examples, np.exp(log_softmax(logits))


def test_labels_that_were_made_wrong_are_found_with_the_right_one(doubted):
    run = RunDir(doubted.group / "seed-0")
    found = find_suspects(run, split="test", data_dir=doubted.data_dir)
    assert (found.split, found.runs, found.examples) == ("test", 1, 200)
    top = {of.number for of in found.suspects}
    assert len(top & doubted.wrong) >= 8
    assert len(top) <= 20
    assert 5 <= found.estimate <= 30
    for of in found.suspects:
        assert of.label == CLASS_NAMES[doubted.examples.labels[of.number]]
        if of.number in doubted.wrong:
            assert of.suggestion == CLASS_NAMES[doubted.right[of.number]]
    assert json.loads(run.suspects.read_text()) == asdict(found)


def test_the_score_is_the_margin_and_ranks(doubted):
    run = RunDir(doubted.group / "seed-0")
    found = find_suspects(run, split="test", data_dir=doubted.data_dir, top=5)
    _, probabilities = answers_of(run, split="test", data_dir=doubted.data_dir)
    margins = []
    for row, label in zip(probabilities, doubted.examples.labels, strict=True):
        margins.append((1 + row[label] - np.delete(row, label).max()) / 2)
    assert [of.number for of in found.suspects] == np.argsort(margins)[:5].tolist()
    for of in found.suspects:
        assert of.quality == pytest.approx(margins[of.number])
        assert of.label_probability + of.suggestion_probability <= 1


def test_a_group_answers_by_the_mean_of_its_runs(doubted):
    group = RunDir(doubted.group)
    found = find_suspects(group, split="test", data_dir=doubted.data_dir, top=1)
    (of,) = found.suspects
    both = [
        answers_of(run, split="test", data_dir=doubted.data_dir)[1]
        for run in (RunDir(doubted.group / "seed-0"), RunDir(doubted.group / "seed-1"))
    ]
    assert found.runs == 2
    assert of.suggestion_probability == pytest.approx(np.mean(both, axis=0)[of.number].max())
    assert json.loads((doubted.group / "suspects.json").read_text())["runs"] == 2


def test_of_training_images_a_group_doubts_those_that_some_run_validated_with(doubted):
    runs = [RunDir(doubted.group / "seed-0"), RunDir(doubted.group / "seed-1")]
    parts = [answers_of(run, split="validation", data_dir=doubted.data_dir) for run in runs]
    by_image: dict[bytes, list[np.ndarray]] = {}
    for examples, probabilities in parts:
        for image, row in zip(examples.images, probabilities, strict=True):
            by_image.setdefault(bytes(image), []).append(row)
    assert {len(rows) for rows in by_image.values()} == {1, 2}
    found = find_suspects(RunDir(doubted.group), split="train", data_dir=doubted.data_dir)
    assert found.examples == len(by_image)
    assert len(doubted.wrong & {of.number for of in found.suspects}) >= 5
    for of in found.suspects:
        mean = np.mean(by_image[bytes(doubted.examples.images[of.number])], axis=0)
        assert of.suggestion_probability == pytest.approx(mean.max())
        assert of.label == CLASS_NAMES[doubted.examples.labels[of.number]]


def test_of_validation_images_the_number_is_that_in_the_runs_own_part(doubted):
    run = RunDir(doubted.group / "seed-0")
    examples, probabilities = answers_of(run, split="validation", data_dir=doubted.data_dir)
    found = find_suspects(run, split="validation", data_dir=doubted.data_dir, top=3)
    assert found.examples == len(examples.labels) == 100
    assert len(found.suspects) == 3
    for of in found.suspects:
        assert of.suggestion_probability == pytest.approx(probabilities[of.number].max())
        assert of.label == CLASS_NAMES[examples.labels[of.number]]


def test_a_split_whose_labels_were_learned_is_refused(doubted):
    run = doubted.group / "seed-0"
    with pytest.raises(ValueError, match=r"^split: got 'train', whose labels this run has learned"):
        find_suspects(RunDir(run), split="train", data_dir=doubted.data_dir)
    with pytest.raises(ValueError, match=r"^split: got 'validation', which is another part"):
        find_suspects(RunDir(doubted.group), split="validation", data_dir=doubted.data_dir)


def test_a_group_that_cannot_be_written_to_is_refused_before_the_work(
    doubted, tmp_path, monkeypatch, capsys
):
    group = shutil.copytree(doubted.group, tmp_path / "group")
    options = {"split": "test", "data_dir": doubted.data_dir}
    monkeypatch.setattr("os.access", lambda path, mode: path != group / "seed-1")
    with pytest.raises(
        PermissionError, match=r"seed-1: is not writable\. Name another run, say a copy\."
    ):
        evaluate_group(RunGroup(group), **options)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("os.access", lambda path, mode: path != group)
    with pytest.raises(
        PermissionError, match=r"group: is not writable\. Name another run, say a copy\."
    ):
        find_suspects(RunDir(group), **options)
    (group / "seed-1" / "model.keras").unlink()
    with pytest.raises(FileNotFoundError, match=r"seed-1: no trained model"):
        find_suspects(RunDir(group), split="test", data_dir=tmp_path / "nowhere")


def test_runs_of_a_group_that_have_not_ended_are_left_out(doubted, tmp_path, capsys):
    group = RunGroup(shutil.copytree(doubted.group, tmp_path / "group"))
    group.run(1).checkpoint.mkdir()
    found = find_suspects(RunDir(group.path), split="test", data_dir=doubted.data_dir)
    assert found.runs == 1
    assert capsys.readouterr().err == f"{group.path}: left out, since not ended: seed 1\n"
    group.run(0).checkpoint.mkdir()
    with pytest.raises(FileNotFoundError, match=r"group: no run has ended\. Go on with them: "):
        find_suspects(RunDir(group.path), split="test", data_dir=doubted.data_dir)


def test_corruptions_and_what_another_run_starts_from_are_of_one_run(doubted):
    named = f"{doubted.group}: a group of runs. Name one of them: {doubted.group}/seed-0"
    ended = CliRunner().invoke(main, ["evaluate", str(doubted.group), "--corruptions"])
    assert ended.exit_code == 1
    assert named in ended.stderr
    ended = CliRunner().invoke(main, ["train", "--from", str(doubted.group)])
    assert (ended.exit_code, ended.stderr) == (1, f"Error: {named}\n")


def test_the_command_prints_and_refuses(doubted):
    def evaluate(run, *options):
        arguments = [run, "--suspect-labels", "--data-dir", doubted.data_dir, *options]
        return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])

    found = evaluate(doubted.group / "seed-0", "--top", 3, "--json")
    document = json.loads(found.stdout)
    assert document == json.loads(RunDir(doubted.group / "seed-0").suspects.read_text())
    assert len(document["suspects"]) == 3
    table = evaluate(doubted.group)
    assert table.stdout.startswith("test: 200 images, by 2 runs; cleanlab takes about ")
    refused = evaluate(doubted.group, "--split", "validation")
    assert refused.exit_code == 2
    assert "Error: --split: got 'validation', which is another part" in refused.stderr


def test_the_table_has_a_line_a_suspect():
    found = Suspects(
        split="test",
        runs=2,
        views=1,
        views_share=1.0,
        examples=10_000,
        estimate=91,
        suspects=[Suspect(5430, "cat", 0.009, "frog", 0.88, 0.0642)],
    )
    assert format_table(found).splitlines() == [
        "test: 10,000 images, by 2 runs; cleanlab takes about 91 labels for wrong",
        "",
        " image  label               suggestion           quality",
        "  5430  cat           0.9%  frog         88.0%    0.0642",
    ]
