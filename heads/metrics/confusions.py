"""Count the confusions of a multi-label system: genres predicted instead of a missed genre.

A track has several genres, so no single prediction replaces the missed one. A confusion here is a pair of a missed
genre and a wrongly predicted genre on the same track.

Shapes: N tracks, C genres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bootstrap import BoolArray, FloatArray, IntArray, ratio


@dataclass(frozen=True, kw_only=True)
class Confusions:
    """Counts of tracks.

    Attributes
    ----------
    support : (C,) tracks with the genre.
    missed : (C,) tracks with the genre for which it was not predicted.
    predicted_instead : (C, C) tracks that missed the genre of the row and for which the genre of the column was
        predicted wrongly. A track may count in several columns. 0 on the diagonal.
    without_wrong : (C,) missed tracks without any wrong prediction.
    """

    support: IntArray
    missed: IntArray
    predicted_instead: IntArray
    without_wrong: IntArray

    @property
    def shares(self) -> FloatArray:
        """(C, C) shares of each row's missed tracks; NaN where none was missed."""
        return ratio(self.predicted_instead, self.missed[:, None])

    def pairs(self) -> list[tuple[int, int]]:
        """Return all pairs (missed, predicted) that occur, by number of tracks, then by share, in descending order."""
        rows, columns = np.nonzero(self.predicted_instead)
        order = np.lexsort((-self.shares[rows, columns], -self.predicted_instead[rows, columns]))
        return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def confusions(labels: BoolArray, predicted: BoolArray) -> Confusions:
    """Count the confusions of (N, C) decisions against (N, C) labels."""
    misses, alarms = labels & ~predicted, predicted & ~labels
    nothing_wrong = np.logical_not(alarms.any(axis=1))
    return Confusions(
        support=labels.sum(axis=0),
        missed=misses.sum(axis=0),
        predicted_instead=misses.T.astype(np.int64) @ alarms.astype(np.int64),
        without_wrong=misses[nothing_wrong].sum(axis=0),
    )
