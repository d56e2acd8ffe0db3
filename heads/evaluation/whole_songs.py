"""Average the scores of a song over its windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...cache.format.schema import Flag
from .prediction_files import PredictedBlock

_WINDOW_FLAGS = Flag.SHORT.value
"""Flags that concern a window only: the last one is short unless its length divides that of the song."""


def mean_over_windows(
    windows: Iterable[PredictedBlock],
    *,
    songs: Sequence[str],
    song_of: Mapping[str, int],
    starts_s: Mapping[str, float],
    cuts: npt.NDArray[np.float64],
) -> PredictedBlock:
    """Return one block of songs from blocks of their windows.

    Parameters
    ----------
    songs : ids of the songs.
    song_of : index of the song by id of a window.
    starts_s : start of a window in s by its id, for songs with several windows.
    cuts : (C,) thresholds, applied to the mean.

    Returns
    -------
    PredictedBlock
        Its tracks have two more columns: ``windows`` (number of windows with scores) and ``failed_windows``. A song has
        the flags of all its windows. It fails only if all windows fail, with the reason code of the first. If some
        fail, ``detail`` describes the first failure.

    Notes
    -----
    ``score = sum_k score_k / n`` over the n windows with scores.
    """
    blocks = list(windows)
    tracks = pa.concat_tables([block.tracks for block in blocks]).to_pylist()
    has_scores = np.concatenate([block.has_scores for block in blocks])
    scores = np.concatenate([block.scores for block in blocks])
    owner = np.asarray([song_of[track["id"]] for track in tracks], dtype=np.int64)
    n_read = np.bincount(owner[has_scores], minlength=len(songs))
    n_failed = np.bincount(owner[~has_scores], minlength=len(songs))
    total = np.zeros((len(songs), scores.shape[1]))
    np.add.at(total, owner[has_scores], scores[has_scores].astype(np.float64))
    with np.errstate(invalid="ignore"):
        mean = (total / n_read[:, None]).astype(np.float32)  # 0 / 0 is NaN, which marks a song without scores
    rows = [
        {"id": song, "flags": 0, "reason": None, "detail": None, "windows": n, "failed_windows": failed}
        for song, n, failed in zip(songs, n_read.tolist(), n_failed.tolist(), strict=True)
    ]
    for track, song, is_read in zip(tracks, owner.tolist(), has_scores.tolist(), strict=True):
        row, is_window = rows[song], track["id"] in starts_s
        row["flags"] |= track["flags"] & ~_WINDOW_FLAGS if is_window else track["flags"]
        if not is_read and row["detail"] is None:
            _fail(row, track, starts_s.get(track["id"]))
    schema = blocks[0].tracks.schema.remove(blocks[0].tracks.schema.get_field_index("row"))
    for name in ("windows", "failed_windows"):
        schema = schema.append(pa.field(name, pa.int32()))
    return PredictedBlock(
        tracks=pa.Table.from_pylist(rows, schema=schema),
        genres=blocks[0].genres,
        has_scores=n_read > 0,
        scores=mean,
        predicted=(n_read > 0)[:, None] & (mean >= cuts),
        n_zero_shot=blocks[0].n_zero_shot,
    )


def _fail(row: dict[str, object], track: Mapping[str, object], start_s: float | None) -> None:
    """Write the first failed window to the row of its song."""
    if not row["windows"]:
        row["reason"] = track["reason"]
    window = "" if start_s is None else f"the window at {start_s:g} s: {track['reason']}: "
    row["detail"] = f"{window}{track['detail']}"
