"""Compute mean and standard deviation of many values in one pass. Commands import this module before torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Moments:
    """Mean and standard deviation of blocks of values, in one pass.

    Attributes
    ----------
    n, mean : number of values so far and their mean, () or (...) float64.

    Notes
    -----
    Blocks are merged by the update of Chan, Golub and LeVeque (1979), which avoids cancellation.
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean: npt.NDArray[np.float64] = np.zeros(())
        self._squares: npt.NDArray[np.float64] = np.zeros(())

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Add a block (n, ...)."""
        mean, total = values.mean(axis=0), self.n + len(values)
        delta = mean - self.mean
        self._squares = self._squares + (((values - mean) ** 2).sum(axis=0) + delta**2 * self.n * len(values) / total)
        self.mean = self.mean + delta * len(values) / total
        self.n = total

    @property
    def std(self) -> npt.NDArray[np.float64]:
        return np.asarray(np.sqrt(self._squares / max(1, self.n)))
