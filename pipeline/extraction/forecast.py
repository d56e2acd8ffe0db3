"""What an extraction is predicted to take, and the file next to the store that holds it.

:mod:`mgc.pipeline.extraction.trial` makes the prediction.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ...cache.durable import replace_file, seal, unseal
from ...cache.errors import MgcError


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A prediction of what an extraction takes.

    Attributes
    ----------
    tracks, parts, part_rows, workers : of the extraction.
    seconds, low_s, high_s : predicted duration; the range covers chance in the choice of the sample (95 %), no more.
    n_bytes : size of the store.
    track_s, start_s : duration per track on one worker, and of what comes once.
    sampled, failed : tracks that were tried, and those of them that failed.
    measured_workers : workers that the sample ran on; if fewer than `workers`, the others are assumed to be as fast.
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
        """Return the prediction for `n` parts only, when the others are in the store already."""
        share = parts_per_worker(n, self.workers) / parts_per_worker(self.parts, self.workers)
        times = {
            name: round(self.start_s + (getattr(self, name) - self.start_s) * share, 1)
            for name in ("seconds", "low_s", "high_s")
        }
        return dataclasses.replace(self, parts=n, tracks=min(self.tracks, n * self.part_rows), **times)

    def save(self, store: Path) -> Path:
        """Write it next to the store that it is about; return the file."""
        path = forecast_path(store)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, seal(self.to_dict()))
        return path


def forecast_path(store: Path) -> Path:
    """Return the file of the prediction for a store, which is next to the store."""
    return store.with_name(f"{store.name}.forecast.json")


def load_forecast(store: Path) -> Forecast | None:
    """Return the prediction for a store; None if there is none, or the file is damaged or of another version."""
    try:
        document = unseal(forecast_path(store))
        return Forecast(**{field.name: document[field.name] for field in dataclasses.fields(Forecast)})
    except (OSError, MgcError, KeyError):
        return None


def parts_per_worker(parts: int, workers: int) -> int:
    """Return the number of parts of the worker that gets most of them."""
    return math.ceil(parts / max(1, workers))
