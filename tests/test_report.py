"""The report: what the page says, how it looks in a browser, and what it makes of bad folders."""

import dataclasses
import html
import json
import re
import shlex
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner

from keras_cifar.cifar10 import CLASS_NAMES, IMAGE_SHAPE, SAMPLE
from keras_cifar.cli import main
from keras_cifar.data.prepare import load
from keras_cifar.evaluate import evaluate
from keras_cifar.history import History
from keras_cifar.measure.intervals import wilson
from keras_cifar.measure.metrics_file import read_metrics
from keras_cifar.measure.predictions import Predictions, training_parts
from keras_cifar.measure.scoring import measure
from keras_cifar.recipes import TrainConfig
from keras_cifar.report import charts, report, words
from keras_cifar.report.curves import Run, curve_charts
from keras_cifar.report.findings import robustness_of, suspects_of, suspects_of_group
from keras_cifar.report.run_page import commands, measured_with_views
from keras_cifar.run_dir import RunDir, RunGroup
from keras_cifar.run_record import GroupRecord, Origin, RunRecord

HOSTILE = "<script>document.title='taken'</script>"


CORRUPTIONS = {
    "name": "2 corruptions for a test",
    "split": "test",
    "examples": 500,
    "clean_accuracy": 0.9,
    "mean_corruption_error": 0.5,
    "accuracy": {"fog": [0.8, 0.7, 0.6, 0.5, 0.4], "gaussian_noise": [0.6, 0.5, 0.4, 0.3, 0.2]},
}


def suspects_document(labels, **changes):
    """A suspects.json with one image, the third."""
    suspect = {
        "number": 2,
        "label": CLASS_NAMES[labels[2]],
        "label_probability": 0.125,
        "suggestion": CLASS_NAMES[(labels[2] + 1) % 10],
        "suggestion_probability": 0.75,
    }
    return {"split": "test", "examples": 500, "estimate": 7, "suspects": [suspect | changes]}


def copy_of(run, path, **settings):
    """A run with other settings, its model left as it is."""
    shutil.copytree(run.path, path)
    copy = RunDir(path)
    record = copy.read_record()
    copy.write_record(record._replace(settings=dataclasses.replace(record.settings, **settings)))
    return copy


def without_model(run, path, **settings):
    """The same without its model: metrics.json tells of it, which takes no time."""
    copy = copy_of(run, path, **settings)
    copy.model.unlink()
    return copy


@pytest.fixture(scope="module")
def run(trained_run, tmp_path_factory):
    """A run to write reports in, with metrics.json."""
    copy = copy_of(trained_run, tmp_path_factory.mktemp("report") / "two-epochs")
    evaluate(copy, split="test", data_dir=None)
    copy.corruptions.write_text(json.dumps(CORRUPTIONS))
    labels = load(SAMPLE, split="test", data_dir=None).labels
    copy.suspects.write_text(json.dumps(suspects_document(labels)))
    return copy


@pytest.fixture
def with_views(run):
    """The run, as if evaluate --tta had measured it."""
    before = run.metrics.read_text()
    run.metrics.write_text(json.dumps(json.loads(before) | {"views": 6, "views_share": 0.25}))
    yield SimpleNamespace(run=run)
    run.metrics.write_text(before)


def test_what_several_views_gave_is_told_by_its_name(with_views):
    assert measured_with_views(with_views).views == 6


@pytest.fixture(scope="module")
def page_file(run):
    return report([run], path=run.report)


@pytest.fixture(scope="module")
def group(run, tmp_path_factory):
    """Two seeds of one kind of settings and one of another; their models are the same."""
    folder = tmp_path_factory.mktemp("group")
    seeds = [copy_of(run, folder / "group" / f"seed-{seed}", seed=seed) for seed in (0, 1)]
    RunGroup(folder / "group").write_record(GroupRecord((0, 1), run.read_record()))
    other = copy_of(run, folder / "other", learning_rate=0.1)
    begun = without_model(run, folder / "begun", seed=2)
    begun.checkpoint.mkdir()
    return SimpleNamespace(path=folder / "group", seeds=seeds, other=other, begun=begun)


@pytest.fixture(scope="module")
def runs_page_file(group):
    path = group.path.parent / "report.html"
    return report([*group.seeds, group.other], path=path)


def text_of(path):
    """What a page says, its tags aside."""
    body = path.read_text().partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


# What the page says


