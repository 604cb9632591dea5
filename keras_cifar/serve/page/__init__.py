"""The demo page: its sources beside this file, and what makes one document of them."""

import base64
import re
from pathlib import Path

_SOURCES = Path(__file__).parent


def render() -> bytes:
    """Puts style, script and sample images into the page.

    Returns:
        An HTML document in UTF-8 that loads nothing, and asks only the server that it came from.
    """
    page = _text("index.html")
    page = page.replace(
        '<link rel="stylesheet" href="page.css">', f"<style>\n{_text('page.css')}</style>"
    )
    page = page.replace('<script src="page.js"></script>', f"<script>\n{_text('page.js')}</script>")
    page = re.sub(r'(?<=src=")samples/\w+\.png(?=")', lambda name: _data_uri(name[0]), page)
    return page.encode()


def _text(name: str) -> str:
    return (_SOURCES / name).read_text(encoding="utf-8")


def _data_uri(name: str) -> str:
    return f"data:image/png;base64,{base64.b64encode((_SOURCES / name).read_bytes()).decode()}"
