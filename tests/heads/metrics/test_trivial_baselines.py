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


def test_majority_set_may_hold_several_genres():
    assert majority_set([[1, 0, 0], [1, 0, 0], [1, 1, 0]]).tolist() == [True, False, False]
    assert majority_set([[1, 1, 0], [1, 1, 0], [1, 0, 1]]).tolist() == [True, True, False]
    assert majority_set(np.zeros((3, 2))).tolist() == [False, False]


def test_candidates_of_majority_are_frequent_genres_and_training_label_sets():
    # Five tracks share one genre, and each has another one: the shared genre alone is best, not a label set.
    shared = np.column_stack([np.ones(5), np.eye(5)])
    assert majority_set(shared).tolist() == [True, False, False, False, False, False]
    # The second and third genre always occur together, so they beat the most frequent genre.
    together = np.zeros((11, 9))
    together[:5, 1:3] = 1
    together[5:, 0], together[5:, 3:] = 1, np.eye(6)
    assert np.flatnonzero(majority_set(together)).tolist() == [1, 2]


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 4))))
def test_majority_score_lies_between_simple_candidates_and_the_best_set(labels):
    """At least that of the most frequent genre and of any training label set, at most that of the best set."""
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


def test_metrics_of_baselines_equal_a_hand_calculation():
    train = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]])
    test = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]])
    scores = baseline_scores(train.mean(axis=0), majority_set(train), len(test))
    prior, majority = (evaluate_predictions(test, scores[name], n_replicates=0) for name in ("label_prior", "majority"))
    assert majority.columns[FIXED].jaccard.value == pytest.approx((1 + 0.5) / 4)
    prevalence = test.mean(axis=0).mean()
    assert prior.mean_average_precision.value == majority.mean_average_precision.value == pytest.approx(prevalence)
    assert prior.roc_auc.value == 0.5


def test_label_frequency_agrees_with_the_stratified_dummy_of_scikit_learn():
    """Both are random, so they agree in expectation: share of each genre, and micro F1 of guessing."""
    rng = np.random.default_rng(1)
    shares = np.array([0.6, 0.3, 0.05, 0.0])
    train = rng.random((3000, 4)) < shares
    scores = baseline_scores(train.mean(axis=0), majority_set(train), 3000)["label_frequency"]
    dummy = DummyClassifier(strategy="stratified", random_state=0).fit(np.zeros((3000, 1)), train)
    guesses = dummy.predict(np.zeros((3000, 1)))
    assert set(np.unique(scores)) == {0.0, 1.0}
    np.testing.assert_allclose(scores.mean(axis=0), train.mean(axis=0), atol=0.03)
    f1, dummy_f1 = (f1_score(train, prediction, average="micro") for prediction in (scores, guesses))
    assert f1 == pytest.approx(dummy_f1, abs=0.03)
    assert f1 == pytest.approx((shares**2).sum() / shares.sum(), abs=0.03)