def test_the_page_has_the_figures_that_evaluate_has(run, page_file):
    metrics = read_metrics(run.metrics)
    text = text_of(page_file)
    assert f"{metrics.accuracy:.2%}".replace("%", "\N{NO-BREAK SPACE}%") in page_file.read_text()
    right = round(metrics.accuracy * metrics.examples)
    low, high = (100 * end for end in wilson(right, trials=metrics.examples))
    assert f"{right} of 500 test images" in text
    assert f"expect {low:.1f} to {high:.1f} % (95 % confidence)" in text
    assert f"{metrics.loss:.4f}" in text
    assert "Left out" not in text
    assert "keras-cifar train --recipe article --dataset sample --optimizer sgd --epochs 2" in text


def test_the_page_has_a_picture_of_each_kind(page_file):
    page = page_file.read_text()
    galleries = {
        name: section.count("<img ")
        for name, section in re.findall(r'(?s)<section id="(\w+)"(.*?)</section>', page)
    }
    found = {name: count for name, count in galleries.items() if count}
    # Of a class there may be fewer than two right answers, or mistakes.
    assert 20 < found.pop("looks") <= 80
    assert found == {"mistakes": 24, "hardest": 20, "suspects": 1, "filters": 1, "images": 25}
    assert page.count('<svg viewBox="0 0 420 290"') == 5
    assert page_file.stat().st_size < 3e6


def test_the_confusion_matrix_has_counts_and_shares(run, page_file):
    table = re.search(r'(?s)<table class="matrix">.*?</table>', page_file.read_text())[0]
    rows = re.findall(r"<tr><th scope=\"row\">(\w+)</th>(.*)</tr>", table)
    assert [name for name, _ in rows] == list(CLASS_NAMES)
    cells = [re.findall(r">(\d+)<small>([\d.]+).%</small>", row) for _, row in rows]
    counts = [[int(count) for count, _ in row] for row in cells]
    assert counts == read_metrics(run.metrics).confusion_matrix
    shares = np.array([[float(share) for _, share in row] for row in cells])
    np.testing.assert_allclose(shares, np.array(counts) / 50 * 100)


def test_temperature_scaling_is_told_with_its_losses(page_file):
    text = text_of(page_file)
    before, after = map(float, re.search(r"loss, validation (\d\.\d+) (\d\.\d+)", text).groups())
    assert after <= before


# Words


def confused(pairs, *, examples=1000):
    """Metrics of a model that takes `pairs[actual, predicted]` images of a class for another."""
    labels = np.repeat(np.arange(10), examples)
    answers = labels.copy()
    for (actual, predicted), count in pairs.items():
        start = CLASS_NAMES.index(actual) * examples
        taken = (answers[start : start + examples] != labels[start]).sum()
        answers[start + taken : start + taken + count] = CLASS_NAMES.index(predicted)
    return measure(8.0 * np.eye(10)[answers], labels=labels, split="test")


def test_what_is_said_in_words_follows_from_the_figures():
    metrics = confused({("cat", "dog"): 167, ("dog", "cat"): 90, ("cat", "deer"): 30})
    accuracy, pair, confusion, classes, certainty = words.summary(metrics)
    assert "right about 9,713 of 10,000 test images, 97.1\N{NO-BREAK SPACE}%" in accuracy
    assert pair.startswith("What it confuses most are cats and dogs: 257 of its 287 mistakes (90")
    assert confusion.startswith("Cats are taken for dogs in about 1 of 6 cases (16.7")
    assert "and cats worst (80.3" in classes
    assert "may be as hard" not in classes
    assert certainty.startswith("It is too sure of itself")


def test_a_class_that_chance_may_have_made_the_worst_has_its_rivals_named():
    metrics = confused({("cat", "dog"): 10, ("dog", "cat"): 9, ("ship", "truck"): 8}, examples=50)
    assert "cats worst" in words.summary(metrics)[3]
    assert "By these images alone, dogs and ships may be as hard." in words.summary(metrics)[3]


def test_without_a_mistake_nothing_is_said_of_confusions():
    assert not any("taken for" in sentence for sentence in words.summary(confused({})))


@pytest.mark.parametrize(
    ("share", "fraction"),
    [(0.5, "1 of 2"), (0.375, "3 of 8"), (0.32, "1 of 3"), (0.08, "1 of 12"), (0.001, "1 of 1000")],
)
def test_a_share_is_said_as_a_small_fraction(share, fraction):
    assert words.one_of(share) == fraction


# Charts


