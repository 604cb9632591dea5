"""The demo page in a real browser, on a real server."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, Request, Route, expect

import keras_cifar.serve.page
from keras_cifar.cifar10 import CLASS_NAMES
from keras_cifar.image.decode import image_from_bytes
from keras_cifar.serve.page import render

TIMES = "\N{MULTIPLICATION SIGN}"
PREDICT = re.compile(r"/v1/models/.*:predict$")


@pytest.fixture
def page(browser: Browser, server: Any) -> Iterator[Page]:
    """The page, opened; a test in which its script fails has failed."""
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        errors: list[Exception] = []
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(server.url)
        expect(page.locator("#about")).not_to_have_text("…")
        yield page
    assert not errors


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A JPEG that is neither small nor square."""
    path = tmp_path / "cat.jpg"
    _picture(640, 480).save(path)
    return path


def test_a_sample_gets_a_class_and_ten_bars_of_what_the_server_says_of_its_file(
    page: Page, server: Any
) -> None:
    for name in ("airplane", "truck"):
        _sample(page, name).click()
        _wait_for_answer(page)
        expected = _ask(server.url, _sample_file(name))
        shown = _bars(page)
        assert list(shown) == sorted(CLASS_NAMES, key=expected.__getitem__, reverse=True)
        assert shown == pytest.approx(expected, abs=1e-6)
        best = next(iter(shown))
        verdict = page.locator("#verdict").inner_text()
        assert re.search(rf"\ban? {best}\b", verdict, re.IGNORECASE)
        assert ("Perhaps none of the ten" in verdict) == (shown[best] < 0.5)
        assert re.search(r"cifar10, version 1\b.*, answered in \d+ ms", _text(page, "#timing"))


def test_a_sample_reaches_the_network_unchanged(page: Page) -> None:
    _sample(page, "frog").click()
    _wait_for_answer(page)
    np.testing.assert_array_equal(_pixels(_seen(page)), _pixels(_sample_file("frog")))


