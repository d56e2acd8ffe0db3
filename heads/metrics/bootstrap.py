"""Bootstrap over groups of tracks: the variation of a metric with the artists in the test split.

Whole groups (artists) are drawn with replacement, since tracks of one artist are similar. A track of a group drawn
twice counts twice. Metrics are computed from the number of draws of each group, so replicates are never materialised.

Shapes: N tracks, C genres, G groups, R replicates, V values per track.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..results import Result

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LEVEL = 0.95
FEW_GROUPS = 20
"""Number of groups (artists) below which there are no intervals, since so few do not represent other artists."""
_CHUNK_ELEMENTS = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Estimate(Result):
    """A value with its 95 % confidence interval; NaN if undefined or not requested."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """R draws of groups with replacement.

    Attributes
    ----------
    group_of : (N,) int64, group of each track, 0 .. G - 1.
    draws : (R, G) float64, number of draws of each group.
    """

    group_of: IntArray
    draws: FloatArray

    @classmethod
    def of(cls, groups: npt.ArrayLike, n_replicates: int, seed: int) -> Resampling:
        """Draw the replicates.

        The same groups and seed give the same draws, so that systems can be compared per replicate. With fewer than
        `FEW_GROUPS` groups there are no replicates, and therefore no intervals.
        """
        names, group_of = np.unique(np.asarray(groups), return_inverse=True)
        n_groups = len(names)
        draws = np.zeros((0, n_groups))
        if n_groups >= FEW_GROUPS and n_replicates:
            rng, shares = np.random.default_rng(seed), np.full(n_groups, 1.0 / n_groups)
            draws = rng.multinomial(n_groups, shares, size=n_replicates).astype(np.float64)
        return cls(group_of=group_of.reshape(-1).astype(np.int64), draws=draws)

    @property
    def n_groups(self) -> int:
        return int(self.draws.shape[1])

    @property
    def n_replicates(self) -> int:
        return int(self.draws.shape[0])

    def sums(self, values: npt.ArrayLike) -> FloatArray:
        """Return (R,) or (R, V) sums over the tracks of each replicate, from (N,) or (N, V) values per track."""
        values = np.asarray(values, dtype=np.float64)
        by_group = np.zeros((self.n_groups, *values.shape[1:]))
        np.add.at(by_group, self.group_of, values)
        return np.asarray(self.draws @ by_group, dtype=np.float64)

    def means(self, values: npt.ArrayLike) -> FloatArray:
        """Return (R,) means over the tracks of each replicate, from (N,) values per track."""
        return self.sums(values) / self.sums(np.ones(len(self.group_of)))

    def ranking(self, labels: BoolArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (R,) mean average precision and (R,) macro ROC-AUC, from (N, C) labels and scores.

        The mean of a replicate is over the genres with a positive (for ROC-AUC also a negative) in that replicate.
        """
        precision, auc = np.full((2, self.n_replicates, labels.shape[1]), np.nan)
        if self.n_replicates:
            for genre in range(labels.shape[1]):
                curve = RankCurve(labels[:, genre], scores[:, genre], self.group_of, self.n_groups)
                precision[:, genre], auc[:, genre] = curve.areas(self.draws)
        return nan_mean(precision), nan_mean(auc)


class RankCurve:
    """Tracks of one genre in descending order of score, in bins whose weights determine both areas.

    A bin holds either all tracks with the score of some positive, or all tracks between two such scores. Recall changes
    at positives only, so these bins suffice. One sparse product gives the weights of all bins in all replicates.
    """

    def __init__(self, labels: BoolArray, scores: FloatArray, group_of: IntArray, n_groups: int) -> None:
        from scipy.sparse import csr_array

        order = np.argsort(-scores, kind="stable")
        positive = labels[order]
        level = np.cumsum(np.diff(scores[order], prepend=np.inf) != 0) - 1
        level_has_positive = np.bincount(level, weights=positive) > 0
        steps_before: IntArray = np.cumsum(level_has_positive) - level_has_positive
        bin_of = (2 * steps_before + level_has_positive)[level]
        shape = (int(2 * level_has_positive.sum() + 1), n_groups)
        cells = (bin_of, group_of[order])
        self._tracks = csr_array((np.ones(len(order)), cells), shape=shape)
        self._positives = csr_array((positive.astype(np.float64), cells), shape=shape)

    def areas(self, draws: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (R,) average precision and (R,) ROC-AUC with group g counted ``draws[r, g]`` times; NaN if undefined.

        Notes
        -----
        Definitions of ``sklearn.metrics.average_precision_score`` and ``roc_auc_score`` with ``sample_weight``: AP sums
        precision times the step in recall over distinct scores; ROC-AUC is the trapezoid rule over the same points.
        """
        step = max(1, _CHUNK_ELEMENTS // self._tracks.shape[0])
        chunks = [self._areas(draws[start : start + step]) for start in range(0, len(draws), step)]
        return np.concatenate([ap for ap, _ in chunks]), np.concatenate([auc for _, auc in chunks])

    def _areas(self, draws: FloatArray) -> tuple[FloatArray, FloatArray]:
        weights, steps = self._tracks @ draws.T, self._positives @ draws.T
        ranked, hits = np.cumsum(weights, axis=0), np.cumsum(steps, axis=0)
        precision = np.divide(hits, ranked, out=np.zeros_like(hits), where=ranked > 0)
        area = ((weights - steps) * (hits - steps / 2)).sum(axis=0)
        n_hits, n_misses = hits[-1], ranked[-1] - hits[-1]
        return ratio((steps * precision).sum(axis=0), n_hits), ratio(area, n_hits * n_misses)


def interval(replicates: FloatArray) -> tuple[float, float]:
    """Return the bounds of the central 95 % of the finite values of (R,) replicates; NaN, NaN if there are none."""
    defined = replicates[np.isfinite(replicates)]
    if len(defined) == 0:
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def estimate(value: float, replicates: FloatArray) -> Estimate:
    """Return a value with the interval of its (R,) replicates."""
    low, high = interval(replicates)
    return Estimate(value=value, low=low, high=high)


def nan_mean(values: FloatArray) -> FloatArray:
    """Return the mean of finite values over the last axis; NaN if there are none."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Divide; the denominator broadcasts to the numerator. The ratio is NaN where it is not positive."""
    a, b = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    shares: FloatArray = np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)
    return shares