def test_curves_go_where_the_figures_are():
    history = History([1, 2, 3], [2.0, 1.0, 0.5], [0.1, 0.5, 0.9], [], [], [1.0] * 3)
    loss, accuracy = curve_charts([Run(history)])
    left, right, top, bottom = charts.LEFT, charts.RIGHT, charts.TOP, charts.BOTTOM
    middle = f"L{(left + right) / 2:g} {(top + bottom) / 2:g}"
    quarter = top + 3 / 4 * (bottom - top)
    assert loss.lines[0].path == f"M{left} {top} {middle} L{right} {quarter:g}"
    assert accuracy.lines[0].path == f"M{left} {bottom} {middle} L{right} {top}"
    assert [tick.text for tick in loss.x_ticks] == ["1", "2", "3"]
    assert "training from 2 to 0.5" in loss.summary


def test_curves_of_a_run_without_end_can_be_drawn():
    count = 100_000
    long = History(list(range(1, count + 1)), [1.0] * count, [0.5] * count, [], [], [1.0] * count)
    loss, accuracy = curve_charts([Run(long)])
    assert len(loss.lines[0].path) + len(accuracy.lines[0].path) < 10_000


def test_letters_at_the_ends_of_lines_keep_their_distance():
    def run(series, last):
        history = History([1, 2], [1.0, last], [0.5, 0.5], [], [], [1.0] * 2)
        return Run(history, series, "ABC"[series])

    loss, _ = curve_charts([run(0, 0.5), run(1, 0.5), run(2, 0.49)])
    ends = sorted(line.end[1] for line in loss.lines if line.label)
    assert len(ends) == 3
    assert min(np.diff(ends)) >= 14


# Commands


def test_the_commands_name_what_differs_from_the_recipe_and_where_the_weights_came_from():
    record = RunRecord(TrainConfig.of("fast94", precision="float32", accelerate=False), {}, "", {})
    train, *_ = commands(record)
    told = "--recipe fast94 --optimizer muon --seed 0 --precision float32 --no-accelerate"
    assert train == f"keras-cifar train {told}"
    train, *_ = commands(record._replace(origin=Origin(Path("/a b/model.keras"), "")))
    assert train == f"keras-cifar train {told} --from '/a b/model.keras'"
    arguments = shlex.split(train)[2:]
    main.commands["train"].make_context("train", arguments)


# In a browser


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("of", ["one", "several"])
def test_the_page_is_accessible_and_loads_nothing(
    browser, page_file, runs_page_file, of, scheme, width
):
    path = page_file if of == "one" else runs_page_file
    size = {"width": width, "height": 800}
    with browser.new_context(viewport=size, color_scheme=scheme) as context:
        page = context.new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url[:100]))
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        broken = "[...document.images].filter(i => !i.naturalWidth).length"
        assert page.evaluate(broken) == 0
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert not said
        faults = Axe().run(page).response["violations"]
        assert not faults, [(fault["id"], fault["nodes"][0]["html"]) for fault in faults]


def test_the_page_needs_no_javascript_and_prints_every_section(browser, page_file):
    with browser.new_context(java_script_enabled=False, color_scheme="dark") as context:
        page = context.new_page()
        page.goto(page_file.as_uri())
        assert page.get_by_role("heading", name="In short").is_visible()
        page.get_by_text("The figures of the epochs").first.click()
        assert page.get_by_role("cell", name="0.", exact=False).first.is_visible()
        page.get_by_role("link", name="Settings").click()
        assert page.url.endswith("#settings")
        printed = page.pdf()
    assert printed.startswith(b"%PDF")


def test_what_a_run_folder_says_stays_text(browser, run, tmp_path):
    folder = copy_of(run, tmp_path / f"{HOSTILE.replace('/', '-')}&amp;")
    document = json.loads(folder.config.read_text())
    document |= {
        "device": HOSTILE * 1000,
        "versions": {HOSTILE: [HOSTILE], "keras": f"\"'>{HOSTILE}"},
        "choices": {HOSTILE: HOSTILE, "no letter": "\ud800"},
        "origin": {"path": "/a\n```\n# b", "sha256": ""},
    }
    folder.config.write_text(json.dumps(document))
    folder.history.write_text(f"{HOSTILE}\n")
    folder.model.unlink()
    path = report([folder], path=tmp_path / "page.html")
    assert len(re.sub('"data:[^"]+"', "", path.read_text())) < 1e5
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(path.as_uri())
        assert page.locator("script").count() == 0
        assert "<script>document" in page.title()
        assert HOSTILE in page.locator("#settings").inner_text()
    card = report([folder], path=tmp_path / "card.md", kind="markdown").read_text()
    assert not re.search(r"(?<!\\)<script", card)
    assert r"\<script\>" in card
    assert card.count("\n```") == 2


