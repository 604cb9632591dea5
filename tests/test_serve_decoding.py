"""Images that are large when they are decoded: how much work they are, and who waits for whom."""

import base64
import http.client
import io
import json
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from grpc import StatusCode
from PIL import Image

from keras_cifar.serve.models.decoding import Decoding
from keras_cifar.serve.serving_error import ServingError
from keras_cifar.serve.settings import Limits
from keras_cifar.serving import WARMUP_FILE

MILLION = 1_000_000
PIXELS = 8 * MILLION
SMALL, MEDIUM, LARGE = MILLION, 2 * MILLION, 3 * MILLION


def encoded(mode="RGB", side=1000, kind="PNG", **options):
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def decoding():
    return Decoding(Limits(pixels=PIXELS))


def exif():
    data = Image.Exif()
    data[0x0112] = 6
    return data


@pytest.mark.parametrize(
    ("image", "pixels"),
    [
        (encoded(), 1),
        (encoded("L"), 1),
        (encoded("P"), 1),
        (encoded("RGBA"), 4),
        (encoded("LA"), 4),
        (encoded(transparency=(1, 2, 3)), 4),
        (encoded(exif=exif()), 4),
        (encoded(kind="WebP"), 4),
        (encoded(kind="GIF"), 4),
        (encoded(kind="BMP"), 4),
        (encoded(kind="JPEG"), 1),
        (encoded(kind="JPEG", exif=exif()), 1),
        (encoded(kind="JPEG", progressive=True), 2.5),  # which has 10 scans
    ],
)
def test_the_work_is_that_of_so_many_million_pixels_of_an_opaque_png(decoding, image, pixels):
    assert decoding.work([image]) == pixels * MILLION
    assert decoding.work([image, encoded()]) == pixels * MILLION + MILLION


def test_a_png_that_ends_behind_its_size_is_left_to_the_decoder(decoding):
    assert decoding.work([encoded()[:24]]) == 4 * MILLION


def test_too_much_work_for_a_request_is_refused(decoding):
    assert decoding.work([encoded()] * 16) == 2 * PIXELS
    with pytest.raises(ServingError, match="as much work as 17,000,000 pixels; at most 16,000,000"):
        decoding.work([encoded()] * 17)


def test_what_may_be_transparent_is_read_up_to_half_of_the_pixels(decoding):
    decoding.work([encoded("RGBA", side=2000)])
    for kind in ("PNG", "WebP"):
        with pytest.raises(ServingError, match=r"^image_bytes\[1\]: the image claims 4,004,001 pi"):
            decoding.work([encoded(), encoded("RGBA", side=2001, kind=kind)])
    decoding.work([encoded(side=2800), encoded(side=2800, kind="JPEG")])


def test_small_images_wait_for_none_and_photos_not_for_larger_ones(decoding):
    now = time.time()
    with decoding.turn(LARGE, deadline=now), decoding.turn(SMALL, deadline=now):
        with decoding.turn(MEDIUM, deadline=now), decoding.turn(SMALL, deadline=now):
            pass
        with pytest.raises(ServingError) as refused, decoding.turn(LARGE, deadline=now + 0.1):
            pass
    assert refused.value.code is StatusCode.DEADLINE_EXCEEDED
    with decoding.turn(LARGE, deadline=now):
        pass


def test_of_large_images_few_may_wait(decoding, eventually):
    done = threading.Event()

    def wait():
        with decoding.turn(LARGE, deadline=time.time() + 60):
            done.wait()

    def refusal():
        with pytest.raises(ServingError) as refused, decoding.turn(LARGE, deadline=0):
            pass
        return refused.value

    with ThreadPoolExecutor(32) as pool:
        with decoding.turn(LARGE, deadline=0):
            assert refusal().code is StatusCode.DEADLINE_EXCEEDED
            waiting = [pool.submit(wait) for _ in range(32)]
            eventually(lambda: refusal().code is StatusCode.RESOURCE_EXHAUSTED)
            assert refusal().http_status == 503
            done.set()
        for one in waiting:
            one.result()
    with decoding.turn(LARGE, deadline=0):
        pass


def memory(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kib) * 1024


def test_others_are_answered_while_images_of_all_that_is_allowed_are_decoded(
    serving, exported, tmp_path
):
    """Eight clients with few bytes each: a second's work, and at their most 18 bytes a pixel."""
    version = shutil.copytree(exported.version, tmp_path / "cifar10" / "1")
    (version / WARMUP_FILE).unlink()
    bodies = [
        json.dumps(
            {
                "signature_name": "image_bytes",
                "instances": [{"b64": base64.b64encode(image).decode()}] * count,
            }
        )
        for image, count in ((encoded("RGBA", side=5000), 1), (encoded(side=7000), 2))
    ]
    small = json.dumps({"instances": [[[[0, 0, 0]] * 32] * 32]})
    with serving(tmp_path, version.parent, "--access-log", "off") as server:

        def ask(body):
            connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
            started = time.monotonic()
            connection.request("POST", "/v1/models/cifar10:predict", body)
            response = connection.getresponse()
            response.read()
            connection.close()
            return response.status, time.monotonic() - started

        ask(small)
        with ThreadPoolExecutor(8) as pool:
            large = [pool.submit(ask, bodies[n % 2]) for n in range(8)]
            answers = []
            while not all(one.done() for one in large):
                answers.append(ask(small))
        assert {one.result()[0] for one in large} <= {200, 504}
        assert {status for status, _ in answers} == {200}
        assert max(seconds for _, seconds in answers) < 3  # a second, and what a busy machine needs
        assert memory(server) < 1.5e9
