"""Speeds are printed only of entrants that give the same."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.timing import DisagreementError, in_turn, spread


def test_entrants_run_in_turn_from_another_place_each_round_and_their_ratio_is_paired():
    order = []
    times = in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b", "a", "b", "b", "a"]  # one round to warm up
    assert [len(seconds) for seconds in times.seconds.values()] == [2, 2]
    assert spread([3.0, 1.0, 2.0], digits=1) == "2.0 [1.0, 3.0]"


def test_a_disagreement_in_any_round_ends_the_benchmark():
    answers = itertools.chain([1, 1], itertools.repeat(2))

    def agree(one: int, other: int) -> str | None:
        return None if one == other else f"{one} against {other}"

    with pytest.raises(DisagreementError, match="fast does not give what slow gives: 1 against 2"):
        in_turn({"slow": lambda: 1, "fast": lambda: next(answers)}, rounds=3, agree=agree)
