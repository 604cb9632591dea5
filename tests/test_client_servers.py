"""Both clients, and `predict`, against a whole server."""

import json
import re
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner
from PIL import Image

from keras_cifar.cli import main
from keras_cifar.client import (
    Answer,
    Failure,
    GrpcClient,
    ModelNotFoundError,
    RestClient,
    ServerTimeoutError,
    VersionStatus,
    predict_files,
    server_client,
)

NOT_FOUND = re.escape(ModelNotFoundError.remedy)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(params=[RestClient, GrpcClient])
def client_of(request, server):
    """Makes clients of the server, of each protocol."""
    address = server.url if request.param is RestClient else server.grpc
    clients = []

    def make(**settings):
        clients.append(request.param(address, **settings))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def hundred(sample, tmp_path_factory):
    """A hundred image files."""
    folder = tmp_path_factory.mktemp("images")
    for index, image in enumerate(sample.images[:100]):
        Image.fromarray(image).save(folder / f"{index:03}.png")
    return sorted(folder.iterdir())


def test_each_way_to_ask_gives_the_same_answers(command, server, exported, trained_run, hundred):
    ways = [
        ("--url", server.url),
        ("--grpc", server.grpc),
        ("--model", trained_run.path),
        ("--model", exported.version.parent),
    ]
    answers = []
    for way in ways:
        result = command("predict", *hundred, *way, "--json")
        assert (result.returncode, result.stderr) == (0, ""), way
        answers.append(json.loads(result.stdout))
    of_run = answers[2]
    assert [answer["file"] for answer in of_run] == [str(path) for path in hundred]
    assert len({answer["label"] for answer in of_run}) > 1
    for others in answers:
        for found, expected in zip(others, of_run, strict=True):
            assert (found["file"], found["label"]) == (expected["file"], expected["label"])
            assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)


def test_asking_by_rest_loads_no_tensorflow(server, hundred):
    code = (
        "import sys\n"
        "from keras_cifar.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'tensorflow', 'keras', 'grpc', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    arguments = ["predict", str(hundred[0]), "--url", server.url]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{hundred[0]}: ")


def test_pixels_get_the_answers_of_the_same_images_encoded(client_of, sample, hundred):
    client = client_of()
    by_pixels = client.predict_pixels(sample.images[:40])
    by_bytes = client.predict([path.read_bytes() for path in hundred[:40]])
    for found, expected in zip(by_pixels, by_bytes, strict=True):
        assert found.label == expected.label
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        assert list(found.probabilities.values()) == sorted(found.probabilities.values())[::-1]


def test_no_images_get_no_answers(client_of, sample):
    assert client_of().predict([]) == []
    assert client_of().predict_pixels(sample.images[:0]) == []


def test_pixels_of_another_type_or_shape_are_refused(client_of, sample):
    for images in (sample.images[0], sample.images[:2, :, :, :1], sample.images[:2] / 255):
        with pytest.raises(ValueError, match=r"^images: got \w+ \(.*\), expected uint8 \(n, 32, "):
            client_of().predict_pixels(images)


def test_a_damaged_image_costs_no_other_its_answer(client_of, hundred, tmp_path):
    torn, text = tmp_path / "torn.png", tmp_path / "text.png"
    torn.write_bytes(hundred[0].read_bytes()[:1000])
    text.write_text("no image")
    paths = [hundred[0], torn, hundred[1], text, tmp_path / "none.png", hundred[2]]
    client = client_of()
    results = predict_files(paths, model=client)
    assert [result.file for result in results] == paths
    assert [type(result) is Failure for result in results] == [False, True] * 2 + [True, False]
    assert results[1].reason.startswith(f"{client.address}: the input is refused (")
    assert results[3].reason == "not an image that can be read; expected PNG, JPEG, BMP, GIF, WebP"
    assert results[4].reason == "No such file or directory"
    expected = client.predict([path.read_bytes() for path in hundred[:3]])
    for found, answer in zip([results[0], results[2], results[5]], expected, strict=True):
        assert found.label == answer.label
        assert found.probabilities == pytest.approx(answer.probabilities, abs=1e-5)


def test_status_tells_the_state_of_each_version(client_of):
    assert client_of().status() == [VersionStatus(1, "AVAILABLE", "")]
    assert client_of(version=1).status() == [VersionStatus(1, "AVAILABLE", "")]


def test_metadata_are_the_same_over_both_protocols(server):
    with RestClient(server.url) as rest, GrpcClient(server.grpc) as by_grpc:
        metadata = rest.metadata()
        assert by_grpc.metadata() == metadata
    assert metadata["model_spec"]["version"] == "1"
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert signatures["image_bytes"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"


def test_a_version_that_is_there_answers(client_of, hundred):
    client = client_of(version=1)
    client.wait_until_available(300)
    assert isinstance(client.predict([hundred[0].read_bytes()])[0], Answer)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"version": 9}, "Servable not found for request: Specific(cifar10, 9)"),
        ({"label": "nope"}, "Unrecognized servable version label: nope"),
        ({"model_name": "other"}, "Servable not found for request: Latest(other)"),
    ],
    ids=str,
)
def test_what_the_server_has_not_got_is_named(client_of, hundred, monkeypatch, settings, reason):
    client = client_of(**settings)
    for ask in (client.metadata, lambda: client.predict([hundred[0].read_bytes()])):
        with pytest.raises(ModelNotFoundError) as caught:
            ask()
        name = settings.get("model_name", "cifar10")
        assert re.fullmatch(
            re.escape(f"{client.address}: the model cannot be asked ({name}, ")
            + r"[\w ]+: "
            + re.escape(f"{reason}). {ModelNotFoundError.remedy}"),
            str(caught.value),
        )
    # Asks at 0 and 1 s, and gives the last request the rest of the time.
    monkeypatch.setattr(server_client, "_FIRST_POLL_SECONDS", 1)
    monkeypatch.setattr(server_client, "_LONGEST_POLL_SECONDS", 9)
    with pytest.raises(ServerTimeoutError, match=r"\(waited 2\.9 s; at the end: the model cannot"):
        client.wait_until_available(2.9)


