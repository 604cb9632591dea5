"""Proxies of the environment: never between a client and its own machine, named elsewhere."""

import http.server
import threading

import pytest

from keras_cifar.client import GrpcClient, RestClient, ServerError
from keras_cifar.client.proxies import grpc_proxy, rest_proxy, without_password

NAMES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy")
HERE = ("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "0.0.0.0", "[::1]")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def proxy(monkeypatch):
    """A proxy in the environment that lets nobody through; the requests that came to it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            asked.append(self.requestline)
            self.send_error(403, "Nobody passes")

        do_GET = do_POST = do_CONNECT = answer

        def log_message(self, *ignored):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://me:secret@127.0.0.1:{server.server_port}")
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_this_machine_is_asked_without_a_proxy(server, proxy, sample):
    _, asked = proxy
    rest_port, grpc_port = server.url.rpartition(":")[2], server.grpc.rpartition(":")[2]
    for host in ("localhost", "127.0.0.1"):
        with (
            RestClient(f"http://{host}:{rest_port}") as rest,
            GrpcClient(f"{host}:{grpc_port}") as by_grpc,
        ):
            for client in (rest, by_grpc):
                assert len(client.predict_pixels(sample.images[:2])) == 2
                assert client.metadata()
    assert asked == []


@pytest.mark.parametrize(
    ("client_class", "address"),
    [(RestClient, "http://gpu.invalid:8501"), (GrpcClient, "gpu.invalid:8500")],
)
def test_an_error_of_a_server_elsewhere_names_the_proxy(proxy, client_class, address):
    url, asked = proxy
    with client_class(address, timeout_seconds=60) as client, pytest.raises(ServerError) as caught:
        client.metadata()
    assert f"through the proxy {url}: " in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "gpu.invalid" in asked[0]


def test_a_proxy_that_can_be_none_is_named(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://a..b:1")
    with RestClient("http://gpu.invalid:8501") as client, pytest.raises(ServerError) as caught:
        client.metadata()
    assert "through the proxy http://a..b:1: " in str(caught.value)


@pytest.mark.parametrize("host", HERE)
def test_names_and_addresses_of_this_machine_are_known(monkeypatch, host):
    for name in NAMES[:4]:
        monkeypatch.setenv(name, "http://proxy:3128")
    assert rest_proxy(f"http://{host}:8501") is None
    assert grpc_proxy(f"{host}:8500") is None
    assert grpc_proxy(f"dns:///{host}:8500") is None


def test_the_environment_decides_for_other_hosts(monkeypatch):
    assert rest_proxy("http://gpu:8501") is None
    assert grpc_proxy("gpu:8500") is None
    monkeypatch.setenv("HTTP_PROXY", "http://a:1")
    assert rest_proxy("http://gpu:8501") == "http://a:1"
    assert rest_proxy("https://gpu:8501") is None
    assert grpc_proxy("gpu:8500") is None  # gRPC does not look at capitals
    for number, name in enumerate(("http_proxy", "https_proxy", "grpc_proxy"), start=2):
        monkeypatch.setenv(name, f"http://a:{number}")
        assert grpc_proxy("gpu:8500") == f"http://a:{number}"
    assert grpc_proxy("unix:/run/serve") is None
    monkeypatch.setenv("no_proxy", "gpu")
    assert rest_proxy("http://gpu:8501") is None
    assert grpc_proxy("gpu:8500") is None
    monkeypatch.setenv("no_grpc_proxy", "others")
    assert grpc_proxy("gpu:8500") == "http://a:4"


def test_a_password_is_not_shown():
    for proxy in ("http://me:secret@a:1", "http://me:p@ss@a:1"):
        assert without_password(proxy) == "http://a:1"
    assert without_password("me:secret@a:1") == "a:1"
    assert without_password("http://a:1") == "http://a:1"
