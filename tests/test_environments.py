"""On other people's machines: their settings, their folders, their file systems."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from keras_cifar.cli import main
from keras_cifar.files import open_lock
from keras_cifar.recipes import TrainConfig
from keras_cifar.run_dir import RunDir, new_run, newest_run

# What each of these folders lacks is what the system answers there.
WITHOUT_CHMOD = """
def refuse(*_, **__): raise PermissionError(1, "Operation not permitted")
os.chmod = os.fchmod = pathlib.Path.chmod = refuse
"""
WITHOUT_FSYNC_OF_FOLDERS = """
import errno, stat
fsync = os.fsync
def fsync_files(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode): raise OSError(errno.EINVAL, "Invalid argument")
    fsync(descriptor)
os.fsync = fsync_files
"""
WITHOUT_FLOCK = """
import errno, fcntl
def flock(*_): raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


def test_a_run_and_an_export_need_neither_chmod_nor_locks_nor_a_sync_of_folders(
    in_a_process, tmp_path
):
    run, models = tmp_path / "run", tmp_path / "models"
    result = in_a_process(
        WITHOUT_CHMOD + WITHOUT_FSYNC_OF_FOLDERS + WITHOUT_FLOCK,
        "config = TrainConfig(dataset='tiny', validation_fraction=0.5, epochs=1, batch_size=50)",
        f"run = RunDir(pathlib.Path({str(run)!r}))",
        "train(config, run, data_dir=data_dir)",
        "from keras_cifar.export import export",
        f"export(run, pathlib.Path({str(models)!r}))",
    )
    assert result.returncode == 0, result.stderr
    for folder in (run, models):
        locks = f"{folder}: has no locks; make sure that no other process writes there.\n"
        syncs = f"{folder}: cannot be synced; a power cut may cost the newest files there.\n"
        assert (result.stderr.count(locks), result.stderr.count(syncs)) == (1, 1)
    assert RunDir(run).require_model()
    assert (models / "1" / "saved_model.pb").is_file()
    assert not list(models.glob(".unfinished-*"))


# Everything is mounted a second time, read only, and the command sees nothing else.
READ_ONLY = """
mount --make-rprivate /
mkdir "$1/root" && mount --rbind / "$1/root" && cd "$1/root"
for mounted in $(awk -v root="$1/root" 'index($2, root) == 1 {print $2}' /proc/mounts | tac)
do mount -o remount,bind,ro "$mounted" 2>/dev/null || true; done
mount -t tmpfs tmpfs ".$1/runs"
exec chroot . "$2" -m keras_cifar train --dataset sample --validation-fraction 0.9 --epochs 1 \
    --run-dir "$1/runs/mine"
"""


@pytest.mark.slow
def test_a_run_needs_no_more_than_its_own_folder_to_be_writable(tmp_path):
    may_mount = ["unshare", "--mount", "mount", "--make-rprivate", "/"]
    if shutil.which("unshare") is None or subprocess.run(may_mount, check=False).returncode:
        pytest.skip("needs the right to mount")
    (tmp_path / "runs").mkdir()
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", READ_ONLY, "sh", tmp_path, sys.executable],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "/runs/mine: val_accuracy" in result.stdout


def test_locks_are_opened_as_nfs_wants_them(tmp_path):
    """NFS makes locks of bytes, for which a file is open to read (shared) or write (exclusive)."""
    with open_lock(tmp_path / "lock") as file:
        assert fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become another user")
def test_the_lock_of_another_user_in_a_shared_folder_is_a_lock(tmp_path):
    code = (
        "import os, pathlib, sys\n"
        "from keras_cifar.files import locked\n"
        "os.chdir(sys.argv[1])\n"
        "os.setuid(65534)\n"
        "with locked(pathlib.Path('lock'), when_busy=sys.exit): print('held')\n"
    )
    tmp_path.chmod(0o755)
    (tmp_path / "lock").touch(mode=0o644)
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, check=True)
    assert result.stdout == b"held\n"


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with new_run("now") as first, new_run("now") as second, new_run("now") as third:
        assert [run.path.name for run in (first, second, third)] == ["now", "now-2", "now-3"]
        second.config.write_text("{}")
    assert [run.path for run in (first, second, third) if run.path.exists()] == [second.path]
    assert newest_run().path == second.path


def test_pictures_are_the_same_whatever_matplotlib_is_told(command, trained_run, tmp_path):
    settings = tmp_path / "matplotlibrc"
    settings.write_text("backend: TkAgg\ntext.usetex: True\nfigure.facecolor: black\n")
    # Notebooks name the backend of their own environment to the commands that they start.
    told = {"MPLBACKEND": "of-another-environment", "MATPLOTLIBRC": str(settings)}
    pictures = [tmp_path / "plain.svg", tmp_path / "told.svg"]
    for picture, environment in zip(pictures, ({}, told), strict=True):
        options = ("plot", trained_run.path, "--output", picture)
        result = command(*options, env={**os.environ, **environment})
        assert result.returncode == 0, result.stderr
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_settings_of_matplotlib_that_it_stumbles_over_end_nothing(
    trained_run, tmp_path, command, monkeypatch
):
    settings = tmp_path / "matplotlibrc"
    settings.write_bytes(b"font.family: \xff\n")
    options = ("plot", trained_run.path, "--output", tmp_path / "curves.svg")
    told = command(*options, env={**os.environ, "MATPLOTLIBRC": str(settings)})
    assert told.returncode == 0, told.stderr
    # Those of the folder that it runs in are read whatever it is told.
    monkeypatch.chdir(tmp_path)
    here = command(*options)
    error = f"Error: {settings}: is not UTF-8, as matplotlib wants it. Move it away.\n"
    assert (here.returncode, here.stderr) == (1, error)


