"""Systems that have seen no features: every track gets the same scores. What they reach is what learning must beat.

Shapes: N tracks, C genres.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .metrics import BoolArray, FloatArray, label_matrix

_MAX_CANDIDATES = 1000


def label_prior(train_labels: npt.ArrayLike) -> FloatArray:
    """(C,) share of the training tracks that have each genre: the scores of a system that has seen no features."""
    y = label_matrix(train_labels)
    return y.mean(axis=0) if len(y) else np.zeros(y.shape[1])


def majority_set(train_labels: npt.ArrayLike) -> BoolArray:
    """The one set of genres that, predicted for every training track, has the highest mean Jaccard index there.

    Candidates are the sets of the k most frequent genres, k = 1 .. C, and the training tracks' own label sets (the
    1000 most frequent), so the plain "most frequent genre" and "most frequent label set" are among them. Tracks with
    none of the genres do not count. Ties go to the smaller set, then to the earlier candidate.

    Returns
    -------
    (C,) bool; all false without training tracks.
    """
    y = label_matrix(train_labels)
    y = y[y.any(axis=1)]
    if len(y) == 0:
        return np.zeros(y.shape[1], dtype=np.bool_)
    rank = np.argsort(np.argsort(-y.sum(axis=0), kind="stable"), kind="stable")
    most_frequent = rank[None, :] <= np.arange(y.shape[1])[:, None]
    sets, counts = np.unique(y, axis=0, return_counts=True)
    own = sets[np.argsort(-counts, kind="stable")[:_MAX_CANDIDATES]]
    candidates = np.concatenate([most_frequent, own])
    # Over distinct label sets with their counts, which are far fewer than tracks.
    truth = sets.astype(np.float64)
    score = np.empty(len(candidates))
    for i, candidate in enumerate(candidates.astype(np.float64)):
        hits = truth @ candidate
        union = truth.sum(axis=1) + candidate.sum() - hits
        score[i] = counts @ (hits / union)
    best = np.flatnonzero(score >= score.max() - 1e-9 * len(y))
    chosen: BoolArray = candidates[best[np.argmin(candidates[best].sum(axis=1))]]
    return chosen


def baseline_scores(train_labels: npt.ArrayLike, n_tracks: int) -> dict[str, FloatArray]:
    """Scores (n_tracks, C) of the two systems without features, ``label_prior`` and ``majority``.

    Both rank all tracks equally, so their average precision is each genre's prevalence; the majority baseline's Jaccard
    index in the ``fixed`` column is the number to beat.
    """
    prior, majority = label_prior(train_labels), majority_set(train_labels).astype(np.float64)
    return {"label_prior": np.tile(prior, (n_tracks, 1)), "majority": np.tile(majority, (n_tracks, 1))}
