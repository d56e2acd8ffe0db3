"""Self-contained HTML pages from Jinja2 templates.

Templates escape all values, and control characters are shown as in a terminal. The Content-Security-Policy allows the
page's own script by its hash and no other, so a genre name that contains markup cannot run code.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..cache.distribution import explain_missing_extra
from ..cache.durable import replace_file
from ..cache.errors import MissingExtraError
from ..cache.messages import counted, duration, has_intervals, interval, number, printable, size
from ..heads.metrics.phrases import by_artists, resampled, tuned_on

if TYPE_CHECKING:
    from jinja2 import Environment

Json = Mapping[str, Any]

_FOLDER = Path(__file__).parent


def write_page(page: Path, template: str, **context: object) -> Path:
    """Render a file of ``templates/`` to `page`, create its folder if needed, and return its path."""
    text = render(template, **context)
    page.parent.mkdir(parents=True, exist_ok=True)
    replace_file(page, text.encode())
    return page


def render(template: str, **context: object) -> str:
    """Render a file of ``templates/``; `headings` collects the section titles for the table of contents.

    Raises
    ------
    MissingExtraError
        jinja2 is not installed (extra ``report``).
    """
    return printable(environment().get_template(template).render(context, headings=[]), lines=True)


@functools.cache
def environment() -> Environment:
    """Return the Jinja2 environment: autoescape, filters, and the style and script of every page."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError(explain_missing_extra("report", "jinja2")) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    environment.filters |= {
        "by_artists": by_artists,
        "resampled": resampled,
        "tuned_on": tuned_on,
        "counted": functools.partial(counted, separator=","),
        "duration": duration,
        "filesize": size,
        "has_intervals": has_intervals,
        "interval": interval,
        "number": number,
        "percent": lambda share, digits=1: f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%",
        "thousands": lambda n, digits=0: f"{n:,.{digits}f}",
    }
    script = static("report.js")
    environment.globals |= {
        "policy": policy(script),
        "script": script,
        "style": static("colours.css") + static("report.css"),
    }
    return environment


def audio_url(file: Path, folder: Path) -> str:
    """Return the URL of an audio file, relative to the `folder` of a page, so that both can move together."""
    try:
        relative = os.path.relpath(file.absolute(), folder.absolute())
    except ValueError:  # another drive
        return file.resolve().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def static(name: str) -> str:
    """Return a file of ``static/`` as text."""
    return (_FOLDER / "static" / name).read_text(encoding="utf-8")


def policy(script: str) -> str:
    """Return a policy that allows `script`, embedded images and local audio files, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "media-src 'self' file:"
    )
