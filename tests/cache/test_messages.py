"""Parts of messages: counts, numbers, shortened lists, hints for unknown names."""

from __future__ import annotations

import doctest
import math

import pytest

from mgc.cache import messages
from mgc.cache.messages import counted, did_you_mean, interval, join_names, limit_lines, nearest, number


def test_examples_of_the_docstrings_hold() -> None:
    results = doctest.testmod(messages)
    assert (results.failed, results.attempted) == (0, 9)


@pytest.mark.parametrize(
    ("n_names", "limit", "expected"),
    [(0, 5, ""), (1, 5, "0"), (5, 5, "0, 1, 2, 3, 4"), (6, 5, "0, 1, 2, 3, 4 and 1 more"), (12, 1, "0 and 11 more")],
)
def test_names_beyond_the_limit_are_counted(n_names: int, limit: int, expected: str) -> None:
    assert join_names(range(n_names), limit) == expected


def test_lines_beyond_the_limit_are_counted_on_a_line_of_their_own() -> None:
    assert limit_lines(["a"] * 5, "tracks") == ["a"] * 5
    assert limit_lines(["a"] * 8, "tracks") == [*["a"] * 5, "... and 3 more tracks"]


@pytest.mark.parametrize(
    ("name", "cutoff", "expected"), [("mettal", 0.5, "Metal"), ("METAL", 0.85, "Metal"), ("jazz", 0.5, None)]
)
def test_the_nearest_name_ignores_case_and_keeps_its_own(name: str, cutoff: float, expected: str | None) -> None:
    assert nearest(name, ["rock", "Metal"], cutoff) == expected


def test_hint_lists_all_names_if_none_is_similar() -> None:
    assert did_you_mean("wirkers", ["store", "workers"]) == "did you mean 'workers'?"
    assert did_you_mean("x", ["a", "b", "c"], limit=2) == "there are: a, b and 1 more"


def test_large_counts_can_have_a_thousands_separator() -> None:
    assert [counted(2000, "track", separator=separator) for separator in ("", ",")] == ["2000 tracks", "2,000 tracks"]


def test_number_has_three_decimals_or_a_placeholder() -> None:
    assert [number(value) for value in (0.12345, -1, None, math.nan, math.inf)] == ["0.123", "-1.000", "–", "–", "–"]
    assert [number(value, sign=True, missing="-") for value in (0.5, -0.5, None)] == ["+0.500", "-0.500", "-"]


def test_interval_has_both_ends_or_a_placeholder() -> None:
    estimate = {"value": 0.5, "low": 0.25, "high": 0.75}
    assert interval(estimate) == "0.250 to 0.750"
    assert interval(estimate, " [{}, {}]", digits=2, sign=True) == " [+0.25, +0.75]"
    assert interval({"value": 0.5, "low": 0.25, "high": None}, missing="too few") == "too few"
    assert interval({"value": 0.5}) == ""
