from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mgc.heads.ablation.paper_tables import Row, TableSpec
from mgc.heads.ablation.statistics import (
    Measurement,
    draw_seeds,
    fill_table,
    measure_system,
    pool_folds,
    seed_difference,
)
from mgc.heads.evaluation.scored_tracks import ScoredTracks
from mgc.heads.metrics.bootstrap import Resampling


def scored(n: int, seed: int, lift: float = 1.0) -> ScoredTracks:
    random = np.random.default_rng(0)
    labels = random.random((n, 3)) < 0.4
    labels[~labels.any(axis=1), 0] = True
    noise = np.random.default_rng(seed).random((n, 3))
    return ScoredTracks(
        run=Path("run"),
        ids=tuple(f"t{i:03d}" for i in range(n)),
        groups=tuple(f"artist {i // 2}" for i in range(n)),
        genres=("a", "b", "c"),
        labels=labels,
        scores=np.clip(0.3 * noise + 0.35 * lift * labels + 0.2, 0, 1).astype(np.float32),
        thresholds={"tuned": np.full(3, 0.4)},
    )


SPEC = TableSpec(
    name="t", title="T", reference="good", rows=tuple(Row(name=n) for n in ("good", "bad", "same", "later"))
)


def test_verdicts_follow_the_interval_of_the_difference() -> None:
    resampling = Resampling.of(scored(80, 0).groups, 400, seed=0)
    measured = {
        "good": measure_system({seed: scored(80, seed) for seed in range(3)}, resampling),
        "bad": measure_system({seed: scored(80, seed, lift=0.0) for seed in range(3)}, resampling),
        "same": measure_system({seed: scored(80, seed + 10) for seed in range(3)}, resampling),
    }
    good, bad, same, later = fill_table(SPEC, measured, {})
    assert good.metrics["accuracy"].difference is None
    assert bad.metrics["accuracy"].verdict == bad.metrics["map"].verdict == "worse"
    assert bad.metrics["accuracy"].difference.high < 0
    assert same.metrics["map"].verdict == "not significant"
    assert (later.metrics, later.note, later.n_seeds) == ({}, "not run yet", 0)
    untested = fill_table(SPEC, measured, {}, test=False)[1].metrics["accuracy"]
    assert (untested.verdict, untested.difference) == ("not tested", bad.metrics["accuracy"].difference)


def test_disagreeing_seeds_make_a_difference_not_significant() -> None:
    """With differences of -0.01, +0.03 and +0.04, all artists agree within a seed, but another seed may differ."""
    flat = Measurement(seeds=(0, 1, 2), values={"map": np.full(3, 0.5)}, replicates={"map": np.full((3, 500), 0.5)})
    values = np.asarray([0.49, 0.53, 0.54])
    other = Measurement(seeds=(0, 1, 2), values={"map": values}, replicates={"map": np.tile(values[:, None], (1, 500))})
    difference = seed_difference(other, flat, "map", seed=0)
    assert difference.value == pytest.approx(0.02)
    assert difference.low < 0 < difference.high
    single = Measurement(seeds=(1,), values={"map": values[1:2]}, replicates={"map": other.replicates["map"][1:2]})
    difference = seed_difference(single, flat, "map", seed=0)
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.03, 0.03, 0.03))


def test_drawn_seeds_have_the_variance_of_means_of_new_seeds() -> None:
    values = np.random.default_rng(3).normal(size=(4, 1))
    drawn = draw_seeds(np.tile(values, (1, 200_000)), seed=0)
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.01)
    assert drawn.std() == pytest.approx(values.std(ddof=1) / 2, rel=0.02)


def test_folds_are_pooled_over_the_genres_that_all_models_share() -> None:
    first, other = scored(6, 0), scored(6, 1)
    other = dataclasses.replace(
        other, ids=tuple(f"s{i}" for i in range(6)), genres=("c", "d", "a"), thresholds={"tuned": np.full(3, 0.9)}
    )
    both = pool_folds([first, other])
    assert both.genres == ("a", "c")
    assert list(both.ids) == sorted(both.ids)
    rows = [i for i in range(6) if first.labels[i, [0, 2]].any()]
    assert [name for name in both.ids if name.startswith("t")] == [first.ids[i] for i in rows]
    positions = [both.ids.index(first.ids[i]) for i in rows]
    np.testing.assert_array_equal(both.scores[positions], first.scores[rows][:, [0, 2]])
    np.testing.assert_array_equal(both.thresholds["tuned"][positions], np.full((len(rows), 2), 0.4))
    from_other = [name.startswith("s") for name in both.ids]
    np.testing.assert_array_equal(both.thresholds["tuned"][from_other], np.full((sum(from_other), 2), 0.9))
