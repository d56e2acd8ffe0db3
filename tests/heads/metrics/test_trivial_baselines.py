from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.dummy import DummyClassifier
from sklearn.metrics import f1_score

from mgc.heads.metrics.multilabel import evaluate_predictions, jaccard_per_track
from mgc.heads.metrics.names import FIXED
from mgc.heads.metrics.trivial_baselines import baseline_scores, majority_set


def test_majority_can_be_more_than_the_most_frequent_genre():
    assert majority_set([[1, 0, 0], [1, 0, 0], [1, 1, 0]]).tolist() == [True, False, False]
    assert majority_set([[1, 1, 0], [1, 1, 0], [1, 0, 1]]).tolist() == [True, True, False]
    assert majority_set(np.zeros((3, 2))).tolist() == [False, False]


def test_majority_looks_at_frequent_genres_and_at_training_label_sets():
    # Five tracks share one genre and each has another of its own: only the shared one, no track's whole set, is best.
    shared = np.column_stack([np.ones(5), np.eye(5)])
    assert majority_set(shared).tolist() == [True, False, False, False, False, False]
    # The second and third genre always come together, so they beat the single most frequent one.
    together = np.zeros((11, 9))
    together[:5, 1:3] = 1
    together[5:, 0], together[5:, 3:] = 1, np.eye(6)
    assert np.flatnonzero(majority_set(together)).tolist() == [1, 2]


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 4))))
def test_majority_is_at_least_as_good_as_the_plain_readings(labels):
    """Never worse than the most frequent genre or any training label set, never better than the best set there is."""
    labelled = labels[labels.any(axis=1)]
    if len(labelled) == 0:
        return

    def score(chosen):
        return jaccard_per_track(labelled, np.tile(np.array(chosen, dtype=np.bool_), (len(labelled), 1))).mean()

    reached = score(majority_set(labels))
    top = np.arange(labels.shape[1]) == labelled.sum(axis=0).argmax()
    assert reached >= max(score(top), *(score(row) for row in labelled)) - 1e-9
    best = max(score(chosen) for chosen in itertools.product([False, True], repeat=labels.shape[1]))
    assert reached <= best + 1e-9


def test_baselines_are_scored_like_any_system():
    train = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]])
    test = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]])
    scores = baseline_scores(train.mean(axis=0), majority_set(train), len(test))
    prior, majority = (evaluate_predictions(test, scores[name], n_replicates=0) for name in ("label_prior", "majority"))
    assert majority.columns[FIXED].jaccard.value == pytest.approx((1 + 0.5) / 4)
    prevalence = test.mean(axis=0).mean()
    assert prior.mean_average_precision.value == majority.mean_average_precision.value == pytest.approx(prevalence)
    assert prior.roc_auc.value == 0.5


def test_label_frequency_is_scikit_learns_stratified_dummy():
    """Both draw, so they agree in what is expected of them: each genre's share, and the micro F1 of guessing."""
    rng = np.random.default_rng(1)
    shares = np.array([0.6, 0.3, 0.05, 0.0])
    train = rng.random((3000, 4)) < shares
    scores = baseline_scores(train.mean(axis=0), majority_set(train), 3000)["label_frequency"]
    dummy = DummyClassifier(strategy="stratified", random_state=0).fit(np.zeros((3000, 1)), train)
    drawn = dummy.predict(np.zeros((3000, 1)))
    assert set(np.unique(scores)) == {0.0, 1.0}
    np.testing.assert_allclose(scores.mean(axis=0), train.mean(axis=0), atol=0.03)
    ours, theirs = (f1_score(train, prediction, average="micro") for prediction in (scores, drawn))
    assert ours == pytest.approx(theirs, abs=0.03)
    assert ours == pytest.approx((shares**2).sum() / shares.sum(), abs=0.03)
