"""Tune decision thresholds on the validation split: an overall threshold, and per-genre thresholds.

A genre is predicted if its score is at or above its threshold. Both searches are exact: they evaluate every cut between
adjacent scores, not a grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cache.errors import ConfigError
from ...cache.messages import join_names
from ..results import Result
from .bootstrap import BoolArray, FloatArray
from .names import FIXED_THRESHOLD, TUNED, TUNED_PER_GENRE
from .phrases import tuned_on

SHRINKAGE = 20.0
OVERALL, PER_GENRE = "overall", "per-genre"
"""Names that :meth:`Thresholds.cuts` accepts, besides numbers."""


@dataclass(frozen=True, kw_only=True)
class Thresholds(Result):
    """Thresholds over the kept genres.

    Attributes
    ----------
    overall : maximises the mean example-based Jaccard index over the validation tracks.
    per_genre : (C,) between `overall` and the threshold that maximises the F1 of the genre; the more positives the
        genre has, the nearer to the latter. See :func:`tune_thresholds`.
    fallback : (C,) True for genres with fewer than `min_support` positives, which use `overall`.
    n_tracks : number of validation tracks; with 0, every threshold is the paper's 0.5.
    shrinkage : number of positives at which a threshold is half-way between both; 0 in models of mgc 0.1, which did not
        shrink thresholds.
    """

    overall: float
    per_genre: tuple[float, ...]
    fallback: tuple[bool, ...]
    min_support: int
    n_tracks: int
    shrinkage: float = 0.0

    @property
    def by_column(self) -> dict[str, float | FloatArray]:
        """Columns of metrics with their thresholds."""
        return {TUNED: self.overall, TUNED_PER_GENRE: np.asarray(self.per_genre, dtype=np.float64)}

    def cuts(self, choice: str) -> FloatArray:
        """Return (C,) thresholds for a choice: ``overall``, ``per-genre``, or a number for all genres, such as ``0.5``.

        Raises
        ------
        ConfigError
            If `choice` is none of these.
        """
        if choice == PER_GENRE:
            return np.asarray(self.per_genre, dtype=np.float64)
        return np.full(len(self.per_genre), self.overall if choice == OVERALL else threshold_value(choice))

    def describe(self, choice: str, genres: Sequence[str]) -> str:
        """Describe the thresholds that :meth:`cuts` returns, for users."""
        tuned = tuned_on(self.n_tracks)
        if choice == OVERALL:
            return f"threshold {self.overall:.3f}, {tuned}"
        if choice != PER_GENRE:
            return f"threshold {float(choice):g}, as given"
        if self.shrinkage and self.n_tracks:
            return f"per-genre thresholds, {tuned}; those of rare genres are shrunk towards {self.overall:.3f}"
        rare = [genre for genre, is_fallback in zip(genres, self.fallback, strict=True) if is_fallback]
        if not (self.n_tracks and rare):
            return f"per-genre thresholds, {tuned}"
        few = f"{len(rare)} of {len(genres)} genres have fewer than {self.min_support} of them"
        return f"per-genre thresholds, {tuned}; {few} and use {self.overall:.3f}: {join_names(rare, 10)}"

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Thresholds:
        per_genre, fallback = tuple(data["per_genre"]), tuple(data["fallback"])
        return cls(**{**data, "per_genre": per_genre, "fallback": fallback})


def threshold_value(choice: str) -> float:
    """Return the number that a choice of :meth:`Thresholds.cuts` stands for; NaN for ``overall`` and ``per-genre``.

    Raises
    ------
    ConfigError
        If it is none of these.
    """
    if choice in (OVERALL, PER_GENRE):
        return math.nan
    try:
        value = float(choice)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError(f"threshold {choice!r}: unknown. Use {OVERALL}, {PER_GENRE}, or a number from 0 to 1.")
    return value


def tune_thresholds(labels: npt.ArrayLike, scores: npt.ArrayLike, *, shrinkage: float = SHRINKAGE) -> Thresholds:
    """Tune thresholds on validation labels and scores.

    Parameters
    ----------
    labels : (N, C), true if the track has the genre.
    scores : (N, C) in [0, 1].
    shrinkage : k. A genre with n positives and the highest F1 at t gets ``overall + n / (n + k) (t - overall)``, since
        the best threshold on few positives is mostly noise.
    """
    truth, values = np.asarray(labels, dtype=np.bool_), np.asarray(scores, dtype=np.float64)
    n_tracks = len(truth)
    overall = best_jaccard_threshold(truth, values) if n_tracks else FIXED_THRESHOLD
    support = truth.sum(axis=0)
    per_genre = [
        overall + n / (n + shrinkage) * (best_f1_threshold(truth[:, genre], values[:, genre]) - overall)
        if n
        else overall
        for genre, n in enumerate(support.tolist())
    ]
    return Thresholds(
        overall=overall,
        per_genre=tuple(per_genre),
        fallback=tuple((support == 0).tolist()),
        min_support=1,
        n_tracks=n_tracks,
        shrinkage=shrinkage,
    )


def best_jaccard_threshold(labels: BoolArray, scores: FloatArray) -> float:
    """Return the threshold with the highest mean Jaccard index over tracks; of equally good cuts the nearest to 0.5.

    Notes
    -----
    Let J(k) be the Jaccard index of a track if its k top-scoring genres are predicted. Lowering the threshold past the
    k-th score changes the index of that track by J(k) - J(k - 1), so the mean is a running sum over all scores in
    descending order. J(0) is 1 for a track without labels, else 0.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.cumsum(np.take_along_axis(labels, order, axis=1), axis=1)
    n_labels = labels.sum(axis=1, keepdims=True)
    k = np.arange(1, scores.shape[1] + 1)
    jaccard = hits / (k + n_labels - hits)
    before = np.concatenate([(n_labels == 0).astype(np.float64), jaccard[:, :-1]], axis=1)
    gain = (jaccard - before).ravel()
    return _best_cut(np.take_along_axis(scores, order, axis=1).ravel(), gain)


def best_f1_threshold(labels: BoolArray, scores: FloatArray) -> float:
    """Return the threshold with the highest F1 on (N,) labels and scores; of equally good cuts the nearest to 0.5."""
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(labels[order]) / (np.arange(1, len(scores) + 1) + labels.sum())
    return _best_cut(scores[order], np.diff(f1, prepend=0.0))


def _best_cut(scores: FloatArray, gain: FloatArray) -> float:
    """Return the cut that maximises the summed gain of the scores at or above it."""
    order = np.argsort(-scores, kind="stable")
    scores, total = scores[order], np.cumsum(gain[order])
    last_of_ties = np.flatnonzero(np.append(np.diff(scores) != 0, True))
    levels, total = scores[last_of_ties], total[last_of_ties]
    below = np.append(levels[1:], 0.0)
    # float32 would round the midpoint of very close scores to one of them, so the score itself is the cut there.
    cuts = np.where(levels - below > 1e-6, (levels + below) / 2, levels)
    best = np.flatnonzero(total >= total.max() - 1e-9)
    return float(cuts[best[np.argmin(np.abs(cuts[best] - FIXED_THRESHOLD))]])
