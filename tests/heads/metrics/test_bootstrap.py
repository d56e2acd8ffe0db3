from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mgc.heads.metrics import bootstrap
from mgc.heads.metrics.bootstrap import Estimate, Resampling, interval, nan_mean


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow intervals from two groups on."""
    monkeypatch.setattr(bootstrap, "FEW_GROUPS", 2)


def test_fewer_than_twenty_groups_have_no_interval(monkeypatch):
    monkeypatch.undo()
    for n_groups, n_replicates in ((19, 0), (20, 50)):
        resampling = Resampling.of(np.arange(n_groups), 50, seed=0)
        assert resampling.n_replicates == n_replicates
        low, high = interval(resampling.means(np.arange(n_groups)))
        assert np.isnan([low, high]).all() == (n_replicates == 0)


def test_draws_are_whole_groups_and_reproducible():
    resampling = Resampling.of(["a", "b", "a", "c"], 50, seed=0)
    assert resampling.group_of.tolist() == [0, 1, 0, 2]
    assert resampling.draws.shape == (50, 3)
    assert (resampling.draws.sum(axis=1) == 3).all()
    np.testing.assert_array_equal(resampling.draws, Resampling.of(["a", "b", "a", "c"], 50, seed=0).draws)


def test_sums_and_means_equal_those_of_copied_tracks():
    rng = np.random.default_rng(0)
    groups, values = rng.integers(0, 5, 20), rng.normal(size=(20, 3))
    resampling = Resampling.of(groups, 30, seed=1)
    sums, means = resampling.sums(values), resampling.means(values[:, 0])
    assert len(resampling.draws) == 30
    for r, draw in enumerate(resampling.draws):
        copies = np.repeat(np.arange(20), draw[resampling.group_of].astype(int))
        np.testing.assert_allclose(sums[r], values[copies].sum(axis=0))
        assert means[r] == pytest.approx(values[copies, 0].mean())


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 25), st.integers(1, 12))
def test_ranking_equals_that_of_scikit_learn_on_copied_tracks(seed, n_tracks, n_levels):
    """Few score levels give ties."""
    rng = np.random.default_rng(seed)
    y = rng.random((n_tracks, 2)) < 0.4
    s = rng.integers(0, n_levels, (n_tracks, 2)) / n_levels
    resampling = Resampling.of(rng.integers(0, max(2, n_tracks // 2), n_tracks), 3, seed=seed)
    ap, auc = resampling.ranking(y, s)
    for r, draw in enumerate(resampling.draws):
        weight = draw[resampling.group_of]
        copies = np.repeat(np.arange(n_tracks), weight.astype(int))
        defined = [j for j in range(2) if y[copies, j].any()]
        both = [j for j in defined if not y[copies, j].all()]
        assert_mean(ap[r], [sk.average_precision_score(y[copies, j], s[copies, j]) for j in defined])
        assert_mean(auc[r], [sk.roc_auc_score(y[copies, j], s[copies, j]) for j in both])


def assert_mean(value, parts):
    assert value == pytest.approx(np.mean(parts)) if parts else np.isnan(value)


def test_chunked_replicates_give_the_same_ranking(monkeypatch):
    rng = np.random.default_rng(0)
    y, s = rng.random((30, 2)) < 0.4, rng.random((30, 2))
    resampling = Resampling.of(np.arange(30), 40, seed=0)
    whole = resampling.ranking(y, s)
    monkeypatch.setattr("mgc.heads.metrics.bootstrap._CHUNK_ELEMENTS", 100)
    np.testing.assert_array_equal(resampling.ranking(y, s), whole)


def test_interval_of_a_mean_equals_the_normal_interval():
    """With 2000 independent tracks, within the noise of the bootstrap."""
    values = np.random.default_rng(0).normal(size=2000)
    low, high = interval(Resampling.of(np.arange(2000), 4000, seed=0).means(values))
    half = 1.96 * values.std() / np.sqrt(2000)
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.08 * half)


def test_similar_tracks_of_an_artist_widen_the_interval():
    rng = np.random.default_rng(0)
    artist = np.repeat(np.arange(50), 20)
    values = rng.normal(size=50)[artist]
    wide = interval(Resampling.of(artist, 1000, seed=0).means(values))
    narrow = interval(Resampling.of(np.arange(1000), 1000, seed=0).means(values))
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_single_group_has_no_replicates():
    resampling = Resampling.of([7, 7, 7], 100, seed=0)
    assert resampling.n_replicates == 0
    assert np.isnan(interval(resampling.means(np.ones(3)))).all()


def test_undefined_replicates_are_ignored():
    assert interval(np.array([np.nan, 2.0, np.inf, 2.0])) == (2.0, 2.0)
    np.testing.assert_array_equal(nan_mean(np.array([[1.0, np.nan], [np.nan, np.nan]])), [1.0, np.nan])
    assert Estimate(value=1.0).to_dict() == {"value": 1.0, "low": None, "high": None}
