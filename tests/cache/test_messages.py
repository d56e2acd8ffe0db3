"""Parts of messages: counts, lists that are cut, hints for names that nothing has."""

from __future__ import annotations

import doctest

import pytest

from mgc.cache import messages
from mgc.cache.messages import counted, did_you_mean, join_names, limit_lines, nearest


def test_examples_of_the_docstrings_hold() -> None:
    results = doctest.testmod(messages)
    assert (results.failed, results.attempted) == (0, 3)


@pytest.mark.parametrize(("n", "expected"), [(0, "0 tracks"), (1, "1 track"), (2, "2 tracks")])
def test_counts_use_the_singular_for_one_only(n: int, expected: str) -> None:
    assert counted(n, "track") == expected


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


def test_a_hint_lists_the_names_where_none_is_near() -> None:
    assert did_you_mean("wirkers", ["store", "workers"]) == "did you mean 'workers'?"
    assert did_you_mean("x", ["a", "b", "c"], limit=2) == "there are: a, b and 1 more"
