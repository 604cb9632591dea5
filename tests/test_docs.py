"""README and docs: their links lead somewhere, and their commands and Python code run."""

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from PIL import Image

import keras_cifar
from keras_cifar.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
EXTRAS = metadata("keras-cifar").get_all("Provides-Extra")
SAMPLES = Path(keras_cifar.__file__).parent / "serve" / "page" / "samples"
# The fixtures train and serve. The others need a network, or a file that only a user has.
NOT_RUN = ("train", "launch", "serve", "data --archive", "data --mirror")


# What stands in a page


def fenced(page, language):
    return re.findall(rf"(?ms)^ *```{language}\n(.*?)^ *```$", page.read_text())


def without_fences(page):
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())


def inline_code(page):
    return re.findall(r"`([^`]+)`", without_fences(page))


def links(page):
    prose = re.sub(r"`[^`]+`", "", without_fences(page))
    return re.findall(r"\]\(([^)]+)\)|<(https?:[^>]+)>", prose)


def anchors(page):
    """Returns the anchors that GitHub gives to the headings."""
    taken = {}
    for heading in re.findall(r"^#+ (.+)$", without_fences(page), re.MULTILINE):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
        taken[anchor] = taken.get(anchor, -1) + 1
        yield f"{anchor}-{taken[anchor]}" if taken[anchor] else anchor


def shell_lines(page):
    for block in fenced(page, "sh"):
        yield from block.replace("\\\n", " ").splitlines()


def commands(line):
    """Yields the arguments of each keras-cifar that a line of shell starts, in a container too."""
    words = shlex.split(line, comments=True)
    for is_operator, group in itertools.groupby(words, lambda word: word in ("&&", "|")):
        command = list(group)
        if not is_operator and Path(command[0]).name == "keras-cifar":
            yield command[1:]
        elif command[:2] == ["docker", "run"] and "keras-cifar" in command:
            yield command[command.index("keras-cifar") + 1 :]


def each_page(having=None):
    """Parametrises a test by the pages, or by those that have a block of a language."""
    pages = [page for page in PAGES if having is None or fenced(page, having)]
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


# What is looked at


def test_the_readme_fits_one_screen_and_a_half():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@each_page()
def test_every_link_leads_somewhere(page):
    for target, autolink in links(page):
        url = urlsplit(target or autolink)
        if url.scheme:
            assert url.scheme in ("http", "https"), target
            assert re.fullmatch(r"[\w.-]+(:\d+)?", url.netloc), target
            continue
        file = (page.parent / url.path).resolve() if url.path else page
        assert file.is_relative_to(ROOT), target
        assert file.exists(), target
        assert not url.fragment or url.fragment in anchors(file), target


def test_the_readme_leads_to_every_page():
    found = {(ROOT / urlsplit(target).path).resolve() for target, _ in links(ROOT / "README.md")}
    assert not set(PAGES) - found - {ROOT / "README.md"}


@each_page()
def test_every_path_that_is_named_exists(page):
    folders = re.compile(r"(keras_cifar|scripts|tests)/\S*$")
    named = [code for code in inline_code(page) if folders.match(code)]
    for path in [*named, *re.findall(r"python (scripts/\S+\.py)", page.read_text())]:
        assert any(ROOT.glob(path)), path


@each_page()
def test_every_option_of_a_script_is_one(page):
    lines = [*shell_lines(page), *inline_code(page)]
    for line in lines:
        if found := re.match(r"python (scripts/\S+\.py)(.*)", line):
            for option in re.findall(r"--[\w-]+", found[2]):
                assert f'"{option}"' in (ROOT / found[1]).read_text(), line


@each_page()
def test_every_extra_that_is_named_is_one(page):
    lists = re.findall(r"(?:'\.|keras-cifar)\[([\w,-]+)\]", page.read_text())
    for extra in itertools.chain.from_iterable(names.split(",") for names in lists):
        assert extra in EXTRAS, extra


@each_page(having="sh")
def test_every_shell_block_is_shell(page):
    for block in fenced(page, "sh"):
        subprocess.run(["bash", "-n", "-c", block], check=True)


@each_page()
def test_the_command_line_takes_every_command(page):
    code = [code for code in inline_code(page) if code.startswith("keras-cifar ")]
    for line in [*shell_lines(page), *code]:
        for name, *arguments in commands(line):
            command = main.commands[name]
            if line != f"keras-cifar {name}":  # which in prose is its name, without its arguments
                command.make_context(name, arguments)  # raises UsageError


# What is run


@pytest.fixture(scope="module")
def labelled_server(exported, serving, tmp_path_factory):
    """A server whose version 1 has the label that the pages ask for."""
    folder = tmp_path_factory.mktemp("labelled")
    config = folder / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "cifar10" base_path: "{exported.version.parent}"\n'
        'model_platform: "tensorflow" version_labels { key: "stable" value: 1 } } }\n'
    )
    with serving(folder, "--models-config", config, "--access-log", "off") as server:
        yield server


@pytest.fixture
def folder(tmp_path, trained_run, exported, monkeypatch):
    """What the pages take for granted: a run, an exported model, and pictures."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_run.path, tmp_path / "runs" / "RUN")
    shutil.copytree(exported.version.parent, tmp_path / "models" / "cifar10")
    (tmp_path / "docs").mkdir()
    for picture in ("cat.png", "cat.jpg", "ship.png"):
        with Image.open(SAMPLES / f"{Path(picture).stem}.png") as image:
            image.convert("RGB").save(tmp_path / picture)
    return tmp_path


def at_server(text, server):
    return text.replace("http://localhost:8501", server.url).replace("localhost:8500", server.grpc)


def run_here(arguments):
    if arguments[0] == "data":
        arguments = [*arguments, "--dataset", "sample"]
    handler = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(main, arguments)
    signal.signal(signal.SIGTERM, handler)
    assert result.exit_code == 0, (arguments, result.output, result.exception)


def run_in_shell(line):
    """Runs a line as a user with the environment activated does."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", line]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path}
    ).stdout


@pytest.mark.slow
@each_page(having="sh")
def test_the_commands_run_in_their_order(page, folder, labelled_server):
    for line in shell_lines(page):
        if "docker" in line:
            continue
        if "curl" in line and shutil.which("curl"):
            assert '"label"' in run_in_shell(at_server(line, labelled_server))
        elif line.startswith("eval") and sys.platform != "darwin":  # its bash is too old
            run_in_shell(line)
        for arguments in commands(at_server(line, labelled_server)):
            if not " ".join(arguments).startswith(NOT_RUN):
                run_here(arguments)


@pytest.mark.slow
@each_page(having="python")
def test_the_python_code_runs_in_its_order(page, folder, labelled_server):
    for block in fenced(page, "python"):
        exec(compile(at_server(block, labelled_server), str(page), "exec"), {})
