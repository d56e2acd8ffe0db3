"""Which epoch is the best one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, jaccard_score, log_loss

from mgc.heads.metrics.validation import is_better, learnt_nothing, validation_metrics


def test_metrics_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    truth = random.random((30, 4)) < 0.4
    truth[:, 3] = False  # no positive: not averaged in
    logits = random.normal(0, 2, truth.shape)
    scores = 1 / (1 + np.exp(-logits))
    found = validation_metrics(truth, scores, logits)
    assert found["map"] == pytest.approx(average_precision_score(truth[:, :3], scores[:, :3], average="macro"))
    predicted = scores >= 0.5
    some = truth.any(axis=1) | predicted.any(axis=1)
    expected = jaccard_score(truth[some], predicted[some], average="samples") * some.mean() + (~some).mean()
    assert found["jaccard"] == pytest.approx(expected)
    assert found["empty_share"] == pytest.approx((~predicted.any(axis=1)).mean())
    assert found["bce"] == pytest.approx(log_loss(truth.ravel(), scores.ravel()))


def test_higher_map_wins_then_lower_cross_entropy_and_ties_stay() -> None:
    best: dict[str, float | None] = {"map": 0.5, "bce": 0.4}
    assert is_better({"map": 0.6, "bce": 0.9}, best)
    assert is_better({"map": 0.5, "bce": 0.3}, best)
    assert not is_better({"map": 0.5, "bce": 0.4}, best)
    assert not is_better({"map": 0.4, "bce": 0.1}, best)


def test_without_validation_tracks_the_latest_epoch_is_the_better() -> None:
    nothing = validation_metrics(np.zeros((0, 3), dtype=np.bool_), np.zeros((0, 3)), np.zeros((0, 3)))
    assert set(nothing.values()) == {None}
    assert is_better(nothing, nothing)


def test_a_model_that_gives_every_track_the_same_scores_has_learnt_nothing() -> None:
    random = np.random.default_rng(0)
    truth = random.random((40, 5)) < 0.3
    truth[:, 4] = False
    same = validation_metrics(truth, np.full(truth.shape, 0.9), np.full(truth.shape, 2.0))
    warning = learnt_nothing(truth, same["map"])
    assert warning is not None
    assert f"{same['map']:.3f}" in warning
    assert "warmup" in warning
    logits = np.where(truth, 1.0, -1.0) + random.normal(0, 1, truth.shape)
    assert learnt_nothing(truth, validation_metrics(truth, logits, logits)["map"]) is None


def test_tracks_that_cannot_tell_do_not_accuse_a_model() -> None:
    assert learnt_nothing(np.ones((3, 2), dtype=np.bool_), 1.0) is None
    assert learnt_nothing(np.zeros((0, 2), dtype=np.bool_), None) is None
