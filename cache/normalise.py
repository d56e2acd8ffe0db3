"""Unicode normalisation in linear time."""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import Literal

MAX_MARKS = 30
"""Combining marks in a row that are kept: the longest run of a Stream-Safe text (Unicode Standard Annex 15)."""

# Marks are neither letters nor white space; only runs of such characters are looked at one by one.
_SYMBOL = r"[^\w\s\x00-\u02ff]"
_LONG_RUN = re.compile(rf"(?<!{_SYMBOL}){_SYMBOL}{{{MAX_MARKS + 1},}}")
_HALF_WIDTH_MARKS = {0xFF9E: 0x3099, 0xFF9F: 0x309A}  # letters by category, that decompose to marks


def normalise(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
    """Return `text` in a Unicode normal form, with at most :data:`MAX_MARKS` combining marks in a row.

    ``unicodedata.normalize`` sorts a run of marks by insertion, which takes quadratic time.
    """
    return unicodedata.normalize(form, limit_marks(text.translate(_HALF_WIDTH_MARKS) if "K" in form else text))


def limit_marks(text: str) -> str:
    """Remove all combining marks of a run but the first :data:`MAX_MARKS`."""
    return _LONG_RUN.sub(_limit_run, text)


def _limit_run(run: re.Match[str]) -> str:
    groups = itertools.groupby(run.group(), _IsMark().__getitem__)
    return "".join("".join(itertools.islice(chars, MAX_MARKS if is_mark else None)) for is_mark, chars in groups)


class _IsMark(dict[str, bool]):
    """Whether a character is a combining mark; looked up once per character."""

    def __missing__(self, char: str) -> bool:
        self[char] = unicodedata.category(char)[0] == "M"
        return self[char]
