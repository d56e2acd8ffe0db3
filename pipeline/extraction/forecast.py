"""What extracting a collection will take: a sample of it goes, by the same code, into a store that is thrown away.

Every worker's first part brings its start-up along (processes, the encoder's weights); the others say what a track
costs.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ...cache.durable import replace_file, seal, unseal
from ...cache.errors import MgcError

PARTS_A_WORKER = 4
"""Parts that each worker gets of a sample, so that most of them are not its first."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What an extraction is predicted to take, and from what.

    Attributes
    ----------
    tracks, parts, part_rows, workers : of the extraction.
    seconds, low_s, high_s : predicted; the range is what chance in the choice of the sample explains (95 %), no more.
    n_bytes : of the store.
    track_s, start_s : a track on one of the workers; what comes once.
    sampled, failed : tracks that were tried, and those of them that failed.
    measured_workers : workers that the sample ran on; if fewer than `workers`, the others are taken to be as fast.
    """

    tracks: int
    parts: int
    part_rows: int
    workers: int
    seconds: float
    low_s: float
    high_s: float
    n_bytes: int
    track_s: float
    start_s: float
    sampled: int
    failed: int
    measured_workers: int

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def of_parts(self, n: int) -> Self:
        """The same for `n` parts only: an extraction that found the others there."""
        share = _busiest(n, self.workers) / _busiest(self.parts, self.workers)
        low, middle, high = (
            round(self.start_s + (value - self.start_s) * share, 1) for value in (self.low_s, self.seconds, self.high_s)
        )
        return dataclasses.replace(self, parts=n, tracks=min(self.tracks, n * self.part_rows), seconds=middle,
                                   low_s=low, high_s=high)  # fmt: skip

    def save(self, store: Path) -> Path:
        """Write it beside the store that it is about; returns where."""
        path = forecast_path(store)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, seal(self.to_dict()))
        return path


def forecast_path(store: Path) -> Path:
    """Where the prediction for a store lies: beside it."""
    return store.with_name(f"{store.name}.forecast.json")


def load_forecast(store: Path) -> Forecast | None:
    """What was predicted for a store; None where nothing was, or the file is damaged or another version's."""
    try:
        found = unseal(forecast_path(store))
        return Forecast(**{one.name: found[one.name] for one in dataclasses.fields(Forecast)})
    except (OSError, MgcError, KeyError):
        return None


def _busiest(parts: int, workers: int) -> int:
    """Parts that the busiest of the workers gets."""
    return math.ceil(parts / max(1, workers))
