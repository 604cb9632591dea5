"""Takes the picture of the server's page that docs/serving.md shows.

    pip install '.[serve,test]'    # and a Chromium: apt install chromium
    python scripts/screenshot_page.py models/cifar10 docs/page.png

Serves the model on a free port, clicks a sample image, and photographs what appears.
"""

import shutil
import tempfile
from pathlib import Path

import click
from playwright.sync_api import sync_playwright
from shared.serve_load import running_server

SIZE = {"width": 1200, "height": 860}


@click.command()
@click.argument("model_dir", type=click.Path(path_type=Path, exists=True))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--sample", default="cat", show_default=True, help="Class of the image to click.")
def main(model_dir: Path, output: Path, sample: str) -> None:
    """Photograph the page of MODEL_DIR's server as OUTPUT."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(model_dir, log=Path(folder) / "log") as server,
    ):
        photograph(f"http://127.0.0.1:{server.rest_port}", output, sample=sample)
    click.echo(str(output))


def photograph(url: str, output: Path, *, sample: str) -> None:
    """Clicks a sample on the page at `url` and takes the picture of the answer."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=SIZE, reduced_motion="reduce")
        page.goto(url)
        page.get_by_role("button", name=sample).click()
        page.get_by_text("answered in").wait_for()
        page.screenshot(path=output)
        browser.close()


if __name__ == "__main__":
    main()