# What is missing


def test_a_run_on_all_images_says_that_no_temperature_was_fitted(run, tmp_path):
    folder = copy_of(run, tmp_path / "all", validation_fraction=0.0)
    text = text_of(report([folder], path=folder.report))
    reason = "This run trained on all images: there are no validation images to look at."
    assert f"No temperature was fitted. {reason}" in text
    assert f"Left out. {reason}" in text


def test_without_model_and_history_the_page_has_what_metrics_json_says(run, tmp_path):
    folder = copy_of(run, tmp_path / "bare")
    folder.model.write_bytes(b"damaged")
    folder.history.unlink()
    path = report([folder], path=folder.report)
    text = text_of(path)
    metrics = read_metrics(run.metrics)
    assert f"right about {round(metrics.accuracy * 500)} of 500 test images" in text
    assert "history.csv: no history here" in text
    assert "model.keras: not a Keras model" in text
    assert "The first of the training images in epoch 2." in text
    assert path.read_text().count("Left out") == 7
    folder.metrics.write_text("{}")
    text = text_of(report([folder], path=folder.report))
    assert "Nor is there a metrics.json of the test images." in text


def test_without_model_and_data_the_page_has_what_metrics_json_says(run, no_data_dir, tmp_path):
    folder = without_model(run, tmp_path / "bare", dataset="cifar10")
    text = text_of(report([folder], path=folder.report, data_dir=no_data_dir))
    assert "of 500 test images" in text
    assert "The images are not on this machine, and the run has no model yet." in text


@pytest.fixture
def no_data_dir(tmp_path):
    """Where no data can be."""
    (tmp_path / "file").touch()
    return tmp_path / "file"


def test_a_model_that_gives_no_number_for_a_validation_image_has_a_page(run, tmp_path):
    folder = copy_of(run, tmp_path / "overflows")
    _, validation = training_parts(folder.read_record().settings, data_dir=None)
    test = load(SAMPLE, split="test", data_dir=None)
    sums, of_test = (part.images.sum(axis=(1, 2, 3)).tolist() for part in (validation, test))
    wanted = next(found for found in sums if found not in of_test)
    image = keras.Input(IMAGE_SHAPE, dtype="uint8", name="image")
    pixels = keras.layers.Flatten()(keras.layers.Rescaling(1.0)(image))
    distance = keras.ops.sum(pixels, axis=1, keepdims=True) - wanted
    logits = keras.layers.Dense(10)(0.0 * distance / distance)  # 0 / 0 for that image alone
    keras.Model(image, logits).save(folder.model)
    text = text_of(report([folder], path=folder.report))
    assert "of 500 test images" in text
    assert f"No temperature was fitted. {folder.model}: the model gives numbers that are" in text


@pytest.mark.parametrize(
    "change",
    [
        {"confusion_matrix": [[1] * 10] * 9},
        {"confusion_matrix": [[0] * 10] * 10},
        {"confusion_matrix": [[-1] + [1] * 9] * 10},
        {"confusion_matrix": [[0.5] * 10] * 10},
        {"confusion_matrix": [[10**30] * 10] * 10},
        {"loss": float("nan")},
        {"loss": "low"},
        {"split": "all"},
        {"views_share": 7},
        {"views": 6.5},
        {"views": True},
        {"views": 0},
        {"loss": True},
        {"calibration": {"expected_calibration_error": 0.1, "bins": [{}]}},
        {"calibration": {"expected_calibration_error": 0.1, "bins": []}},
        {"calibration": 7},
    ],
)
def test_metrics_that_evaluate_did_not_write_are_refused(run, tmp_path, change):
    document = json.loads(run.metrics.read_text())
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(document | change))
    with pytest.raises(OSError, match=r"metrics\.json: not the metrics of a run"):
        read_metrics(path)


def test_metrics_survive_their_file(run):
    metrics = read_metrics(run.metrics)
    assert dataclasses.asdict(metrics) == json.loads(run.metrics.read_text())


# Corruptions and suspects


