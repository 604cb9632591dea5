"""What `keras-cifar runs` tells of the runs on disk."""

import fcntl
import json
import os
import pty
import shutil
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from keras_cifar.cli import main
from keras_cifar.files import is_locked, locked
from keras_cifar.measure.scoring import measure
from keras_cifar.run_dir import RunDir, RunGroup
from keras_cifar.run_record import GroupRecord
from keras_cifar.train.folder import owned

ESCAPE = "\x1b[31mred"


def listed(*arguments):
    """Returns the table's rows in words, and what is on stderr."""
    # As a terminal gets it: else click takes out what the terminal would obey.
    result = CliRunner().invoke(main, ["runs", *map(str, arguments)], color=True)
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()], result.stderr


def as_json(*arguments):
    result = CliRunner().invoke(main, ["runs", "--json", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def half_right(**changes):
    """A metrics.json of a model that is right about one image of two."""
    labels, answers = np.repeat(np.arange(10), 2), np.repeat(np.arange(0, 10, 2), 4)
    metrics = measure(np.eye(10)[answers], labels=labels, split="test")
    return json.dumps(asdict(metrics) | changes)


@pytest.fixture
def folder(trained_run, tmp_path):
    """Runs in every state, by their names, started in the order of `names`."""

    def copy(name, **files):
        run = RunDir(shutil.copytree(trained_run.path, tmp_path / name))
        run.metrics.unlink(missing_ok=True)
        for file, content in files.items():
            getattr(run, file).write_text(content)
        return run

    copy("ended", metrics=half_right(views=6, accuracy=0.99))
    copy("validated", metrics=half_right(split="validation"))
    copy("interrupted").checkpoint.mkdir()
    copy("running").checkpoint.mkdir()
    copy("no-config").config.unlink()
    copy("no-settings", config="{}")
    copy(ESCAPE, config='{"settings": {"recipe": "\x1b[2J"}}')
    copy("no-history", history="epoch,loss\n1,2\n")
    lines = trained_run.history.read_text().splitlines()
    lines[1] = f"{lines[1].rpartition(',')[0]},inf"
    copy("no-number", history="\n".join(lines))
    copy("no-metrics", metrics='{"split": "test"}')
    begun = copy("group/seed-2")
    record = begun.read_record()
    settings = record.settings
    RunGroup(tmp_path / "group").write_record(
        GroupRecord((2, 10), record._replace(settings=settings))
    )
    damaged = copy("damaged-group/seed-0").path.parent
    RunGroup(damaged).config.write_text("{")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.txt").touch()
    for age, name in enumerate(("running", "interrupted", "validated", "ended", "group/seed-2")):
        os.utime(tmp_path / name / "config.json", (1e9 + age, 1e9 + age))
    return tmp_path


def test_each_run_is_listed_with_its_state_and_damage_with_a_reason(folder):
    with locked(folder / "running" / ".lock", when_busy=pytest.fail):
        rows = {row["name"]: row for row in as_json(folder)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "ended": "ended",
        "validated": "ended",
        "interrupted": "interrupted",
        "running": "running",
        "group/seed-2": "ended",
        "group/seed-10": "waiting",
        "damaged-group": "damaged",
        "damaged-group/seed-0": "ended",
        **dict.fromkeys(
            ("no-config", "no-settings", ESCAPE, "no-history", "no-number", "no-metrics"),
            "damaged",
        ),
    }
    for name, row in rows.items():
        assert (row["state"] == "damaged") == bool(row["error"]), name
        assert row["path"] == str(folder / name)
    assert rows["ended"]["test_accuracy"] == 0.5
    assert rows["validated"]["test_accuracy"] is None
    known = ("recipe", "epochs_done", "val_accuracy")
    assert [rows["no-metrics"][name] for name in known] == [
        rows["validated"][name] for name in known
    ]


@pytest.mark.timeout(60)  # a pipe is waited for without an end
def test_a_run_from_elsewhere_costs_no_other_its_row(trained_run, tmp_path):
    good, piped, vast = (
        RunDir(shutil.copytree(trained_run.path, tmp_path / name))
        for name in ("good", "piped", "vast")
    )
    piped.checkpoint.mkdir()
    lock = piped.path / ".lock"
    lock.unlink(missing_ok=True)
    os.mkfifo(lock)
    for file in (vast.config, vast.history):
        os.truncate(file, 40 << 30)  # a hole, which takes no room on the disk
        rows = {row["name"]: (row["state"], row["error"]) for row in as_json(tmp_path)}
        error = f"{file}: is larger than 67,108,864 bytes. Move it away."
        expected = {"good": ("ended", None), "piped": ("interrupted", None)}
        assert rows == expected | {"vast": ("damaged", error)}
        shutil.copy(good.path / file.name, file)
    with pytest.raises(OSError, match="lock: is no file, as a lock is"), owned(piped.path):
        pass


def test_a_row_tells_settings_progress_and_accuracies(folder, trained_run):
    (row,) = (row for row in as_json(folder) if row["name"] == "ended")
    lines = [line.split(",") for line in trained_run.history.read_text().splitlines()[1:]]
    assert row["started"] == "2001-09-09T01:46:43+00:00"
    assert (row["recipe"], row["optimizer"], row["seed"]) == ("article", "sgd", 0)
    assert row["settings"] == {"dataset": "sample", "epochs": 2}
    assert (row["epochs_done"], row["epochs"]) == (2, 2)
    assert row["val_accuracy"] == max(float(line[4]) for line in lines)
    assert row["seconds"] == pytest.approx(sum(float(line[6]) for line in lines))
    (_, *cells), *_ = (row for row in listed(folder)[0] if row[0] == "ended")
    assert " ".join(cells).startswith("article optimizer sgd, dataset sample 0 2/2 ")
    assert cells[-4:-1] == ["50.00%", "tta", cells[-2]]


def test_the_table_has_the_reasons_on_stderr_and_nothing_that_a_terminal_obeys(folder):
    rows, warnings = listed(folder)
    names = [name for name, *_ in rows]
    assert "\\x1b[31mred" in names
    assert "\x1b" not in "".join(names) + warnings
    assert "\\x1b[31mred" in warnings
    assert f"{folder}/no-config: no run here; expected config.json in it." in warnings
    assert (
        f"{folder}/no-metrics/metrics.json: not the metrics of a run ('confusion_matrix'). "
        f"Measure it again: keras-cifar evaluate {folder}/no-metrics"
    ) in warnings
    assert len(warnings.splitlines()) == 7


def test_runs_are_sorted_and_filtered(folder):
    def names(*options):
        return [row["name"] for row in as_json(folder, "--recipe", "article", *options)]

    by_start = ["running", "interrupted", "validated", "ended", "group/seed-2"]
    assert names()[:5] == by_start
    assert names()[-1] == "group/seed-10"
    assert names("--reverse") == names()[::-1]
    by_name = names("--sort", "name")
    assert by_name.index("group/seed-2") + 1 == by_name.index("group/seed-10")
    assert names("--sort", "test_accuracy")[-1] == "ended"
    assert names("--sort", "seconds")[0] == "group/seed-10"
    assert names("--state", "waiting") == ["group/seed-10"]
    assert as_json(folder, "--recipe", "fast94") == []
    assert "none of its 14 runs is of that kind" in listed(folder, "--recipe", "fast94")[1]


def test_a_group_and_a_run_can_be_listed_by_themselves(folder):
    assert [row["name"] for row in as_json(folder / "group")] == ["seed-2", "seed-10"]
    assert [row["name"] for row in as_json(folder / "ended")] == ["ended"]


def test_without_runs_a_line_says_how_to_train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert listed() == ([], "runs: no run here. Train one: keras-cifar train\n")
    assert as_json() == []
    result = CliRunner().invoke(main, ["runs", "elsewhere"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "elsewhere: no such folder." in result.stderr


@pytest.mark.parametrize("columns", [30, 60, 80, 200])
def test_on_a_terminal_every_line_fits(folder, rest_of, columns):
    terminal, stdout = pty.openpty()
    command = [sys.executable, "-m", "keras_cifar", "runs", folder]
    environment = {**os.environ, "COLUMNS": str(columns)}
    subprocess.run(command, stdout=stdout, stderr=subprocess.DEVNULL, env=environment, check=True)
    os.close(stdout)
    lines = rest_of(terminal).decode().splitlines()
    assert len(lines) == 15
    assert max(map(len, lines)) <= columns
    assert any("seed-10" in line and line.endswith("waiting") for line in lines)


def test_it_is_quick_loads_no_tensorflow_and_writes_nothing(folder):
    before = {path: path.stat() for path in sorted(folder.rglob("*"))}
    code = (
        "import sys, time, click\n"
        "click_seconds = time.process_time()\n"
        "from keras_cifar.cli import main\n"
        f"main(['runs', {str(folder)!r}], standalone_mode=False)\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "print(time.process_time() / click_seconds, file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stderr.splitlines()[-1]) < 15  # 6 in November 2026
    after = {path: path.stat() for path in sorted(folder.rglob("*"))}
    assert [(path, of.st_mtime_ns, of.st_ino) for path, of in before.items()] == [
        (path, of.st_mtime_ns, of.st_ino) for path, of in after.items()
    ]


def test_who_looks_at_a_lock_is_not_taken_for_who_holds_it(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    assert is_locked(path) is False
    assert not path.exists()
    with locked(path, when_busy=pytest.fail):
        assert is_locked(path) is True
    assert is_locked(path) is False
    # The moment in which `is_locked` looks, which ends while `locked` waits.
    looking = path.open()
    fcntl.flock(looking, fcntl.LOCK_SH)
    clock = SimpleNamespace(sleep=lambda seconds: looking.close())
    monkeypatch.setattr("keras_cifar.files.time", clock)
    with locked(path, when_busy=pytest.fail) as is_held:
        assert is_held
    assert looking.closed
    clock.sleep = pytest.fail  # nobody looks, so nobody waits
    with locked(path, when_busy=pytest.fail):
        pass
