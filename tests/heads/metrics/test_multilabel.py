from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk
from torchmetrics.functional import classification as tm

from mgc.heads.metrics.multilabel import (
    decide,
    evaluate_predictions,
    f1_per_track,
    jaccard_per_track,
    ranking_per_genre,
)
from mgc.heads.metrics.names import FIXED, TOP1

PUBLISHED = [  # (accuracy, F) of Tables 1 and 2
    (0.354, 0.419),
    (0.387, 0.442),
    (0.456, 0.534),
    (0.372, 0.438),
    (0.396, 0.475),
    (0.408, 0.491),
    (0.403, 0.487),
    (0.425, 0.513),
    (0.419, 0.508),
    (0.437, 0.515),
]

shapes = st.tuples(st.integers(1, 12), st.integers(1, 5))
pairs = shapes.flatmap(lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape)))
scored = shapes.flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.float64, shape, elements=st.integers(0, 10)))
)


def evaluate(labels, scores, **options):
    return evaluate_predictions(labels, scores, n_replicates=0, **options)


EMPTY_ROWS_AND_COLUMNS = (
    np.array([[True, False, False], [False, False, False], [True, False, False]]),
    np.array([[False, True, False], [False, False, False], [True, False, False]]),
)


def test_metrics_equal_a_hand_calculation():
    fixed = evaluate([[1, 1, 0], [1, 0, 0], [0, 0, 1]], np.tile([0.9, 0.1, 0.1], (3, 1))).columns[FIXED]
    expected = {
        "jaccard": 0.5,
        "f1": 0.555556,
        "subset_accuracy": 0.333333,
        "hamming_loss": 0.333333,
        "micro_f1": 0.571429,
        "macro_f1": 0.266667,
    }
    assert {name: getattr(fixed, name).value for name in expected} == pytest.approx(expected, abs=1e-6)
    assert fixed.empty_share == 0.0


def test_empty_prediction_of_an_empty_truth_scores_1():
    nothing = np.zeros((1, 3), dtype=np.bool_)
    assert jaccard_per_track(nothing, nothing).tolist() == [1.0]
    assert f1_per_track(nothing, nothing).tolist() == [1.0]
    assert jaccard_per_track(nothing, ~nothing).tolist() == [0.0]


@given(pairs)
@example(EMPTY_ROWS_AND_COLUMNS)
def test_example_based_agree_with_scikit_learn(pair):
    # An empty genre changes no metric, and makes a single column multi-label for scikit-learn.
    y, p = (np.column_stack([labels, np.zeros(len(labels), dtype=np.bool_)]) for labels in pair)
    options = {"average": "samples", "zero_division": 1.0}
    assert jaccard_per_track(y, p).mean() == pytest.approx(sk.jaccard_score(y, p, **options))
    assert f1_per_track(y, p).mean() == pytest.approx(sk.f1_score(y, p, **options))


@given(pairs.filter(lambda pair: pair[0].shape[1] > 1))  # torchmetrics refuses a single label
@example(EMPTY_ROWS_AND_COLUMNS)
def test_decisions_agree_with_torchmetrics(pair):
    y, p = pair
    target, predicted = torch.from_numpy(y).int(), torch.from_numpy(p).float()
    n = y.shape[1]
    # torchmetrics needs a third axis for metrics per track, and squeezes a single track, so each is there twice.
    by_track = (predicted.repeat(2, 1)[..., None], target.repeat(2, 1)[..., None], n)
    counts = tm.multilabel_stat_scores(*by_track, average="micro", multidim_average="samplewise")
    tp, fp, _, fn, _ = counts[: len(y)].numpy().T
    union = tp + fp + fn
    expected = np.where(union == 0, 1.0, tp / np.maximum(union, 1))
    np.testing.assert_allclose(jaccard_per_track(y, p), expected)
    options = {"average": "micro", "multidim_average": "samplewise", "zero_division": 1.0}
    f1 = tm.multilabel_f1_score(*by_track, **options)[: len(y)]
    np.testing.assert_allclose(f1_per_track(y, p), f1, rtol=1e-6)

    labelled = y.any(axis=1)
    if not labelled.any():
        return
    fixed, target, predicted = evaluate(y, p.astype(float)).columns[FIXED], target[labelled], predicted[labelled]
    for name, value in {
        "hamming_loss": tm.multilabel_hamming_distance(predicted, target, n, average="micro"),
        "subset_accuracy": tm.multilabel_exact_match(predicted, target, n),
        "micro_f1": tm.multilabel_f1_score(predicted, target, n, average="micro"),
        "macro_f1": tm.multilabel_f1_score(predicted, target, n, average="none")[target.any(dim=0)].mean(),
    }.items():
        assert getattr(fixed, name).value == pytest.approx(float(value), abs=1e-6), name