def test_the_keyboard_alone_chooses_a_file_and_a_sample(page: Page, photo: Path) -> None:
    # Long before the key is pressed: Playwright 1.65 does not wait until the browser knows of it.
    page.on("filechooser", lambda chooser: chooser.set_files(photo))
    page.reload()
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    assert page.locator("#drop").evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    _wait_for_answer(page)
    expect(page.locator("#name")).to_contain_text(f"cat.jpg, 640 {TIMES} 480")

    page.keyboard.press("Tab")
    expect(_sample(page, "airplane")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#name")).to_contain_text(f"automobile.png, 32 {TIMES} 32")
    _wait_for_answer(page)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_dropped_or_pasted_image_is_classified(
    page: Page, server: Any, photo: Path, event: str
) -> None:
    _transfer(page, event, photo.read_bytes())
    _wait_for_answer(page)
    expect(page.locator("#name")).to_contain_text("cat.jpg")
    assert _bars(page) == pytest.approx(_ask(server.url, _seen(page)), abs=1e-6)


def test_a_picked_file_is_classified(page: Page, server: Any, photo: Path) -> None:
    page.set_input_files("#file", photo)
    _wait_for_answer(page)
    assert _bars(page) == pytest.approx(_ask(server.url, _seen(page)), abs=1e-6)


def _transfer(page: Page, event: str, content: bytes | None) -> None:
    """Drops or pastes a file, or words where there is no content."""
    page.evaluate(
        """([event, content]) => {
            const transfer = new DataTransfer();
            if (content === null) transfer.setData("text/plain", "words");
            else {
                const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
                transfer.items.add(new File([bytes], "cat.jpg", {type: "image/jpeg"}));
            }
            const target = document.getElementById("drop");
            const init = {bubbles: true, cancelable: true};
            target.dispatchEvent(
                event === "drop"
                    ? new DragEvent("drop", {...init, dataTransfer: transfer})
                    : new ClipboardEvent("paste", {...init, clipboardData: transfer}));
        }""",
        [event, None if content is None else base64.b64encode(content).decode()],
    )


def test_the_page_scales_as_the_server_does(page: Page) -> None:
    images = {
        "large": _picture(1200, 900),
        "tall": _picture(333, 777),
        "twice as large": _picture(64, 65),
        "hardly larger": _picture(33, 33),
        "small": _picture(8, 8),
        "one pixel": _picture(1, 1),
        "grey": _picture(200, 130).convert("L"),
        "transparent": _transparent(300, 200),
        "transparent, small": _transparent(8, 9),
        "transparent, as large": _transparent(32, 32),
        "with a colour key": _encoded(_few_colours(70, 50), "PNG", transparency=0),
        "GIF": _encoded(_few_colours(70, 50), "GIF", transparency=0),
        **{f"turned PNG, {turn}": _turned("PNG", turn) for turn in range(2, 9)},
        # In blocks of one colour each, which every decoder of JPEG shows as it is.
        **{f"turned JPEG, {turn}": _turned("JPEG", turn) for turn in range(1, 9)},
        "WebP, not turned": _turned("WEBP", 6),
    }
    for kind, image in images.items():
        file = _file(image)
        page.set_input_files("#file", file)
        _wait_for_answer(page)
        difference = np.abs(_pixels(_seen(page)) - image_from_bytes(file["buffer"]).numpy())
        # None of them differed where this was written; other decoders may round otherwise.
        assert difference.max() <= 1, kind
        assert difference.mean() < 0.01, kind


def _picture(width: int, height: int) -> Image.Image:
    """A sample with noise, which shows every error of scaling."""
    noise = np.random.default_rng(0).integers(-60, 61, (height, width, 3))
    cat = Image.open(io.BytesIO(_sample_file("cat"))).resize((width, height))
    return Image.fromarray(np.clip(np.asarray(cat) + noise, 0, 255).astype(np.uint8))


def _transparent(width: int, height: int) -> Image.Image:
    image = _picture(width, height)
    alpha = np.random.default_rng(1).integers(0, 256, (height, width), np.uint8)
    image.putalpha(Image.fromarray(alpha))
    return image


def _few_colours(width: int, height: int) -> Image.Image:
    return _picture(width, height).quantize(20)


def _turned(kind: str, orientation: int) -> bytes:
    """A picture of 96 x 64 with EXIF data; a JPEG of it is as good as the picture."""
    blocks = _picture(6, 4).resize((96, 64), Image.Resampling.NEAREST)
    exif = blocks.getexif()
    exif[0x0112] = orientation
    return _encoded(blocks, kind, exif=exif, quality=100, lossless=True)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    return encoded.getvalue()


def _file(image: Image.Image | bytes) -> FilePayload:
    """What Playwright picks: a file of that content, whatever it is, called notes.png."""
    if isinstance(image, Image.Image):
        image = _encoded(image, "PNG", compress_level=1)
    return {"name": "notes.png", "mimeType": "image/png", "buffer": image}


def test_a_file_that_cannot_be_read_is_refused_in_words_and_the_next_one_works(page: Page) -> None:
    drawing = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"
    refusals: list[tuple[bytes | Image.Image, str]] = [
        (b"only words", "notes.png is no image that this browser can read. Choose a PNG"),
        (drawing, "notes.png is no image that this browser can read. Choose a PNG"),
        (b"", "notes.png is empty. Choose another file."),
        (Image.new("1", (10_001, 10_000)), f"notes.png is too large: 10001 {TIMES} 10000 pixels"),
        (_sample_file("cat")[:60], "notes.png cannot be turned into pixels: it is damaged"),
    ]
    for content, words in refusals:
        _sample(page, "cat").click()
        _wait_for_answer(page)
        expect(page.locator("#problem")).to_be_hidden()
        page.set_input_files("#file", _file(content))
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.locator("#again")).to_be_hidden()
        assert _text(page, "#timing") == ""
    _sample(page, "cat").click()
    _wait_for_answer(page)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_words_that_are_dropped_or_pasted_are_refused(page: Page, event: str) -> None:
    _transfer(page, event, None)
    expect(page.get_by_role("alert")).to_contain_text("There is no picture in it.")


def test_nothing_is_asked_of_another_server_and_the_console_stays_empty(
    browser: Browser, server: Any, photo: Path
) -> None:
    requests: list[Request] = []
    messages: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("request", lambda request: requests.append(request))
        page.on("console", lambda message: messages.append(message.text))
        page.goto(server.url)
        _sample(page, "ship").click()
        _wait_for_answer(page)
        page.set_input_files("#file", photo)
        _wait_for_answer(page)
    urls = {request.url for request in requests if not request.url.startswith(("data:", "blob:"))}
    assert all(url.startswith(server.url) for url in urls)
    paths = {url.removeprefix(server.url) for url in urls}
    assert paths == {"/", "/about.json", "/v1/models/cifar10/versions/1:predict"}
    assert messages == []


