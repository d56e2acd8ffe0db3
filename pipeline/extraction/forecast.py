"""Forecast of an extraction's duration and size, and its file next to the store.

:mod:`mgc.pipeline.extraction.trial` computes the forecast.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ...cache.durable import replace_file, seal, unseal
from ...cache.errors import MgcError
from ...cache.format.recipe import Recipe

IN_PROCESS_S = 20.0
"""Forecast work, in seconds on one core, below which worker processes cost more than they save."""
_MEL_S, _SLOWER_BACKEND = 1.3e-3, 1.7
"""CPU seconds per second of a clip (benchmarks/speed/speed.md), and the ratio of the librosa backend."""
_LYRICS_TOKENS, _FLOPS = 300, {"int8": 1e11, "bf16": 1e11, "fp32": 0.5e11}
"""Tokens of typical lyrics, and operations per second of one core."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Predicted duration and size of an extraction.

    Attributes
    ----------
    tracks, parts, part_rows, workers : of the extraction.
    seconds, low_s, high_s : predicted duration and its 95 % confidence interval, which covers sampling error only.
    n_bytes : size of the store.
    track_s, start_s : duration per track on one worker, and duration of the start-up.
    sampled, failed : tracks in the sample, and how many of them failed.
    memory_bytes : largest memory of a worker in the sample, without its decoder child.
    measured_workers : workers that extracted the sample; if fewer than `workers`, linear scaling is assumed.
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
    memory_bytes: int
    measured_workers: int

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def trial_s(self) -> float:
        """Duration of the trial, about: start-up and the sample."""
        return self.start_s + self.sampled / max(1, self.measured_workers) * self.track_s

    def of_parts(self, n: int) -> Self:
        """Return the forecast for the last `n` parts, when the store already has the others."""
        share = parts_per_worker(n, self.workers) / parts_per_worker(self.parts, self.workers)
        times = {
            name: round(self.start_s + (getattr(self, name) - self.start_s) * share, 1)
            for name in ("seconds", "low_s", "high_s")
        }
        return dataclasses.replace(self, parts=n, tracks=min(self.tracks, n * self.part_rows), **times)

    def save(self, store: Path) -> Path:
        """Write the forecast to a file next to the store; return its path."""
        path = forecast_path(store)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, seal(self.to_dict()))
        return path


def rough_work_s(recipe: Recipe, n_tracks: int, n_lyrics: int) -> float:
    """Return roughly how many seconds one core needs for a recipe, without a trial.

    A transformer of width h is assumed to have h / 64 layers of ``24 h^2`` operations per token.
    """
    seconds = 0.0
    if recipe.mel is not None:
        slower = _SLOWER_BACKEND if recipe.mel.backend == "librosa" else 1.0
        seconds += n_tracks * recipe.mel.clip_s * _MEL_S * slower
    if recipe.lyrics is not None:
        operations = 24 * recipe.lyrics.hidden_size**3 / 64 * _LYRICS_TOKENS
        seconds += n_lyrics * operations / _FLOPS[recipe.lyrics.precision]
    return seconds


def forecast_path(store: Path) -> Path:
    """Return the path of a store's forecast file."""
    return store.with_name(f"{store.name}.forecast.json")


def load_forecast(store: Path) -> Forecast | None:
    """Return a store's forecast; None if the file is missing, damaged or of another version."""
    try:
        document = unseal(forecast_path(store))
        return Forecast(**{field.name: document[field.name] for field in dataclasses.fields(Forecast)})
    except (OSError, MgcError, KeyError):
        return None


def parts_per_worker(parts: int, workers: int) -> int:
    """Return the number of parts of the busiest worker."""
    return math.ceil(parts / max(1, workers))