def test_the_page_shows_corruptions_and_suspects(page_file):
    text = text_of(page_file)
    assert "2 corruptions for a test. 500 test images of each corruption and severity." in text
    assert "90.0 % of the answers are right; on corrupted ones, 50.0 %" in text
    assert "gaussian noise 60.0 % 50.0 % 40.0 % 30.0 % 20.0 %" in text
    assert "severity 0: 90.0%; severity 1: 70.0%;" in text
    assert "Of 500 test images, cleanlab takes 7 for wrongly labelled" in text
    assert re.search(r"\(12\.5 %\) ✗ \w+ 75\.0 %", text)


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": {}},
        {"accuracy": {"fog": [0.5] * 4}},
        {"accuracy": {"fog": [0.5, 0.5, 0.5, 0.5, 2]}},
        {"accuracy": 5},
        {"examples": "many"},
        {"clean_accuracy": float("nan")},
    ],
)
def test_corruptions_that_evaluate_did_not_write_are_left_out(tmp_path, change):
    facts = SimpleNamespace(run=RunDir(tmp_path))
    facts.run.corruptions.write_text(json.dumps(CORRUPTIONS | change))
    found = robustness_of(facts)
    assert found.reason.startswith(f"{facts.run.corruptions}: not what evaluate --corruptions")


@pytest.mark.parametrize(
    "change",
    [
        {"number": 500},
        {"number": -1},
        {"number": 2.0},
        {"label": "unicorn"},
        {"suggestion": HOSTILE},
        {"label_probability": -1},
        {"suggestion_probability": "high"},
    ],
)
def test_suspects_that_evaluate_did_not_write_are_left_out(tmp_path, change):
    examples = load(SAMPLE, split="test", data_dir=None)
    test = Predictions(examples, np.eye(10)[examples.labels])
    facts = SimpleNamespace(run=RunDir(tmp_path), test=test, validation=None)
    assert suspects_of(facts).reason == (
        "Not measured. keras-cifar evaluate --suspect-labels does so."
    )
    document = suspects_document(examples.labels, **change)
    facts.run.suspects.write_text(json.dumps(document))
    assert "suspects.json: not what evaluate --suspect-labels" in suspects_of(facts).reason


def test_the_suspects_of_a_group_are_those_in_its_folder(group, no_data_dir):
    runs = [SimpleNamespace(run=run, record=run.read_record()) for run in group.seeds]
    examples = load(SAMPLE, split="train", data_dir=None)
    document = suspects_document(examples.labels) | {"split": "train"}
    RunDir(group.path).suspects.write_text(json.dumps(document))
    found = suspects_of_group(runs, data_dir=None)
    assert [picture.label for picture in found.pictures] == [CLASS_NAMES[examples.labels[2]]]
    other = SimpleNamespace(run=group.other, record=group.other.read_record())
    reason = suspects_of_group([*runs, other], data_dir=None).reason
    assert reason == "They are looked for in one run, or in a group of runs."
    record = runs[0].record
    record = record._replace(settings=dataclasses.replace(record.settings, dataset="cifar10"))
    of_others = [SimpleNamespace(run=runs[0].run, record=record)]
    reason = suspects_of_group(of_others, data_dir=no_data_dir).reason
    assert reason.startswith(f"{no_data_dir}: cannot hold the data")


# Several runs


def test_runs_that_differ_by_their_seed_alone_are_one_row(runs_page_file, run):
    text = text_of(runs_page_file)
    assert "3 runs compared 2 kinds of settings" in text
    accuracy = f"{read_metrics(run.metrics).accuracy:.2%}".replace("%", " %")
    results = text[text.index("row test accuracy") :]
    assert f"A {accuracy} ± 0.00 0.05 0, 1" in results
    assert f"B {accuracy} 0.1 0" in results
    assert "<mark>0.1</mark>" in runs_page_file.read_text()
    # The models are the same, so no resample can tell them apart.
    assert "B +0.00 +0.00 to +0.00 not told apart from A" in results
    assert "row A, 2 seeds" in text


def test_two_runs_get_mcnemars_test(group):
    path = report([group.seeds[0], group.other], path=group.path.parent / "two.html")
    text = text_of(path)
    assert "A alone is right about 0 of them, B alone about 0" in text
    assert "with probability 1 (McNemar's exact test)" in text
    assert "neither network is shown to be better" in text


