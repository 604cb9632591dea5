"""Takes the pictures of a report that docs/report.md shows: wide and narrow, light and dark.

pip install '.[test]'    # and a Chromium: apt install chromium
keras-cifar report runs/RUN
python scripts/screenshot_report.py runs/RUN/report.html docs/report
"""

import io
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

import click
from PIL import Image
from playwright.sync_api import Browser, sync_playwright


class Shot(NamedTuple):
    """A picture: its name, the page's width and colours, and the sections from and to which."""

    name: str
    width: int
    scheme: Literal["light", "dark"]
    first: str
    last: str


SHOTS = (
    Shot("wide_light", 1120, "light", "header", "#curves"),
    Shot("wide_dark", 1120, "dark", "#confusions", "#confusions"),
    Shot("narrow_light", 360, "light", "#calibration", "#calibration"),
    Shot("narrow_dark", 360, "dark", "header", "#short"),
)
COLOURS = 128  # what a palette has: a third of the bytes


@click.command()
@click.argument("report", type=click.Path(path_type=Path, exists=True))
@click.argument("prefix", type=click.Path(path_type=Path))
def main(report: Path, prefix: Path) -> None:
    """Photograph REPORT as PREFIX_wide_light.png and three more."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for shot in SHOTS:
            path = prefix.with_name(f"{prefix.name}_{shot.name}.png")
            photograph(browser, report, shot).save(path, optimize=True)
            click.echo(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


def photograph(browser: Browser, report: Path, shot: Shot) -> Image.Image:
    """Returns the part of the page that a shot is of, in few colours."""
    page = browser.new_page(viewport={"width": shot.width, "height": 800}, color_scheme=shot.scheme)
    page.goto(report.resolve().as_uri())
    boxes = [page.locator(selector).first.bounding_box() for selector in (shot.first, shot.last)]
    top, bottom = boxes[0]["y"] - 16, boxes[1]["y"] + boxes[1]["height"] + 16
    clip = {"x": 0, "y": max(0, top), "width": shot.width, "height": bottom - max(0, top)}
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip)))
    page.close()
    return picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