@given(pairs)
@example(EMPTY_ROWS_AND_COLUMNS)
def test_columns_agree_with_scikit_learn(pair):
    y, p = pair
    metrics = evaluate(y, p.astype(float))
    labelled = y.any(axis=1)
    assert (metrics.n_tracks, metrics.n_unlabelled) == (labelled.sum(), (~labelled).sum())
    y, p, fixed = y[labelled], p[labelled], metrics.columns[FIXED]
    if not labelled.any():
        assert math.isnan(fixed.jaccard.value)
        return
    defined = y.any(axis=0)
    assert fixed.subset_accuracy.value == pytest.approx((y == p).all(axis=1).mean())
    assert fixed.hamming_loss.value == pytest.approx((y != p).mean())
    assert fixed.micro_f1.value == pytest.approx(sk.f1_score(y.ravel(), p.ravel(), zero_division=0.0))
    per_genre = [sk.f1_score(y[:, j], p[:, j], zero_division=0.0) for j in np.flatnonzero(defined)]
    assert fixed.macro_f1.value == pytest.approx(np.mean(per_genre))
    for j, row in enumerate(metrics.genres):
        assert row.support == y[:, j].sum()
        assert (row.genre in metrics.undefined_genres) == (not defined[j]) == math.isnan(row.average_precision)
        assert math.isnan(row.precision[FIXED]) == (not p[:, j].any())
        if p[:, j].any():
            assert row.precision[FIXED] == pytest.approx(sk.precision_score(y[:, j], p[:, j], zero_division=0.0))
        if defined[j]:
            assert row.recall[FIXED] == pytest.approx(sk.recall_score(y[:, j], p[:, j]))
            assert row.f1[FIXED] == pytest.approx(sk.f1_score(y[:, j], p[:, j]))


@given(pairs)
def test_jaccard_and_f1_bound_each_other(pair):
    """A <= F <= 2A / (1 + A), since F = 2J / (1 + J) per track is concave."""
    a, f = jaccard_per_track(*pair).mean(), f1_per_track(*pair).mean()
    assert a - 1e-12 <= f <= 2 * a / (1 + a) + 1e-12


@pytest.mark.parametrize(("a", "f"), PUBLISHED)
def test_published_figures_satisfy_the_bounds(a, f):
    assert a <= f <= 2 * a / (1 + a)


@given(scored)
@example((EMPTY_ROWS_AND_COLUMNS[0], np.array([[3, 0, 1], [5, 5, 5], [3, 0, 0]], dtype=np.float64)))
def test_ranking_agrees_with_torchmetrics(case):
    y, s = case[0], case[1] / 10
    ap, auc = ranking_per_genre(y, s)
    for j in range(y.shape[1]):
        truth, scores = torch.from_numpy(y[:, j]).int(), torch.from_numpy(s[:, j])
        if not y[:, j].any():
            assert math.isnan(ap[j])
            continue
        assert ap[j] == pytest.approx(float(tm.binary_average_precision(scores, truth)), abs=1e-6)
        if y[:, j].all():
            assert math.isnan(auc[j])
        else:
            assert auc[j] == pytest.approx(float(tm.binary_auroc(scores, truth)), abs=1e-6)


@given(scored)
def test_ranking_metrics_are_means_over_defined_genres(case):
    y, s = case
    y = y[y.any(axis=1)]
    s = s[: len(y)]
    metrics = evaluate(y, s)
    ap = [sk.average_precision_score(y[:, j], s[:, j]) for j in range(y.shape[1]) if y[:, j].any()]
    auc = [sk.roc_auc_score(y[:, j], s[:, j]) for j in range(y.shape[1]) if 0 < y[:, j].sum() < len(y)]
    for got, expected in ((metrics.mean_average_precision.value, ap), (metrics.roc_auc.value, auc)):
        assert got == pytest.approx(np.mean(expected)) if expected else math.isnan(got)


def test_genres_without_a_positive_are_listed_and_left_out_of_means():
    y = np.array([[1, 0, 0], [1, 1, 0]])
    s = np.array([[0.9, 0.1, 0.9], [0.8, 0.7, 0.2]])
    metrics = evaluate(y, s, genres=["rock", "pop", "polka"])
    assert metrics.undefined_genres == ["polka"]
    assert metrics.mean_average_precision.value == 1.0
    assert metrics.columns[FIXED].macro_f1.value == 1.0
    # Rock has no negative, so only pop has a ROC curve.
    assert metrics.roc_auc.value == 1.0
    row = metrics.to_dict()["genres"][2]
    assert row["genre"] == "polka"
    assert row["f1"][FIXED] is row["average_precision"] is None
    assert row["precision"][FIXED] == 0.0


