"""Parts of messages that every layer uses."""

from __future__ import annotations

import difflib
import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from rich.filesize import decimal

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Escape characters that a terminal interprets: control characters and marks that change the text direction.

    Parameters
    ----------
    lines : keep tabs and line ends.

    Examples
    --------
    >>> printable("a\x1b[2Jb")
    'a\\u001b[2Jb'
    """
    return (_LINES if lines else _CONTROL).sub(lambda char: f"\\u{ord(char[0]):04x}", text)


def csv_row(row: Mapping[str, object]) -> dict[str, object]:
    r"""Return a row for a CSV file without formulas and control characters.

    Text that a spreadsheet would take for a formula gets an apostrophe in front; control characters are escaped as in
    :func:`printable`, but for tabs and line ends.

    >>> csv_row({"id": "=1+2", "genre": "ro\x1bck", "change": -0.5})
    {'id': "'=1+2", 'genre': 'ro\\u001bck', 'change': -0.5}
    """
    return {name: _csv_cell(cell) if isinstance(cell, str) else cell for name, cell in row.items()}


def csv_header(columns: Iterable[str]) -> dict[str, object]:
    """Return the first row of a CSV file with these columns, as :func:`csv_row` has the others."""
    return csv_row({name: name for name in columns})


def _csv_cell(text: str) -> str:
    return ("'" if text.startswith(_FORMULA) else "") + printable(text, lines=True)


def counted(n: int, noun: str, plural: str | None = None, *, separator: str = "") -> str:
    """Return a count with its noun.

    Parameters
    ----------
    plural : where it is not `noun` with an "s".
    separator : between thousands.

    Examples
    --------
    >>> counted(1, "track"), counted(2, "track"), counted(2, "track has", "tracks have")
    ('1 track', '2 tracks', '2 tracks have')
    """
    return f"{n:{separator}} {noun if n == 1 else plural or f'{noun}s'}"


def size(n_bytes: int) -> str:
    """Return a size in decimal units, as everything that users see has it.

    Examples
    --------
    >>> size(1), size(999), size(1_500), size(12_345_678)
    ('1 byte', '999 bytes', '1.5 kB', '12.3 MB')
    """
    return decimal(n_bytes)


def duration(seconds: float) -> str:
    """Return a duration as everything that users see has it.

    >>> duration(7.25), duration(439), duration(7300)
    ('7.2 s', '7.3 min', '2.0 h')
    """
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def number(value: float | None, *, sign: bool = False, missing: str = "–") -> str:
    """Return a value with three decimals; `missing` where it is None, NaN or infinite."""
    if value is None or not math.isfinite(value):
        return missing
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def interval(
    estimate: Mapping[str, float | None],
    form: str = "{} to {}",
    *,
    digits: int = 3,
    sign: bool = False,
    missing: str = "",
) -> str:
    """Return the ends of an estimate's interval in `form`; `missing` where it has none."""
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return missing
    return form.format(*(f"{end:{'+' if sign else ''}.{digits}f}" for end in (low, high)))


def has_intervals(document: object) -> bool:
    """Return whether any estimate in a nested document has an interval: only then may a caption mention one."""
    if isinstance(document, Mapping):
        return document.get("low") is not None or any(has_intervals(value) for value in document.values())
    return isinstance(document, list | tuple) and any(map(has_intervals, document))


def join_names(names: Sequence[object], limit: int = 5, *, separator: str = ", ") -> str:
    """Join names with commas; of more than `limit` only the first, with a count of the others.

    >>> join_names(["rock", "pop"]), join_names(["rock", "pop", "jazz", "folk"], limit=2)
    ('rock, pop', 'rock, pop and 2 more')
    """
    return separator.join(map(str, names[:limit])) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def html_summary(title: str, facts: Mapping[str, object]) -> str:
    """Return an object's title and facts as HTML, for ``_repr_html_`` in a notebook.

    >>> html_summary("Model", {"genres": "<rock>"})
    '<table><caption>Model</caption><tr><th>genres</th><td>&lt;rock&gt;</td></tr></table>'
    """
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(printable(str(fact)))}</td></tr>"
        for name, fact in facts.items()
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"


def limit_lines(lines: Sequence[str], noun: str, limit: int = 5) -> list[str]:
    """Keep `limit` lines; a last one counts the others.

    >>> limit_lines(["a", "b", "c", "d"], "tracks", limit=2)
    ['a', 'b', '... and 2 more tracks']
    """
    return [*lines[:limit], *([f"... and {len(lines) - limit} more {noun}"] if len(lines) > limit else [])]


def nearest(name: object, candidates: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the candidate whose spelling is most like `name`, ignoring case; None if no candidate is close.

    Parameters
    ----------
    cutoff : least similarity, from 0 to 1 (equal), as :func:`difflib.get_close_matches` counts it.
    """
    folded = {candidate.casefold(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=cutoff)
    return folded[matches[0]] if matches else None


def did_you_mean(name: object, candidates: Sequence[str], limit: int = 50) -> str:
    """Return a hint for an unknown name: the nearest candidate, or else a list of at most `limit` of them.

    >>> did_you_mean("wirkers", ["store", "workers"]), did_you_mean("x", ["store", "workers"]), did_you_mean("x", [])
    ("did you mean 'workers'?", 'there are: store, workers', 'there are: none')
    """
    near = nearest(name, candidates)
    return f"there are: {join_names(candidates, limit) or 'none'}" if near is None else f"did you mean {near!r}?"
