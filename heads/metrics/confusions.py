"""Confusions of a multi-label system: where a genre was missed, which genre was predicted that the track has not.

A track has several genres, so there is no one right answer that another took the place of. What can be counted is how
often a miss and a false alarm fall on one track; that says which genres are taken for which, not why.

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
    support, missed : (C,) tracks that have a genre, and those of them for which it was not predicted.
    taken_for : (C, C) of the missed of the row's genre, those for which the column's was predicted wrongly. One track
        may count in several columns. 0 on the diagonal.
    alone : (C,) of the missed, those for which nothing was predicted wrongly.
    """

    support: IntArray
    missed: IntArray
    taken_for: IntArray
    alone: IntArray

    @property
    def shares(self) -> FloatArray:
        """(C, C) of each row's missed tracks; NaN where none was missed."""
        return ratio(self.taken_for, self.missed[:, None])

    def pairs(self) -> list[tuple[int, int]]:
        """Every pair (missed, predicted) that occurs: the most tracks first, then the largest share."""
        rows, columns = np.nonzero(self.taken_for)
        order = np.lexsort((-self.shares[rows, columns], -self.taken_for[rows, columns]))
        return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def confusions(labels: BoolArray, predicted: BoolArray) -> Confusions:
    """Count, from (N, C) labels and (N, C) decisions."""
    misses, alarms = labels & ~predicted, predicted & ~labels
    nothing_wrong = np.logical_not(alarms.any(axis=1))
    return Confusions(
        support=labels.sum(axis=0),
        missed=misses.sum(axis=0),
        taken_for=misses.T.astype(np.int64) @ alarms.astype(np.int64),
        alone=misses[nothing_wrong].sum(axis=0),
    )
