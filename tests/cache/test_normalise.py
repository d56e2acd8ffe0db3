"""Unicode normalisation in linear time."""

from __future__ import annotations

import functools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgc.cache.format.schema import Flag
from mgc.cache.names import caseless, match_names
from mgc.cache.normalise import MAX_MARKS, limit_marks, normalise
from mgc.heads.data.artist_groups import comparable_artists
from mgc.pipeline.sources.names import clean_name, look_alikes
from mgc.pipeline.text.lyrics import read_lyrics

LONG = 30_000
decompose = functools.cache(unicodedata.normalize)

TRAPS = {
    "alternating classes": "a" + "\u0301\u0316" * LONG,
    "marks that decompose": "a" + "\u0f73" * LONG,
    "half-width voiced sound marks": "\uff76" + "\uff9e\u0301" * LONG,
    "entities": "a" + "&#769;&#790;" * (LONG // 2),
    "invisible characters between": "a" + "\u0301\u200b\u0316\xad" * LONG,
    "tags between": "a" + "\u0301<b>\u0316</b>" * LONG,
}


def insertions(form: str, text: str) -> int:
    """Steps of an insertion sort of every run of combining marks, at worst."""
    steps, run = 0, 0
    for char in text:
        parts = decompose("NFKD" if "K" in form else "NFD", char)
        marks = sum(unicodedata.combining(part) > 0 for part in parts)
        run = run + marks if marks == len(parts) else marks
        steps += 1 + run * marks
    return steps


@pytest.mark.parametrize("trap", TRAPS)
def test_work_of_normalisation_is_linear_in_the_text(trap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def normalize(form: str, text: str) -> str:
        assert insertions(form, text) <= 3 * MAX_MARKS * len(text) + 1000
        return original(form, text)

    original, text = unicodedata.normalize, TRAPS[trap]
    monkeypatch.setattr(unicodedata, "normalize", normalize)
    read_lyrics(text)
    look_alikes([clean_name(text), text])
    match_names([text], [caseless(text)])
    comparable_artists([text])


def test_surplus_marks_are_removed_and_others_kept() -> None:
    assert read_lyrics("a" + "\u0301" * 500).flags == Flag.TEXT_CLEANED
    assert limit_marks("Z\u0301\u0316a\u0308lgo e\u0301") == "Z\u0301\u0316a\u0308lgo e\u0301"
    assert limit_marks("a" + "\u0301" * 500 + "b" + "\u0316" * 31) == "a" + "\u0301" * 30 + "b" + "\u0316" * 30
    assert limit_marks("\u266a" * 100 + "\u2014" * 50) == "\u266a" * 100 + "\u2014" * 50  # symbols are no marks


@given(st.text(max_size=60), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_other_text_is_normalised_as_unicode_says(text: str, form: str) -> None:
    assert normalise(form, text) == unicodedata.normalize(form, limit_marks(text))  # type: ignore[arg-type]
    assert limit_marks(limit_marks(text)) == limit_marks(text)
