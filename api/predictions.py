"""Results of a prediction: the genres of one track, and those of all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted genres of one track. A track that could not be decoded has a reason code and no scores.

    Attributes
    ----------
    windows, failed_windows : of a whole song (``windows="all"``), the number of windows in the mean, and of those that
        could not be decoded; ``detail`` describes the first of these. None for one clip.
    """

    id: str
    genres: list[str]
    scores: dict[str, float]
    flags: list[str]
    reason: str | None = None
    detail: str | None = None
    windows: int | None = None
    failed_windows: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_row(self) -> dict[str, Any]:
        """Return one value per column, as in the CSV file that :func:`predict` writes."""
        from ..heads.evaluation.prediction_files import flat_row

        row = self.to_dict()
        return flat_row(row if self.windows is not None else {k: v for k, v in row.items() if "windows" not in k})


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions in the order of the tracks, and remarks for the user.

    Attributes
    ----------
    predictions : empty where they were written to a file.
    output : that file.
    n_tracks, reasons : number of tracks, and of failed tracks per reason code.
    """

    predictions: list[Prediction]
    remarks: list[str] = field(default_factory=list)
    output: str | None = None
    n_tracks: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_failed(self) -> int:
        return sum(self.reasons.values())

    def to_dict(self) -> dict[str, Any]:
        counts = {"tracks": self.n_tracks, "failed": self.n_failed, "reasons": dict(self.reasons)}
        songs = [prediction.to_dict() for prediction in self.predictions]
        result = {"predictions": songs} if self.output is None else {"output": self.output}
        return {**result, **counts, "remarks": self.remarks}