def test_a_number_of_cores_that_is_none_is_named(tmp_path, command):
    environment = {**os.environ, "LOKY_MAX_CPU_COUNT": ""}
    result = command("doctor", "--data-dir", tmp_path, env=environment)
    error = "Error: LOKY_MAX_CPU_COUNT: got '', expected a number. Unset it.\n"
    assert (result.returncode, result.stderr) == (1, error)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["runs .", "predict --files-from - --url http://127.0.0.1:9"])
def test_what_the_shell_has_closed_is_as_if_it_led_nowhere(tmp_path, closed, arguments):
    words = f'exec "$0" -m keras_cifar {arguments} {closed}'
    result = subprocess.run(
        ["sh", "-c", words, sys.executable],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    expected = 0 if arguments.startswith("runs") else 1  # no paths in the list
    assert (result.returncode, "Traceback" in result.stderr) == (expected, False), result.stderr


@pytest.mark.parametrize("option", ["--help", "--version", "runs --help", "runs"])
def test_a_full_disk_for_what_is_printed_is_one_line(tmp_path, option):
    words = f'exec "$0" -m keras_cifar {option} > /dev/full'
    command = ["sh", "-c", words, sys.executable]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if option != "runs":  # which has nothing to print
        assert result.stderr == "Error: No space left on device.\n"
        assert result.returncode == 1


def test_the_home_folder_is_meant_by_its_sign_also_behind_an_equals_sign(
    trained_run, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["plot", str(trained_run.path), "--output=~/curves.png"])
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["export", "gs://bucket/models"], "'gs://bucket/models' is a URL; a path on this machine"),
        (["train", "--run-dir=S3://b/r"], "'S3://b/r' is a URL; a path on this machine"),
        (["evaluate", "~nobody-at-all/run"], "'~nobody-at-all/run': no such home folder."),
    ],
)
def test_what_is_no_path_on_this_machine_is_refused(tmp_path, monkeypatch, arguments, error):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert error in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("told", ["gs://bucket/data", "~nobody-at-all/data"])
def test_a_data_folder_in_the_environment_that_is_none_is_named(tmp_path, monkeypatch, told):
    monkeypatch.setenv("TFDS_DATA_DIR", told)
    result = CliRunner().invoke(main, ["data"])
    assert result.exit_code == 1
    assert f"{told}: no folder on this machine. Give one with --data-dir" in result.output


def test_where_the_data_was_and_tensorboard_are_remembered(command, in_a_process, tiny, tmp_path):
    run = RunDir(tmp_path / "run")
    result = in_a_process(
        "def save_and_interrupt(*arguments, save=checkpoint.save, **named):",
        "    save(*arguments, **named)",
        "    raise KeyboardInterrupt",
        "checkpoint.save = save_and_interrupt",
        "from keras_cifar.cli import main",
        "config = ['--dataset', 'sample', '--validation-fraction', '0.9', '--epochs', '2']",
        f"main(['train', *config, '--run-dir', {str(run.path)!r}, '--tensorboard'])",
    )
    assert result.returncode == 130, result.stderr
    again = result.stderr.splitlines()[-1].removeprefix("Interrupted. Go on with: keras-cifar ")
    logs = set(run.tensorboard.rglob("events.*"))
    resumed = command(*again.split())
    assert resumed.returncode == 0, resumed.stderr
    assert set(run.tensorboard.rglob("events.*")) - logs


def test_keras_has_its_own_defaults_whatever_its_settings_say(tmp_path):
    (tmp_path / ".keras").mkdir()
    settings = '{"floatx": "float16", "image_data_format": "channels_first", "backend": "jax"}'
    (tmp_path / ".keras" / "keras.json").write_text(settings)
    code = (
        "import keras_cifar.start\n"
        "keras_cifar.start.start_tensorflow()\n"
        "from keras import backend, config\n"
        "print(backend.backend(), config.floatx(), config.image_data_format())\n"
        "print(config.max_epochs())\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "KERAS_MAX_EPOCHS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout == "tensorflow float32 channels_last\nNone\n"
    assert result.stderr == "KERAS_MAX_EPOCHS is '1': keras-cifar takes no notice of it.\n"


@pytest.mark.parametrize("name", ["epochs", "batch_size", "seed"])
@pytest.mark.parametrize("value", [2.5, "2", True])
def test_a_setting_that_must_be_a_whole_number_is_one(name, value):
    with pytest.raises(ValueError, match="expected a whole number") as raised:
        TrainConfig(**{name: value})
    assert str(raised.value).startswith(f"{name}: got {value!r},")


def test_a_setting_that_must_be_a_number_is_one():
    with pytest.raises(ValueError, match=r"learning_rate: got '0\.1', expected a number"):
        TrainConfig(learning_rate="0.1")
    assert TrainConfig(learning_rate=1).learning_rate == 1
