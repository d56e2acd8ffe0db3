"""Test that tuned thresholds equal the best of all cuts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mgc.heads.metrics.multilabel import decide, jaccard_per_track
from mgc.heads.metrics.thresholds import Thresholds, best_f1_threshold, best_jaccard_threshold, tune_thresholds

shapes = st.tuples(st.integers(1, 8), st.integers(1, 5))


Data = tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]


@st.composite
def predictions(draw: st.DrawFn) -> Data:
    shape = draw(shapes)
    labels = draw(hnp.arrays(np.bool_, shape))
    levels = st.floats(0, 1, width=32)
    return labels, draw(hnp.arrays(np.float64, shape, elements=levels))


def all_cuts(scores: npt.NDArray[np.float64]) -> list[float]:
    return sorted({0.0, *scores.ravel().tolist()})


@given(predictions())
def test_overall_threshold_maximises_the_mean_jaccard(
    data: tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]],
) -> None:
    labels, scores = data

    def jaccard(threshold: float) -> float:
        return float(jaccard_per_track(labels, decide(scores, threshold)).mean())

    best = max(jaccard(threshold) for threshold in all_cuts(scores))
    assert jaccard(best_jaccard_threshold(labels, scores)) == pytest.approx(best, abs=1e-9)


@given(predictions())
def test_per_genre_threshold_maximises_f1(data: Data) -> None:
    labels, scores = data[0][:, 0], data[1][:, 0]

    def f1(threshold: float) -> float:
        predicted = scores >= threshold
        return 2 * float((predicted & labels).sum()) / max(1, int(predicted.sum() + labels.sum()))

    best = max(f1(threshold) for threshold in all_cuts(scores))
    assert f1(best_f1_threshold(labels, scores)) == pytest.approx(best, abs=1e-9)


def test_threshold_is_the_midpoint_of_adjacent_scores() -> None:
    labels = np.array([True, True, False, False])
    assert best_f1_threshold(labels, np.array([0.9, 0.6, 0.2, 0.1])) == pytest.approx(0.4)


def test_thresholds_of_rare_genres_are_shrunk_towards_the_overall_one() -> None:
    random = np.random.default_rng(0)
    labels = random.random((60, 3)) < [0.5, 0.1, 0.0]
    scores = np.where(labels, 0.3, 0.1) + random.random((60, 3)) * 0.1
    tuned = tune_thresholds(labels, scores, shrinkage=10)
    support = labels.sum(axis=0)
    assert support[2] == 0
    assert tuned.fallback == (False, False, True)
    assert tuned.per_genre[2] == tuned.overall
    assert 0.2 <= tuned.overall <= 0.3
    for genre in (0, 1):
        own = best_f1_threshold(labels[:, genre], scores[:, genre])
        expected = (support[genre] * own + 10 * tuned.overall) / (support[genre] + 10)
        assert tuned.per_genre[genre] == pytest.approx(expected)
    assert tune_thresholds(labels, scores, shrinkage=0).per_genre[1] == best_f1_threshold(labels[:, 1], scores[:, 1])
    assert Thresholds.from_dict(tuned.to_dict()) == tuned
    names = ("rock", "jazz", "polka")
    assert tuned.describe("overall", names) == f"threshold {tuned.overall:.3f}, tuned on 60 validation tracks"
    assert tuned.describe("0.25", names) == "threshold 0.25, as given"
    assert tuned.describe("per-genre", names) == (
        "per-genre thresholds, tuned on 60 validation tracks; those of rare genres are shrunk towards "
        f"{tuned.overall:.3f}"
    )


def test_thresholds_of_mgc_0_1_list_genres_with_the_overall_threshold() -> None:
    old = {"overall": 0.3, "per_genre": [0.4, 0.3], "fallback": [False, True], "min_support": 5, "n_tracks": 60}
    assert Thresholds.from_dict(old).describe("per-genre", ("rock", "polka")) == (
        "per-genre thresholds, tuned on 60 validation tracks; 1 of 2 genres have fewer than 5 of them and use "
        "0.300: polka"
    )


def test_threshold_is_0_5_without_validation_tracks() -> None:
    tuned = tune_thresholds(np.zeros((0, 2), dtype=np.bool_), np.zeros((0, 2)))
    assert tuned.overall == 0.5
    assert tuned.describe("overall", ("a", "b")) == "threshold 0.500, not tuned: no validation track"
    assert tuned.per_genre == (0.5, 0.5)
    assert all(tuned.fallback)
