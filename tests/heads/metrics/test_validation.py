"""Test validation metrics and the selection of the best epoch."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, jaccard_score, log_loss

from mgc.heads.metrics.validation import is_better, validation_metrics, warning_of_constant_scores


def test_metrics_equal_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth = random.random((30, 4)) < 0.4
    truth[:, 3] = False  # without a positive, so not in the mean
    logits = random.normal(0, 2, truth.shape)
    scores = 1 / (1 + np.exp(-logits))
    metrics = validation_metrics(truth, scores, logits)
    assert metrics["map"] == pytest.approx(average_precision_score(truth[:, :3], scores[:, :3], average="macro"))
    predicted = scores >= 0.5
    some = truth.any(axis=1) | predicted.any(axis=1)
    expected = jaccard_score(truth[some], predicted[some], average="samples") * some.mean() + (~some).mean()
    assert metrics["jaccard"] == pytest.approx(expected)
    assert metrics["empty_share"] == pytest.approx((~predicted.any(axis=1)).mean())
    assert metrics["bce"] == pytest.approx(log_loss(truth.ravel(), scores.ravel()))


def test_better_epoch_has_higher_map_then_lower_cross_entropy() -> None:
    best: dict[str, float | None] = {"map": 0.5, "bce": 0.4}
    assert is_better({"map": 0.6, "bce": 0.9}, best)
    assert is_better({"map": 0.5, "bce": 0.3}, best)
    assert not is_better({"map": 0.5, "bce": 0.4}, best)
    assert not is_better({"map": 0.4, "bce": 0.1}, best)


def test_latest_epoch_is_better_without_validation_tracks() -> None:
    undefined = validation_metrics(np.zeros((0, 3), dtype=np.bool_), np.zeros((0, 3)), np.zeros((0, 3)))
    assert set(undefined.values()) == {None}
    assert is_better(undefined, undefined)


def test_constant_scores_give_a_warning() -> None:
    random = np.random.default_rng(0)
    truth = random.random((40, 5)) < 0.3
    truth[:, 4] = False
    constant = validation_metrics(truth, np.full(truth.shape, 0.9), np.full(truth.shape, 2.0))
    warning = warning_of_constant_scores(truth, constant["map"])
    assert warning is not None
    assert f"{constant['map']:.3f}" in warning
    assert "warmup" in warning
    logits = np.where(truth, 1.0, -1.0) + random.normal(0, 1, truth.shape)
    assert warning_of_constant_scores(truth, validation_metrics(truth, logits, logits)["map"]) is None


def test_tracks_with_equal_labels_give_no_warning_of_constant_scores() -> None:
    assert warning_of_constant_scores(np.ones((3, 2), dtype=np.bool_), 1.0) is None
    assert warning_of_constant_scores(np.zeros((0, 2), dtype=np.bool_), None) is None
