"""Results of a prediction: the genres of one track, those of all, and files with the scores of windows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.errors import ConfigError
from ..cache.messages import counted
from .shared import extra

if TYPE_CHECKING:
    from ..heads.evaluation.prediction_files import PredictedBlock
    from ..heads.evaluation.timeline import AddTimeline, Timeline
    from ..pipeline.sources.manifest import Source

MANY_SONGS = 32
"""Number of songs (or windows) from which worker processes pay off."""

PAGE = ".html"
MAX_SONGS_ON_PAGE = 50


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted genres of one track. A track that could not be decoded has a reason code and no scores.

    Attributes
    ----------
    zero_shot : scores of genres that the model was not trained on, by name; these are never in `genres`.
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
    zero_shot: dict[str, float] = field(default_factory=dict)

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


def in_source_order(result: Predictions, source: Source) -> Predictions:
    """Return predictions in the order of the songs, which a store sorts by id, with the notes of the source."""
    place = {track.id: i for i, track in enumerate(source.tracks)}
    ordered = sorted(result.predictions, key=lambda song: place[song.id])
    return dataclasses.replace(result, predictions=ordered, remarks=[*source.notes, *result.remarks])


def workers_for(source: Source, workers: int | None) -> int | None:
    """Return 0 for few songs, for which starting processes does not pay off, unless `workers` are given."""
    return 0 if workers is None and len(source.tracks) < MANY_SONGS else workers


def collect(blocks: Iterator[PredictedBlock], output: Path | None) -> Predictions:
    from ..heads.evaluation.prediction_files import predicted_rows, write_predictions

    if output is not None:
        n_tracks, reasons = write_predictions(output, blocks)
        return Predictions(predictions=[], output=str(output), n_tracks=n_tracks, reasons=reasons)
    predictions = [Prediction(**row) for block in blocks for row in predicted_rows(block)]
    failed = Counter(track.reason for track in predictions if track.reason and not track.scores)
    return Predictions(predictions=predictions, n_tracks=len(predictions), reasons=failed)


def refuse_other_timeline(path: Path | None, n_songs: int = 1) -> None:
    """Raise :class:`ConfigError` unless `path` is None, or has the suffix of a timeline that can show `n_songs`.

    Raises
    ------
    MissingExtraError
        If `path` is a page, and the extra ``report`` is not installed.
    """
    if path is None:
        return
    from ..heads.evaluation.timeline import WRITERS

    suffix, suffixes = path.suffix.lower(), (*WRITERS, PAGE)
    if suffix not in suffixes:
        raise ConfigError(f"{path}: unknown format of a timeline. Use one of the suffixes {', '.join(suffixes)}.")
    if suffix == PAGE:
        from ..reports.html import environment

        environment()
        if n_songs > MAX_SONGS_ON_PAGE:
            songs = counted(n_songs, "song")
            raise ConfigError(
                f"{path}: {songs}, a page shows up to {MAX_SONGS_ON_PAGE}. Use .parquet, or give fewer songs."
            )


@contextmanager
def timeline_file(path: Path | None, genres: Sequence[str], about: Sequence[str]) -> Iterator[AddTimeline]:
    """Yield a function that adds a song to the timeline `path`, which appears at the end; with None, it adds nothing.

    Parameters
    ----------
    about : lines on the model, for a page.
    """
    if path is None:
        yield lambda _: None
    elif path.suffix.lower() != PAGE:
        from ..heads.evaluation.timeline import write_timelines

        with write_timelines(path, genres) as add:
            yield add
    else:
        with extra("report"):
            from ..reports.timeline import write_timeline_page
        songs: list[Timeline] = []
        yield songs.append
        write_timeline_page(path, genres, songs, about)
