"""Parts of messages that every layer uses."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence

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


def counted(n: int, noun: str, *, separator: str = "") -> str:
    """Return ``1 track``, ``2 tracks``; `separator` separates thousands."""
    return f"{n:{separator}} {noun}" + ("" if n == 1 else "s")


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


def join_names(names: Sequence[object], limit: int = 5) -> str:
    """Join names with commas; of more than `limit` only the first, with a count of the others.

    >>> join_names(["rock", "pop"]), join_names(["rock", "pop", "jazz", "folk"], limit=2)
    ('rock, pop', 'rock, pop and 2 more')
    """
    return ", ".join(map(str, names[:limit])) + (f" and {len(names) - limit} more" if len(names) > limit else "")


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
