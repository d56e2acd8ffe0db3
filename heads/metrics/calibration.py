"""Calibration: of the times that a genre gets a score near 0.3, is it there three times in ten?

A model that ranks well may still be wrong about how sure it is; thresholds tuned on validation tracks mend decisions,
not scores. Every (track, genre) pair is one yes-or-no prediction; pairs are binned by score.

Shapes: N tracks, C genres, M bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cache.durable import finite_or_none
from .multilabel import FloatArray, label_matrix

N_BINS = 15
"""Of equal width, as in Guo et al. 2017."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far scores are from frequencies.

    Attributes
    ----------
    counts : (M,) pairs in each bin ``[m/M, (m+1)/M)``; a score of 1 is in the last.
    mean_score, observed : (M,) mean score of a bin's pairs, and the share of them that are true; NaN in an empty bin.
    expected_error : expected calibration error over all pairs.
    classwise_error : the same of each genre's pairs, averaged over genres: rare genres, whose pairs are nearly all
        easy, count as much as frequent ones. Genres without a positive count too: there any score is too high.
    brier : mean squared difference of score and label; `brier_prior` that of each genre's own share as its score.

    Notes
    -----
    Expected calibration error: ``sum_m |B_m| / n * |observed(B_m) - mean_score(B_m)|`` (Guo et al., "On Calibration of
    Modern Neural Networks", ICML 2017, Eq. 3, with the score of "yes" for the confidence). Class-wise: Kull et al.,
    "Beyond temperature scaling", NeurIPS 2019. Both depend on the bins and have a bias upward on few pairs. Brier 1950.
    """

    counts: npt.NDArray[np.int64]
    mean_score: FloatArray
    observed: FloatArray
    expected_error: float
    classwise_error: float
    brier: float
    brier_prior: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values; an empty bin has null for what it does not know."""
        edges = np.linspace(0, 1, len(self.counts) + 1)
        return {
            "n_pairs": int(self.counts.sum()),
            "expected_calibration_error": finite_or_none(self.expected_error),
            "classwise_calibration_error": finite_or_none(self.classwise_error),
            "brier": finite_or_none(self.brier),
            "brier_of_genre_shares": finite_or_none(self.brier_prior),
            "bins": [
                {
                    "low": round(float(edges[m]), 6),
                    "high": round(float(edges[m + 1]), 6),
                    "n": int(self.counts[m]),
                    "mean_score": finite_or_none(self.mean_score[m]),
                    "observed": finite_or_none(self.observed[m]),
                }
                for m in range(len(self.counts))
            ],
        }


def calibration(labels: npt.ArrayLike, scores: npt.ArrayLike, *, n_bins: int = N_BINS) -> Calibration:
    """Bin the scores of a system.

    Parameters
    ----------
    labels : (N, C) 0/1.
    scores : (N, C) in [0, 1].

    Raises
    ------
    ValueError
        Shapes disagree, or a score is not in [0, 1].
    """
    y, s = label_matrix(labels), np.asarray(scores, dtype=np.float64)
    if s.shape != y.shape:
        raise ValueError(f"scores have shape {s.shape} but labels {y.shape}")
    if not ((s >= 0) & (s <= 1)).all():
        raise ValueError("scores must lie in [0, 1] for calibration to mean anything")
    n_genres = y.shape[1]
    bin_of = np.minimum((s * n_bins).astype(np.int64), n_bins - 1)
    cell = (bin_of + n_bins * np.arange(n_genres)).ravel()  # (genre, bin)

    def per_cell(values: npt.NDArray[Any] | None) -> FloatArray:
        weights = None if values is None else values.ravel().astype(np.float64)
        return np.bincount(cell, weights, minlength=n_genres * n_bins).reshape(n_genres, n_bins).astype(np.float64)

    counts, hits, sums = per_cell(None), per_cell(y), per_cell(s)
    total = counts.sum(axis=0)
    filled = total > 0
    return Calibration(
        counts=total.astype(np.int64),
        mean_score=_share(sums.sum(axis=0), total, filled),
        observed=_share(hits.sum(axis=0), total, filled),
        expected_error=_over(np.abs(hits.sum(axis=0) - sums.sum(axis=0)).sum(), y.size),
        classwise_error=_over(np.abs(hits - sums).sum(), y.size),
        brier=_over(((s - y) ** 2).sum(), y.size),
        brier_prior=_over(((y - y.mean(axis=0, keepdims=True)) ** 2).sum() if len(y) else 0.0, y.size),
    )


def _share(part: FloatArray, whole: FloatArray, where: npt.NDArray[np.bool_]) -> FloatArray:
    share: FloatArray = np.divide(part, whole, out=np.full(len(whole), np.nan), where=where)
    return share


def _over(total: float, n: int) -> float:
    return float(total) / n if n else float("nan")