def test_a_narrow_phone_need_not_scroll_sideways(page: Page, photo: Path) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    page.set_input_files("#file", photo)
    _wait_for_answer(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    expect(page.locator("#headline")).to_be_in_viewport()


def test_a_dark_system_gets_a_dark_page(page: Page) -> None:
    def brightness() -> float:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return float(np.mean([int(channel) for channel in re.findall(r"\d+", colour)[:3]]))

    assert brightness() > 200
    page.emulate_media(color_scheme="dark")
    assert brightness() < 50


def test_the_programs_on_the_page_run_as_they_are(page: Page, server: Any, photo: Path) -> None:
    curl, python = _text(page, "#curl"), _text(page, "#python")
    assert f"{server.url}/v1/models/cifar10:predict" in curl
    assert f"{server.url}/v1/models/cifar10:predict" in python
    expected = _ask(server.url, photo.read_bytes())
    printed = _run([sys.executable, "-c", python], photo.parent).replace("'", '"')
    assert _probabilities(json.loads(printed)) == pytest.approx(expected, abs=1e-6)
    if shutil.which("curl"):
        answer = json.loads(_run(["sh", "-c", curl], photo.parent))
        assert _probabilities(answer["predictions"][0]) == pytest.approx(expected, abs=1e-6)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_is_copied_with_and_without_a_clipboard(page: Page) -> None:
    page.get_by_role("button", name="Copy the Python program").click()
    expect(page.locator("#announcement")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == _text(page, "#python")

    page.evaluate("navigator.clipboard.writeText = undefined")
    page.get_by_role("button", name="Copy the curl command").click()
    expect(page.get_by_role("button", name="Copy the curl command")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == _text(page, "#curl")


def test_a_late_answer_does_not_replace_that_of_a_later_picture(page: Page) -> None:
    held: list[Route] = []

    def hold_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route(PREDICT, hold_first)
    with page.expect_request(PREDICT):
        _sample(page, "cat").click()
    expect(page.locator("#headline")).to_have_text("Looking …")
    _sample(page, "ship").click()
    _wait_for_answer(page)
    before = _bars(page)
    held[0].fulfill(json={"predictions": [{"probabilities": [0] * 9 + [1]}]})
    page.wait_for_timeout(200)
    assert _bars(page) == before
    expect(page.locator("#name")).to_contain_text("ship.png")


def test_a_large_picture_still_being_read_does_not_replace_a_later_one(page: Page) -> None:
    large = _file(Image.new("RGB", (4_000, 4_000)))
    page.set_input_files("#file", large)
    _sample(page, "ship").click()
    _wait_for_answer(page)
    before = _bars(page)
    page.wait_for_timeout(500)
    assert _bars(page) == before
    expect(page.locator("#name")).to_contain_text("ship.png")


def test_where_nothing_is_likely_the_page_says_so_and_what_comes_closest(page: Page) -> None:
    probabilities = [0.31, 0.29] + [0.05] * 8
    page.route(
        PREDICT,
        lambda route: route.fulfill(json={"predictions": [{"probabilities": probabilities}]}),
    )
    _sample(page, "cat").click()
    _wait_for_answer(page)
    expect(page.locator("#headline")).to_have_text("Perhaps none of the ten")
    expect(page.locator("#detail")).to_have_text(
        "An airplane comes closest with 31.0 %, then an automobile with 29.0 %."
    )


def test_a_server_that_is_gone_is_named_and_asked_again(page: Page) -> None:
    page.route("**/*", lambda route: route.abort())
    _sample(page, "cat").click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    page.unroute("**/*")
    page.get_by_role("button", name="Try again").click()
    _wait_for_answer(page)
    expect(page.locator("#problem")).to_be_hidden()


def test_a_server_that_answers_wrongly_is_quoted(page: Page) -> None:
    answers: list[tuple[dict[str, Any], str]] = [
        ({"status": 503, "json": {"error": "too busy"}}, "answered with error 503: too busy"),
        ({"status": 502, "body": "<html>"}, "answered with error 502"),
        ({"status": 200, "body": "<html>"}, "cannot be read: it is no JSON"),
        ({"status": 200, "json": {"predictions": []}}, "holds no ten probabilities"),
    ]
    for answer, words in answers:
        page.route(PREDICT, partial(_fulfill, answer=answer))
        _sample(page, "cat").click()
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.get_by_role("button", name="Try again")).to_be_visible()


def _fulfill(route: Route, *, answer: dict[str, Any]) -> None:
    route.fulfill(**answer)


def test_a_server_without_a_ready_model_is_asked_again(page: Page) -> None:
    page.route("**/about.json", lambda route: route.fulfill(json={"models": {}}))
    _sample(page, "cat").click()
    expect(page.get_by_role("alert")).to_contain_text("no model that is ready")
    page.unroute("**/about.json")
    page.get_by_role("button", name="Try again").click()
    _wait_for_answer(page)


def test_a_server_with_a_token_gets_it_from_a_field_of_the_page(page: Page) -> None:
    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer secret":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": "no token"})

    page.route(re.compile(r"/v1/|/about\.json"), guard)
    _sample(page, "cat").click()
    field = page.get_by_label("Token")
    expect(field).to_be_focused()
    assert field.get_attribute("type") == "password"
    for token, outcome in (("wrong", "does not take this token"), ("secret", None)):
        field.fill(token)
        page.keyboard.press("Enter")
        if outcome:
            expect(page.locator("#token-note")).to_contain_text(outcome)
    _wait_for_answer(page)
    expect(field).to_be_hidden()
    assert '-H "Authorization: Bearer $TOKEN"' in _text(page, "#curl")
    assert "secret" not in page.content()
    assert page.evaluate("localStorage.length + document.cookie.length") == 0


