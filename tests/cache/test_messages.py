"""Numbers as every message, table and page shows them."""

from __future__ import annotations

import math

from mgc.cache.messages import counted, interval, number


def test_counts_agree_with_their_noun() -> None:
    assert [counted(n, "track") for n in (0, 1, 2000)] == ["0 tracks", "1 track", "2000 tracks"]
    assert counted(2000, "track", separator=",") == "2,000 tracks"


def test_a_number_has_three_decimals_or_says_that_it_is_missing() -> None:
    assert [number(value) for value in (0.12345, -1, None, math.nan, math.inf)] == ["0.123", "-1.000", "–", "–", "–"]
    assert [number(value, sign=True, missing="-") for value in (0.5, -0.5, None)] == ["+0.500", "-0.500", "-"]


def test_an_interval_has_both_ends_or_says_that_it_is_missing() -> None:
    estimate = {"value": 0.5, "low": 0.25, "high": 0.75}
    assert interval(estimate) == "0.250 to 0.750"
    assert interval(estimate, " [{}, {}]", digits=2, sign=True) == " [+0.25, +0.75]"
    assert interval({"value": 0.5, "low": 0.25, "high": None}, missing="too few") == "too few"
    assert interval({"value": 0.5}) == ""
