"""Test calibration against its definition, scikit-learn, and scores of known calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from mgc.heads.metrics.calibration import calibration


def test_two_bins_equal_a_hand_calculation():
    """Scores 0.2 0.4 | 0.6 1 with labels 0 1 | 1 1 give (|1 - 0.6| + |2 - 1.6|) / 4."""
    result = calibration([[0], [1], [1], [1]], [[0.2], [0.4], [0.6], [1.0]], n_bins=2)
    assert result.counts.tolist() == [2, 2]
    np.testing.assert_allclose(result.mean_score, [0.3, 0.8])
    np.testing.assert_allclose(result.observed, [0.5, 1.0])
    assert result.expected_error == pytest.approx(0.2)
    assert result.brier == pytest.approx((0.04 + 0.36 + 0.16) / 4)


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 4), st.integers(1, 20))
def test_bins_equal_those_of_scikit_learn_and_errors_follow_the_definition(seed, n, n_genres, n_bins):
    rng = np.random.default_rng(seed)
    y, s = rng.random((n, n_genres)) < 0.3, rng.random((n, n_genres))
    result = calibration(y, s, n_bins=n_bins)
    observed, mean_score = calibration_curve(y.ravel(), s.ravel(), n_bins=n_bins)
    np.testing.assert_allclose(result.observed[result.counts > 0], observed)
    np.testing.assert_allclose(result.mean_score[result.counts > 0], mean_score)
    assert result.brier == pytest.approx(brier_score_loss(y.ravel(), s.ravel()))

    def error_of(truth, score):
        bins = np.minimum((score * n_bins).astype(int), n_bins - 1)
        inside = [bins == m for m in range(n_bins) if (bins == m).any()]
        return sum(mask.mean() * abs(truth[mask].mean() - score[mask].mean()) for mask in inside)

    assert result.expected_error == pytest.approx(error_of(y.ravel(), s.ravel()))
    assert result.classwise_error == pytest.approx(np.mean([error_of(y[:, j], s[:, j]) for j in range(n_genres)]))


def test_calibrated_scores_have_no_error_and_overconfident_scores_do():
    rng = np.random.default_rng(0)
    s = rng.random((20_000, 3))
    y = rng.random(s.shape) < s
    calibrated, overconfident = calibration(y, s), calibration(y, np.where(s > 0.5, 1.0, 0.0))
    assert calibrated.expected_error < 0.01
    assert overconfident.expected_error == pytest.approx(0.25, abs=0.01)
    assert calibrated.brier < calibrated.brier_prior < overconfident.brier


def test_classwise_error_does_not_cancel_between_genres():
    y = np.array([[1, 0]] * 10)
    result = calibration(y, np.full((10, 2), 0.5))
    assert result.expected_error == pytest.approx(0)
    assert result.classwise_error == pytest.approx(0.5)


def test_undefined_values_are_null_and_invalid_scores_are_refused():
    empty = calibration(np.zeros((0, 2), dtype=bool), np.zeros((0, 2))).to_dict()
    assert (empty["n_pairs"], empty["expected_calibration_error"], empty["bins"][0]["observed"]) == (0, None, None)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        calibration([[1]], [[1.5]])
    with pytest.raises(ValueError, match="shape"):
        calibration([[1]], [[0.5, 0.5]])
