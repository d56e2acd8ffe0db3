"""Measure calibration: whether about 30 % of the pairs with a score near 0.3 are positive.

A model may rank well with badly calibrated scores. Tuned thresholds correct its decisions, not its scores. Every
(track, genre) pair is one binary prediction; pairs are binned by score.

Shapes: N tracks, C genres, M bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..results import Result, json_value
from .bootstrap import FloatArray, IntArray, ratio
from .multilabel import check_same_shape, label_matrix

N_BINS = 15
"""Number of bins of equal width, as in Guo et al. 2017."""


@dataclass(frozen=True, kw_only=True)
class Calibration(Result):
    """Deviation of scores from observed frequencies.

    Attributes
    ----------
    counts : (M,) pairs in each bin ``[m/M, (m+1)/M)``; a score of 1 is in the last bin.
    mean_score, observed : (M,) mean score of the pairs of a bin, and the share of positives; NaN in an empty bin.
    expected_error : expected calibration error over all pairs.
    classwise_error : expected calibration error per genre, averaged over genres. Rare genres, whose pairs are nearly
        all easy, count as much as frequent ones. Genres without a positive count too; any score of theirs is too high.
    brier : mean squared difference of score and label.
    brier_prior : the same with the share of positives of each genre as its score.

    Notes
    -----
    Expected calibration error: ``sum_m |B_m| / n * |observed(B_m) - mean_score(B_m)|`` (Guo et al., "On Calibration of
    Modern Neural Networks", ICML 2017, Eq. 3, with the score of the positive class for the confidence). Class-wise:
    Kull et al., "Beyond temperature scaling", NeurIPS 2019. Both depend on the bins and are biased upwards on few
    pairs. Brier score: Brier 1950.
    """

    counts: IntArray
    mean_score: FloatArray
    observed: FloatArray
    expected_error: float
    classwise_error: float
    brier: float
    brier_prior: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; undefined values of an empty bin are null."""
        edges = np.linspace(0, 1, len(self.counts) + 1).round(6)
        columns = (edges[:-1], edges[1:], self.counts, self.mean_score, self.observed)
        names = ("low", "high", "n", "mean_score", "observed")
        values: dict[str, Any] = json_value(
            {
                "n_pairs": self.counts.sum(),
                "expected_calibration_error": self.expected_error,
                "classwise_calibration_error": self.classwise_error,
                "brier": self.brier,
                "brier_of_genre_shares": self.brier_prior,
                "bins": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)],
            }
        )
        return values


def calibration(labels: npt.ArrayLike, scores: npt.ArrayLike, *, n_bins: int = N_BINS) -> Calibration:
    """Measure the calibration of a system.

    Parameters
    ----------
    labels : (N, C) 0/1.
    scores : (N, C) in [0, 1].

    Raises
    ------
    ValueError
        If shapes disagree, or a score is not in [0, 1].
    """
    y, s = label_matrix(labels), np.asarray(scores, dtype=np.float64)
    check_same_shape(y, s)
    if not ((s >= 0) & (s <= 1)).all():
        raise ValueError("calibration needs scores in [0, 1]")
    n_genres = y.shape[1]
    bin_of = np.minimum((s * n_bins).astype(np.int64), n_bins - 1)
    cell = (bin_of + n_bins * np.arange(n_genres)).ravel()  # (genre, bin)

    hits, sums = (
        np.bincount(cell, values.ravel(), minlength=n_genres * n_bins).reshape(n_genres, n_bins) for values in (y, s)
    )
    counts = np.bincount(bin_of.ravel(), minlength=n_bins)
    n_pairs = y.size or math.nan
    return Calibration(
        counts=counts,
        mean_score=ratio(sums.sum(axis=0), counts),
        observed=ratio(hits.sum(axis=0), counts),
        expected_error=float(np.abs(hits.sum(axis=0) - sums.sum(axis=0)).sum()) / n_pairs,
        classwise_error=float(np.abs(hits - sums).sum()) / n_pairs,
        brier=float(((s - y) ** 2).sum()) / n_pairs,
        brier_prior=float(((y - y.mean(axis=0, keepdims=True)) ** 2).sum() if len(y) else 0.0) / n_pairs,
    )
