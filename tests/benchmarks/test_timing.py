"""Test the timing of implementations: order of runs, comparison of results."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.timing import DisagreementError, in_turn, spread


def test_implementations_run_in_turn_and_each_round_starts_with_the_next():
    order = []
    times = in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b", "a", "b", "b", "a"]  # after a warm-up round
    assert [len(seconds) for seconds in times.seconds.values()] == [2, 2]
    assert spread([3.0, 1.0, 2.0], digits=1) == "2.0 [1.0, 3.0]"


def test_different_results_in_any_round_end_the_benchmark():
    answers = itertools.chain([1, 1], itertools.repeat(2))

    def agree(reference: int, other: int) -> str | None:
        return None if reference == other else f"{reference} against {other}"

    with pytest.raises(DisagreementError, match="fast: result differs from that of slow: 1 against 2"):
        in_turn({"slow": lambda: 1, "fast": lambda: next(answers)}, rounds=3, agree=agree)
