"""Calibration against its definition counted pair by pair, scikit-learn, and scores whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from mgc.heads.metrics.calibration import calibration


def test_two_bins_by_hand():
    """Scores .2 .4 | .6 1, truths 0 1 | 1 1: (|1 - .6| + |2 - 1.6|) / 4."""
    found = calibration([[0], [1], [1], [1]], [[0.2], [0.4], [0.6], [1.0]], n_bins=2)
    assert found.counts.tolist() == [2, 2]
    np.testing.assert_allclose(found.mean_score, [0.3, 0.8])
    np.testing.assert_allclose(found.observed, [0.5, 1.0])
    assert found.expected_error == pytest.approx(0.2)
    assert found.brier == pytest.approx((0.04 + 0.36 + 0.16) / 4)


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 4), st.integers(1, 20))
def test_bins_are_scikit_learns_and_the_errors_those_of_the_definition(seed, n, n_genres, n_bins):
    rng = np.random.default_rng(seed)
    y, s = rng.random((n, n_genres)) < 0.3, rng.random((n, n_genres))
    found = calibration(y, s, n_bins=n_bins)
    observed, mean_score = calibration_curve(y.ravel(), s.ravel(), n_bins=n_bins)
    np.testing.assert_allclose(found.observed[found.counts > 0], observed)
    np.testing.assert_allclose(found.mean_score[found.counts > 0], mean_score)
    assert found.brier == pytest.approx(brier_score_loss(y.ravel(), s.ravel()))

    def error_of(truth, score):
        bins = np.minimum((score * n_bins).astype(int), n_bins - 1)
        inside = [bins == m for m in range(n_bins) if (bins == m).any()]
        return sum(here.mean() * abs(truth[here].mean() - score[here].mean()) for here in inside)

    assert found.expected_error == pytest.approx(error_of(y.ravel(), s.ravel()))
    assert found.classwise_error == pytest.approx(np.mean([error_of(y[:, j], s[:, j]) for j in range(n_genres)]))


def test_scores_that_are_frequencies_have_no_error_and_bold_ones_do():
    rng = np.random.default_rng(0)
    s = rng.random((20_000, 3))
    y = rng.random(s.shape) < s
    honest, bold = calibration(y, s), calibration(y, np.where(s > 0.5, 1.0, 0.0))
    assert honest.expected_error < 0.01
    assert bold.expected_error == pytest.approx(0.25, abs=0.01)
    assert honest.brier < honest.brier_prior < bold.brier


def test_genres_that_err_in_opposite_directions_do_not_make_each_other_right():
    y = np.array([[1, 0]] * 10)
    found = calibration(y, np.full((10, 2), 0.5))
    assert found.expected_error == pytest.approx(0)
    assert found.classwise_error == pytest.approx(0.5)


def test_what_is_undefined_is_null_and_what_is_no_score_is_refused():
    empty = calibration(np.zeros((0, 2), dtype=bool), np.zeros((0, 2))).to_dict()
    assert (empty["n_pairs"], empty["expected_calibration_error"], empty["bins"][0]["observed"]) == (0, None, None)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        calibration([[1]], [[1.5]])
    with pytest.raises(ValueError, match="shape"):
        calibration([[1]], [[0.5, 0.5]])
