"""What a page shows -> its text, by the templates beside this file.

Values may come from a run folder of a stranger. In a page all are escaped, and the content security
policy lets it load nothing and run nothing; in Markdown, all signs that mean something are escaped.
"""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import jinja2

from keras_cifar.report import charts
from keras_cifar.report.facts import Absent
from keras_cifar.report.words import accuracy_interval, between, percent, plural

_TEMPLATES = Path(__file__).parent / "templates"
_MARKDOWN_SIGNS = re.compile(r"([\\`*_\[\]<>#|~&$])")
_LONGEST = 300  # of a text from a run folder, in characters


def render(template: str, **values: Any) -> str:
    """Fills a template in.

    Args:
        template: run.html, runs.html, run.md or runs.md.
        values: what it names.
    """
    is_page = template.endswith(".html")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=is_page,
        finalize=None if is_page else _escaped,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["absent"] = lambda value: isinstance(value, Absent)
    environment.filters |= {
        "accuracy_interval": accuracy_interval,
        "p_value": p_value,
        "percent": percent,
        "between": between,
        "plural": plural,
        "setting": setting,
        "short": shortened,
        "duration": duration,
    }
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment.globals |= {
        "style": style,
        "style_digest": digest,
        "frame": charts,
    }
    return environment.get_template(template).render(**values)


def _escaped(value: object) -> object:
    """Returns a text for Markdown, on one line."""
    if not isinstance(value, str) or hasattr(value, "__html__"):  # marked by |safe
        return value
    return _MARKDOWN_SIGNS.sub(r"\\\1", " ".join(value.split()))


def setting(value: object) -> str:
    """Returns a setting with the digits that matter."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def shortened(value: object) -> str:
    """Returns a text that came from a run folder, cut where it is too long for a page."""
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def p_value(value: float) -> str:
    """Returns a probability with the digits that matter."""
    return "below 0.0001" if value < 1e-4 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """Returns a time as people say it: 581 s, 20 min 32 s, 3 h 5 min."""
    if not 0 <= seconds < 1e9:
        return "an unknown time"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"
