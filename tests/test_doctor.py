import importlib.metadata
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from keras_cifar.cifar10 import CIFAR10
from keras_cifar.data.tfds_folder import dataset_folder
from keras_cifar.doctor import as_json, diagnose, format_diagnosis
from keras_cifar.launch import share_out
from keras_cifar.machine import onednn, pick_precision, usable_cores
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir


def facts(diagnosis):
    return {(section, name): value for section, name, value in diagnosis.facts}


def fake_data(data_dir, *, numbers=(50_000, 10_000), size=1_000):
    """A prepared folder as TFDS lays it out, with records of no content."""
    folder = dataset_folder(CIFAR10, data_dir=data_dir)
    folder.mkdir(parents=True)
    splits = [
        {"name": name, "numBytes": str(size), "shardLengths": [str(number)]}
        for name, number in zip(("train", "test"), numbers, strict=True)
    ]
    (folder / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    for split, number in zip(splits, numbers, strict=True):
        content = bytes(size + 16 * number)
        (folder / f"cifar10-{split['name']}.tfrecord-00000-of-00001").write_bytes(content)
    return folder


def test_versions_devices_and_precision_are_those_of_this_machine(tmp_path):
    found = facts(diagnose(data_dir=tmp_path))
    for package in ("tensorflow", "keras", "numpy"):
        assert found["versions", package] == importlib.metadata.version(package)
    assert found["versions", "TensorFlow built for"].startswith(("CUDA 1", "CPU only"))
    assert found["devices", "CPU cores"] == f"{usable_cores()} of {os.cpu_count()}"
    assert found["devices", "oneDNN, to train"] == "{}: {}".format(*onednn())
    assert found["devices", "--precision auto"] == "{}: {}".format(*pick_precision())
    has_avx2 = " avx2 " in Path("/proc/cpuinfo").read_text()
    assert found["devices", "avx2"] == ("yes" if has_avx2 else "no")


def test_missing_data_is_a_problem_with_two_ways_out(tmp_path):
    diagnosis = diagnose(data_dir=tmp_path / "none" / "yet")
    assert facts(diagnosis)["data", "cifar10"] == "not prepared"
    (problem,) = (problem for problem in diagnosis.problems if "CIFAR-10" in problem.what)
    assert problem.what == f"CIFAR-10 is not in {tmp_path}/none/yet."
    assert "keras-cifar data" in problem.remedy
    assert "--dataset sample" in problem.remedy


def test_tfds_data_dir_is_looked_at_where_no_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert facts(diagnose(data_dir=None))["data", "folder"] == str(tmp_path)


@pytest.mark.parametrize(
    ("told", "what", "remedy"),
    [
        (
            "gs://b",
            "gs://b: no folder on this machine.",
            "Give one with --data-dir, or by TFDS_DATA_",
        ),
        ("/" + 300 * "x", "File name too long.", "Name another folder with --data-dir."),
    ],
)
def test_a_data_folder_that_cannot_be_looked_at_is_a_problem(monkeypatch, told, what, remedy):
    monkeypatch.setenv("TFDS_DATA_DIR", told)
    diagnosis = diagnose(data_dir=None)
    assert facts(diagnosis)["data", "cifar10"] == "unknown"
    (problem,) = (problem for problem in diagnosis.problems if told in problem.what)
    assert problem.what.endswith(what)
    assert problem.remedy.startswith(remedy)


def test_complete_data_is_no_problem(full_data_dir):
    diagnosis = diagnose(data_dir=full_data_dir)
    assert facts(diagnosis)["data", "cifar10"] == "prepared, files complete"
    assert not [problem for problem in diagnosis.problems if "CIFAR-10" in problem.what]


@pytest.mark.parametrize("damage", ["truncated", "file missing", "info unreadable"])
def test_incomplete_data_is_a_problem(tmp_path, damage):
    folder = fake_data(tmp_path)
    assert facts(diagnose(data_dir=tmp_path))["data", "cifar10"] == "prepared, files complete"
    file = folder / "cifar10-test.tfrecord-00000-of-00001"
    if damage == "truncated":
        os.truncate(file, 100)
    elif damage == "file missing":
        file.unlink()
    else:
        (folder / "dataset_info.json").write_text("{")
    diagnosis = diagnose(data_dir=tmp_path)
    assert facts(diagnosis)["data", "cifar10"] == "damaged"
    (problem,) = (problem for problem in diagnosis.problems if "CIFAR-10" in problem.what)
    assert problem.what.startswith(f"CIFAR-10 in {folder} is damaged (")
    assert "Move that folder away" in problem.remedy


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A driver's tool that reports a GPU, which TensorFlow cannot use as there is none."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NVIDIA T4, 15360 MiB, 470.57'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    return tool


def test_a_gpu_that_tensorflow_does_not_see_is_a_problem(tmp_path, nvidia_smi):
    diagnosis = diagnose(data_dir=tmp_path)
    assert facts(diagnosis)["devices", "GPU 0 in nvidia-smi"] == "NVIDIA T4, 15360 MiB, 470.57"
    (problem,) = (problem for problem in diagnosis.problems if "GPU" in problem.what)
    assert problem.what == "This machine has a GPU that TensorFlow does not see."
    assert "keras-cifar[cuda]" in problem.remedy or "driver" in problem.remedy


def test_a_driver_that_fails_is_no_gpu(tmp_path, nvidia_smi):
    nvidia_smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert not [name for _, name in facts(diagnose(data_dir=tmp_path)) if "nvidia-smi" in name]


@pytest.mark.parametrize(
    "content", [b"of another machine", b"#!/bin/sh\nprintf 'NVIDIA \\351, 1 MiB, 1\\n'\n"]
)
def test_a_driver_that_says_nonsense_ends_nothing(tmp_path, nvidia_smi, content):
    nvidia_smi.write_bytes(content)
    names = [name for _, name in facts(diagnose(data_dir=tmp_path)) if "nvidia-smi" in name]
    assert len(names) == content.startswith(b"#!")
    assert share_out([0])


def test_the_newest_run_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert facts(diagnose(data_dir=tmp_path))["runs", "newest"] == f"none in {tmp_path}/runs"
    run = RunDir(Path("runs/first"))
    run.path.mkdir(parents=True)
    run.config.write_text(json.dumps({"settings": asdict(TrainConfig())}))
    assert facts(diagnose(data_dir=tmp_path))["runs", "newest"] == "runs/first (no model yet)"
    run.model.touch()
    assert facts(diagnose(data_dir=tmp_path))["runs", "newest"] == "runs/first (trained)"


def test_a_missing_extra_comes_with_the_command_that_installs_it(tmp_path):
    value = facts(diagnose(data_dir=tmp_path))["extras", "tensorboard"]
    installed = shutil.which("tensorboard") or value == "installed"
    assert installed or value == "pip install 'keras-cifar[tensorboard]'"


def test_problems_are_printed_last_each_with_what_to_do(tmp_path):
    diagnosis = diagnose(data_dir=tmp_path)
    lines = format_diagnosis(diagnosis).splitlines()
    assert lines[0] == "versions"
    problem = diagnosis.problems[-1]
    assert lines[-1] == f"  {problem.what} {problem.remedy}"
    assert format_diagnosis(diagnosis._replace(problems=[])).endswith("\nNo problem found.")


def test_json_holds_all_facts_and_problems(tmp_path):
    diagnosis = diagnose(data_dir=tmp_path)
    document = json.loads(json.dumps(as_json(diagnosis)))
    for section, name, value in diagnosis.facts:
        assert document[section][name] == value
    assert document["problems"][-1]["remedy"] == diagnosis.problems[-1].remedy