def test_a_run_that_started_from_another_model_or_repeats_a_seed_is_in_another_row(group, tmp_path):
    seeds, further = (
        [without_model(seed, tmp_path / name / seed.path.name) for seed in group.seeds]
        for name in ("seeds", "further")
    )
    for one in further:
        record = one.read_record()
        one.write_record(record._replace(origin=Origin(Path("/a/model.keras"), "5d")))
    again = without_model(group.seeds[0], tmp_path / "again")
    text = text_of(report([*seeds, *further, again], path=tmp_path / "page.html"))
    assert "5 runs compared 3 kinds of settings" in text
    assert "row A, 2 seeds" in text
    assert "B: started from /a/model.keras" in text
    commands = [line for line in text.split("keras-cifar ") if line.startswith("train --recipe")]
    assert ["--seeds" in command for command in commands] == [True, False, False, False]


def test_a_run_that_has_not_ended_says_so_and_is_no_seed_of_a_row(group, tmp_path):
    sentence = "begun has not ended: its figures are those of the epochs so far."
    for name, kind in (("page.html", "html"), ("card.md", "markdown")):
        page = report([group.begun], path=tmp_path / name, kind=kind)
        assert sentence in page.read_text()
    ended = without_model(group.seeds[0], tmp_path / "ended")
    text = text_of(report([ended, group.begun], path=tmp_path / "several.html"))
    assert f"B: {sentence}" in text


def test_of_a_group_only_the_runs_that_have_ended_are_told_of(command_line, group, tmp_path):
    copy = shutil.copytree(group.path, tmp_path / "group")
    RunDir(copy / "seed-1").checkpoint.mkdir()
    RunDir(copy / "seed-0").model.unlink()
    result = command_line(copy)
    assert result.exit_code == 0, result.output
    assert result.stderr == f"{copy}: left out, since not ended: seed 1\n"
    assert "seed-0: what the model knows" in (copy / "report.html").read_text()


# The model card


def test_the_model_card_has_the_same_facts(run, tmp_path):
    card = report([run], path=tmp_path / "card.md", kind="markdown").read_text()
    metrics = read_metrics(run.metrics)
    assert f"| test loss | {metrics.loss:.4f} |" in card
    row = "| cat | " + " | ".join(map(str, metrics.confusion_matrix[3])) + " |"
    assert row in card
    tables = re.findall(r"(?m)(?:^\|.*\n)+", card)
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    for sentence in words.summary(metrics):
        assert f"- {sentence}\n".replace("\N{NO-BREAK SPACE}", " ") in card


# The command


@pytest.fixture
def command_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda *arguments: CliRunner().invoke(main, ["report", *map(str, arguments)])
    signal.signal(signal.SIGTERM, handler)


def test_of_a_group_the_command_tells_the_deviation_and_opens_the_card(
    command_line, group, monkeypatch
):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(uri) or False)
    result = command_line(group.path, "--format", "markdown", "--open")
    assert result.exit_code == 0, result.output
    path = group.path / "model_card.md"
    assert result.stdout == f"{path}\n"
    assert opened == [path.as_uri()]
    assert result.stderr == f"{path}: no browser here to open it with.\n"
    card = path.read_text()
    assert "All runs have the same settings but for the seed: nothing is compared." in card
    assert re.search(r"\| A \| \d+\.\d\d % ± 0\.00 \| 0, 1 \|", card)
    assert "| seed-1 | A | 1 |" in card
    assert "--seeds 0,1 " in card


def test_what_it_cannot_do_is_said_in_a_line(command_line, run, monkeypatch):
    twice = command_line(run.path, run.path)
    assert twice.exit_code == 2
    assert f"RUN: got {run.path} twice, expected each run once." in twice.stderr
    nowhere = command_line(run.path, "--output", "no/folder.html")
    assert (nowhere.exit_code, nowhere.stderr) == (
        1,
        "Error: no: no such folder. Make it, or name another file.\n",
    )
    folder = command_line(run.path, "--output", run.path.parent)
    assert (folder.exit_code, folder.stderr) == (
        1,
        f"Error: {run.path.parent}: is a folder. Name a file in it.\n",
    )
    model = command_line(run.path, "--output", run.model)
    assert model.exit_code == 2
    assert "--output: got 'model.keras', expected a name that ends in .html." in model.stderr
    none = command_line("nothing")
    assert none.exit_code == 1
    assert "nothing: no run here" in none.stderr
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    bare = command_line(run.path)
    assert (bare.exit_code, bare.stderr) == (
        1,
        "Error: report needs more: pip install 'keras-cifar[report]'\n",
    )