def test_each_threshold_has_its_column():
    y = np.array([[1, 0], [0, 1], [1, 1]])
    s = np.array([[0.4, 0.1], [0.2, 0.3], [0.45, 0.05]])
    metrics = evaluate(y, s, thresholds={"overall": 0.3, "per_genre": [0.4, 0.05]})
    assert list(metrics.columns) == [FIXED, "overall", "per_genre", TOP1]
    assert metrics.columns[FIXED].empty_share == 1.0
    assert metrics.columns[FIXED].jaccard.value == 0.0
    assert metrics.columns["overall"].jaccard.value == pytest.approx((1 + 1 + 0.5) / 3)
    assert metrics.columns["per_genre"].jaccard.value == pytest.approx((0.5 + 1 + 1) / 3)
    assert metrics.columns[TOP1].jaccard.value == pytest.approx((1 + 1 + 0.5) / 3)
    assert metrics.columns[TOP1].empty_share == 0.0


def test_score_at_its_threshold_is_predicted_and_top1_fills_empty_predictions_only():
    s = np.array([[0.5, 0.6, 0.1], [0.2, 0.4, 0.4]])
    assert decide(s, 0.5).tolist() == [[True, True, False], [False, False, False]]
    assert decide(s, 0.5, top1_where_empty=True).tolist() == [[True, True, False], [False, True, False]]
    assert decide(s, [0.6, 0.4, 0.4]).tolist() == [[False, True, False], [False, True, True]]
    assert decide(np.zeros((0, 3)), 0.5, top1_where_empty=True).shape == (0, 3)


def test_metrics_without_tracks_are_null():
    for n_unlabelled in (0, 2):
        metrics = evaluate_predictions(np.zeros((n_unlabelled, 2)), np.zeros((n_unlabelled, 2)))
        assert (metrics.n_tracks, metrics.n_unlabelled, metrics.n_replicates) == (0, n_unlabelled, 0)
        data = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
        assert data["mean_average_precision"] == {"value": None, "low": None, "high": None}
        assert data["columns"][TOP1]["micro_f1"]["value"] is None
        assert data["undefined_genres"] == ["0", "1"]


def test_intervals_contain_the_value_and_depend_on_the_seed():
    rng = np.random.default_rng(0)
    y = rng.random((120, 4)) < 0.3
    s = np.clip(0.4 * y + 0.6 * rng.random((120, 4)), 0, 1)
    artists = rng.integers(0, 30, 120)
    first, again, other = (
        evaluate_predictions(y, s, groups=artists, n_replicates=200, seed=seed).to_dict() for seed in (0, 0, 1)
    )
    assert first == again != other
    assert first["n_groups"] == len(np.unique(artists[y.any(axis=1)]))
    fixed = first["columns"][FIXED]
    estimates = [fixed[name] for name in ("jaccard", "f1", "subset_accuracy", "hamming_loss", "micro_f1", "macro_f1")]
    for estimate in (*estimates, first["mean_average_precision"], first["roc_auc"]):
        assert estimate["low"] < estimate["value"] < estimate["high"]
    json.dumps(first, allow_nan=False)


def test_average_precision_of_constant_scores_is_the_prevalence():
    y = np.array([[1, 0], [0, 1], [1, 1], [1, 0]], dtype=np.bool_)
    ap, auc = ranking_per_genre(y, np.zeros((4, 2)))
    assert ap.tolist() == [0.75, 0.5]
    assert auc.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("labels", "scores", "options", "message"),
    [
        ([[0, 2]], [[0, 0]], {}, "0 or 1"),
        ([0, 1], [0, 0], {}, "shape"),
        ([[0, 1]], [[0, 0, 0]], {}, "scores have shape"),
        ([[0, 1]], [[0, np.nan]], {}, "first: row 0"),
        ([[0, 1]], [[0, 0]], {"genres": ["a"]}, "different genre names"),
        ([[0, 1]], [[0, 0]], {"genres": ["a", "a"]}, "different genre names"),
        ([[0, 1]], [[0, 0]], {"groups": [1, 2]}, "groups"),
        ([[0, 1]], [[0, 0]], {"thresholds": {FIXED: 0.3}}, "reserved name"),
        ([[0, 1]], [[0, 0]], {"thresholds": {"x": [0.1, 0.2, 0.3]}}, "'x'"),
        ([[0, 1]], [[0, 0]], {"thresholds": {"x": np.nan}}, "'x'"),
    ],
)
def test_invalid_input_is_refused(labels, scores, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(labels, scores, **options)
