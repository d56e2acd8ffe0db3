"""Exact search for the nearest vectors by cosine similarity, and for all pairs above a similarity.

Products are in float32, in blocks. Candidates within the rounding error of the cut are compared in float64, so the
result is that of a search in float64.

Shapes: n vectors, D values.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ...cache.steps import Progress, silent

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_BLOCK_ROWS = 8192
_PAIR_ROWS = 2048


class Cosine:
    """Cosine similarity to the vectors of a collection, which are scaled in place.

    Parameters
    ----------
    vectors : (n, D) float32, finite; overwritten.
    standardise : subtract the mean of the collection, and divide by the standard deviation per value. Features in dB
        or of a network have a mean that makes all cosines nearly 1.
    """

    def __init__(self, vectors: Float32, *, standardise: bool) -> None:
        self._vectors = vectors
        self._shift: Float64 | None = None
        if standardise and len(vectors):
            self._shift = np.mean(vectors, axis=0, dtype=np.float64)
            squares = sum(((block - self._shift) ** 2).sum(axis=0) for _, block in self._blocks())
            std = np.sqrt(squares / len(vectors))
            self._scale = np.where(std > 1e-6 * max(1e-30, float(std.max())), std, np.inf)  # constants do not count
        for start, block in self._blocks():
            vectors[start : start + len(block)] = self.scaled(block)

    def __len__(self) -> int:
        return len(self._vectors)

    def scaled(self, vectors: npt.NDArray[np.floating]) -> Float64:
        """Return (m, D) vectors as they are compared: with unit length, or 0."""
        values = vectors.astype(np.float64)
        if self._shift is not None:
            values = (values - self._shift) / self._scale
        norm = np.linalg.norm(values, axis=1, keepdims=True)
        scaled: Float64 = np.divide(values, norm, out=np.zeros_like(values), where=norm > 0)
        return scaled

    def nearest(self, query: npt.NDArray[np.floating], k: int) -> tuple[Index, Float64]:
        """Return positions and similarities of the `k` nearest vectors, nearest first; ties in order of position.

        Parameters
        ----------
        query : (D,), not scaled.

        Notes
        -----
        The work is n D products; memory besides the vectors is one float32 per vector.
        """
        scaled = self.scaled(query[None])[0]
        k = min(k, len(self))
        if not k:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        rough = np.empty(len(self), dtype=np.float32)
        for start, block in self._blocks():
            rough[start : start + len(block)] = block @ scaled.astype(np.float32)
        cut = np.partition(rough, len(rough) - k)[len(rough) - k]
        candidates = np.flatnonzero(rough >= cut - self._margin)
        exact = np.concatenate(
            [
                self._vectors[candidates[i : i + _BLOCK_ROWS]].astype(np.float64) @ scaled
                for i in range(0, len(candidates), _BLOCK_ROWS)
            ]
        )
        best = np.lexsort((candidates, -exact))[:k]
        return candidates[best], exact[best]

    def pairs(self, threshold: float, on_progress: Progress = silent) -> Iterator[tuple[int, int, float]]:
        """Yield positions i < j and the similarity of all pairs of at least `threshold`.

        The work is n^2 D / 2 products, in blocks of bounded memory.
        """
        n = len(self)
        for start in range(0, n, _PAIR_ROWS):
            rows = self._vectors[start : start + _PAIR_ROWS]
            for other in range(start, n, _PAIR_ROWS):
                columns = self._vectors[other : other + _PAIR_ROWS]
                near_i, near_j = np.nonzero(rows @ columns.T >= threshold - self._margin)
                for first in range(0, len(near_i), _PAIR_ROWS):
                    i, j = near_i[first : first + _PAIR_ROWS], near_j[first : first + _PAIR_ROWS]
                    exact = np.einsum("nd,nd->n", rows[i].astype(np.float64), columns[j].astype(np.float64))
                    keep = (start + i < other + j) & (exact >= threshold)
                    found = (start + i[keep], other + j[keep], exact[keep])
                    yield from zip(*(values.tolist() for values in found), strict=True)
            on_progress("compare", min(n, start + _PAIR_ROWS), n)

    @property
    def _margin(self) -> float:
        """Twice a bound of the error of a float32 product of unit vectors."""
        return 2.0 * float(self._vectors.shape[1] * np.finfo(np.float32).eps)

    def _blocks(self) -> Iterator[tuple[int, Float32]]:
        for start in range(0, len(self._vectors), _BLOCK_ROWS):
            yield start, self._vectors[start : start + _BLOCK_ROWS]