# The command


@pytest.fixture
def in_process():
    """Runs `predict` in this process, on an image whose file is of no interest here."""
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda *arguments: CliRunner().invoke(main, ["predict", *map(str, arguments)])
    signal.signal(signal.SIGTERM, handler)


def test_predict_waits_for_the_server_and_says_so_aside(in_process, server, hundred):
    for way in (("--url", server.url), ("--grpc", server.grpc)):
        result = in_process(hundred[0], *way, "--wait", "300", "--version", "1", "--top", "1")
        assert result.exit_code == 0, result.output
        assert re.fullmatch(rf"{hundred[0]}: \w+ \d+\.\d%\n", result.stdout)
        assert result.stderr == f"waiting for {way[1]}, at most 300 s\n"


def test_predict_names_what_the_server_has_not_got_in_one_line(in_process, server, hundred):
    for way in (("--url", server.url), ("--grpc", server.grpc)):
        result = in_process(hundred[0], *way, "--version", 9)
        assert (result.exit_code, result.stdout) == (1, "")
        assert re.fullmatch(
            rf"Error: {way[1]}: the model cannot be asked \(cifar10, .*{NOT_FOUND}\n", result.stderr
        )


def test_predict_answers_for_the_files_that_the_server_can_read(
    in_process, server, hundred, tmp_path
):
    torn = tmp_path / "torn.png"
    torn.write_bytes(hundred[0].read_bytes()[:1000])
    result = in_process(hundred[0], torn, hundred[1], "--url", server.url, "--json")
    assert result.exit_code == 1
    first, refused, second = json.loads(result.stdout)
    assert [first["file"], second["file"]] == [*map(str, hundred[:2])]
    assert refused["file"] == str(torn)
    assert "the input is refused" in refused["error"]
    assert re.fullmatch(
        rf"Error: {torn}: {server.url}: the input is refused \(.*as PNG\.\n", result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "http://a", "--grpc", "b:1"], "--model, --url and --grpc each say whom to ask"),
        (["--url", "http://a", "--model", "b"], "--model, --url and --grpc each say whom to ask"),
        (["--url", "localhost:8501"], "--url: got 'localhost:8501', expected http://HOST:PORT or"),
        (["--grpc", "http://a:1"], "--grpc: got 'http://a:1', expected HOST:PORT."),
        (["--label", "x"], "--label is about a server: give --url or --grpc as well."),
        (["--model", "a", "--wait", "1"], "--wait is about a server: give --url or --grpc as well"),
        (["--model", "a", "--token", "x"], "--token is about a server: give --url or --grpc as"),
        (
            ["--url", "http://a", "--version", "1", "--label", "x"],
            "--label: got 'x' and version 1, expected one of the two.",
        ),
        (["--url", "http://a", "--version", str(2**63)], "--version: got 9223372036854775808, exp"),
        (["--url", "http://a", "--model-name", ""], "--model-name: got '', expected what the serv"),
        (["--url", "http://a", "--label", ""], "--label: got '', expected a label that the server"),
        (["--url", "http://a", "--timeout", "0"], "0.0 is not in the range"),
        (["--url", "http://a", "--token", "a b"], "--token: got spaces or signs beyond ASCII, exp"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_of_predict_is_named_as_the_user_wrote_it(in_process, arguments, message):
    result = in_process("a.png", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr.splitlines()[-1]
    assert result.stdout == ""


def test_a_token_in_the_environment_is_sent_and_needs_no_server(
    in_process, server, hundred, trained_run, monkeypatch
):
    monkeypatch.setenv("KERAS_CIFAR_TOKEN", "not a token")
    assert in_process(hundred[0], "--model", trained_run.path).exit_code == 0
    result = in_process(hundred[0], "--url", server.url)
    assert (result.exit_code, "--token: got spaces" in result.stderr) == (2, True)


def test_a_certificate_that_is_none_is_named(in_process, tmp_path):
    path = tmp_path / "ca.pem"
    arguments = ("a.png", "--url", "https://localhost", "--ca-certificate", path)
    result = in_process(*arguments)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {path}: no such file. Name the authority's certificate, in PEM.\n"
    )
    path.write_text("mine")
    result = in_process(*arguments)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {path}: not a certificate. Name the authority's, in PEM.\n"


def test_grpc_without_its_extra_names_it(hundred):
    """In an interpreter to which the extra's modules are hidden."""
    code = (
        "import sys\n"
        "sys.modules['tensorflow_serving'] = None\n"
        "from keras_cifar.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    arguments = ["predict", str(hundred[0]), "--grpc", "localhost:8500"]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr == "Error: gRPC needs more: pip install 'keras-cifar[serve]'\n"
