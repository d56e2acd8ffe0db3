"""The three systems that have seen no features, only training labels. What they reach is what learning must beat.

``majority`` gives every track the one set of genres that fits the training tracks best. ``label_prior`` gives every
track each genre's training share as its score. ``label_frequency`` draws each track's genres at random, every genre
independently with its training share: it predicts as many as there are, in the wrong places.

Shapes: N tracks, C genres.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .bootstrap import BoolArray, FloatArray
from .multilabel import label_matrix

_MAX_CANDIDATES = 1000


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
    majority: BoolArray = candidates[best[np.argmin(candidates[best].sum(axis=1))]]
    return majority


def baseline_scores(
    prior: npt.ArrayLike, majority: npt.ArrayLike, n_tracks: int, *, seed: int = 0
) -> dict[str, FloatArray]:
    """Scores (n_tracks, C) of the three, by name.

    Parameters
    ----------
    prior : (C,) share of the training tracks that have each genre.
    majority : (C,) of :func:`majority_set`.
    seed : of the draws of ``label_frequency``, whose scores are 0 or 1.

    Notes
    -----
    Each of the first two ranks all tracks equally, so its average precision is each genre's prevalence; the third
    reaches that on average. ``most_frequent``, ``prior`` and ``stratified`` of scikit-learn's ``DummyClassifier`` are
    their like, except that ``majority`` looks for the best set and not genre by genre (no genre may be in most tracks).
    """
    p = np.asarray(prior, dtype=np.float64)
    drawn = np.random.default_rng(seed).random((n_tracks, len(p))) < p
    return {
        "label_prior": np.tile(p, (n_tracks, 1)),
        "majority": np.tile(np.asarray(majority, dtype=np.float64), (n_tracks, 1)),
        "label_frequency": drawn.astype(np.float64),
    }
