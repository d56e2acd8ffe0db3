"""Score three systems that use training labels but no features: the reference that a model must exceed.

``majority`` predicts the same set of genres for every track: the one that fits the training tracks best.
``label_prior`` scores every track with each genre's share of the training tracks. ``label_frequency`` draws the genres
of each track at random, independently, with these shares as probabilities.

Shapes: N tracks, C genres.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .bootstrap import BoolArray, FloatArray
from .multilabel import label_matrix

_MAX_CANDIDATES = 1000


def majority_set(train_labels: npt.ArrayLike) -> BoolArray:
    """Return the set of genres with the highest mean Jaccard index if predicted for every training track.

    Candidates are the sets of the k most frequent genres, k = 1 .. C, and the 1000 most frequent label sets. They
    include the most frequent genre and the most frequent label set. Tracks with none of the genres do not count. Ties
    go to the smaller set, then to the earlier candidate.

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
    # Distinct label sets are far fewer than tracks.
    truth = sets.astype(np.float64)
    score = np.empty(len(candidates))
    for i, candidate in enumerate(candidates.astype(np.float64)):
        hits = truth @ candidate
        union = truth.sum(axis=1) + candidate.sum() - hits
        score[i] = counts @ (hits / union)
    best = np.flatnonzero(score >= score.max() - 1e-9 * len(y))
    majority: BoolArray = candidates[best[np.argmin(candidates[best].sum(axis=1))]]
    return majority


def baseline_scores(
    prior: npt.ArrayLike, majority: npt.ArrayLike, n_tracks: int, *, seed: int = 0
) -> dict[str, FloatArray]:
    """Return (n_tracks, C) scores of the three systems, by name.

    Parameters
    ----------
    prior : (C,) share of the training tracks with each genre.
    majority : (C,), from :func:`majority_set`.
    seed : of the draws of ``label_frequency``, whose scores are 0 or 1.

    Notes
    -----
    ``label_prior`` and ``majority`` score all tracks alike, so the average precision of a genre is its prevalence;
    ``label_frequency`` reaches it on average. They correspond to ``prior``, ``most_frequent`` and ``stratified`` of
    scikit-learn's ``DummyClassifier``, except that ``majority`` searches for the best set: decided genre by genre, the
    set would be empty if no genre is in most tracks.
    """
    p = np.asarray(prior, dtype=np.float64)
    draws = np.random.default_rng(seed).random((n_tracks, len(p))) < p
    return {
        "label_prior": np.tile(p, (n_tracks, 1)),
        "majority": np.tile(np.asarray(majority, dtype=np.float64), (n_tracks, 1)),
        "label_frequency": draws.astype(np.float64),
    }