def test_another_version_is_chosen_asked_and_named(page: Page) -> None:
    versions = {
        "1": {"accuracy": 0.8287, "split": "test"},
        "2": {"accuracy": None},
    }
    about = {"models": {"cifar10": {"versions": versions, "labels": {"stable": 1}}}}
    page.route("**/about.json", lambda route: route.fulfill(json=about))
    page.reload()
    expect(page.locator("#about")).to_have_text("Accuracy not evaluated")
    page.get_by_label("Model").select_option("cifar10, version 1, stable")
    expect(page.locator("#about")).to_have_text("Right on 82.87 % of the test images")
    assert "/v1/models/cifar10/versions/1:predict" in _text(page, "#curl")
    with page.expect_request(PREDICT) as request:
        _sample(page, "cat").click()
    assert request.value.url.endswith("/v1/models/cifar10/versions/1:predict")
    _wait_for_answer(page)
    assert "version 1, stable" in _text(page, "#timing")


def test_a_model_of_any_name_is_asked(page: Page) -> None:
    about = {"models": {"a/b:%?": {"versions": {"1": {"accuracy": None}}}}}
    page.route("**/about.json", lambda route: route.fulfill(json=about))
    page.reload()
    expect(page.locator("#curl")).to_contain_text("/v1/models/a%2Fb%3A%25%3F:predict")
    with page.expect_request(PREDICT) as request:
        _sample(page, "cat").click()
    assert request.value.url.endswith("/v1/models/a%2Fb%3A%25%3F/versions/1:predict")


def test_the_document_loads_nothing_and_has_no_inline_handlers_or_styles() -> None:
    document = render().decode()
    markup = re.sub(r"<(style|script)>.*?</\1>", "", document, flags=re.DOTALL)
    sources = re.findall(r"\s(?:src|href)=\"(.*?)\"", markup)
    assert len(sources) == 11  # samples and icon
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"\s(?:on\w+|style)=", markup)
    assert document.count("<style>") == document.count("<script>") == 1
    assert "url(" not in document
    assert "@import" not in document


def _sample(page: Page, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def _sample_file(name: str) -> bytes:
    return (Path(keras_cifar.serve.page.__file__).parent / f"samples/{name}.png").read_bytes()


def _wait_for_answer(page: Page) -> None:
    expect(page.locator("#timing")).to_contain_text("answered in")
    expect(page.locator("#output")).to_have_attribute("aria-busy", "false")


def _bars(page: Page) -> dict[str, float]:
    rows = page.locator("#bars tr").evaluate_all(
        "rows => rows.map(row => [row.querySelector('th').textContent,"
        " row.querySelector('data').value])"
    )
    assert len(rows) == len(CLASS_NAMES)
    return {name: float(probability) for name, probability in rows}


def _seen(page: Page) -> bytes:
    """The PNG that is shown, and that was sent."""
    url = page.locator("#seen").get_attribute("src") or ""
    return base64.b64decode(url.removeprefix("data:image/png;base64,"))


def _pixels(png: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def _text(page: Page, selector: str) -> str:
    return page.locator(selector).text_content() or ""


def _ask(url: str, image: bytes) -> dict[str, float]:
    instances = [{"b64": base64.b64encode(image).decode()}]
    request = urllib.request.Request(
        f"{url}/v1/models/cifar10:predict",
        json.dumps({"signature_name": "image_bytes", "instances": instances}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return _probabilities(json.load(response)["predictions"][0])


def _probabilities(prediction: dict[str, Any]) -> dict[str, float]:
    return dict(zip(CLASS_NAMES, prediction["probabilities"], strict=True))
