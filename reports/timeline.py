"""Page with the scores of songs over time, next to an audio player."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.messages import counted
from ..heads.evaluation.timeline import Timeline
from .html import audio_url, environment, policy, static, write_page

MAX_ROWS = 12
"""Maximum number of genres drawn per song: those with the highest score in any window."""
_TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
_MAX_TICKS = 6
_TICK_ROOM = 0.1
"""Share of the axis at its end that is left to the label of the last tick."""


def write_timeline_page(page: Path, genres: Sequence[str], songs: Sequence[Timeline], about: Sequence[str]) -> Path:
    """Write a page with a heat map per song (windows by genres), and return its path.

    The page refers to audio files by relative paths, so page and audio can move together.

    Parameters
    ----------
    about : lines on the model.
    """
    script = static("report.js") + static("timeline.js")
    return write_page(
        page,
        "timeline.html",
        title=Path(songs[0].id).name if len(songs) == 1 else counted(len(songs), "song"),
        about=about,
        n_genres=len(genres),
        songs=[_song(song, genres, page.parent) for song in songs],
        script=script,
        policy=policy(script),
        style=f"{environment().globals['style']}{static('timeline.css')}",
    )


def clock(seconds: float) -> str:
    """Return a time as in audio players.

    >>> clock(83.9), clock(3605)
    ('1:23', '1:00:05')
    """
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _song(song: Timeline, genres: Sequence[str], folder: Path) -> dict[str, Any]:
    facts = {
        "name": Path(song.id).name,
        "id": song.id,
        "source": audio_url(song.file, folder) if song.file.is_file() else None,
    }
    has_scores = ~np.isnan(song.scores[:, 0])
    if not has_scores.any():
        return {**facts, "rows": [], "reason": song.reasons[0]}
    means, highest = np.nanmean(song.scores, axis=0), np.nanmax(song.scores, axis=0)
    drawn = np.argsort(-highest, kind="stable")[:MAX_ROWS]
    drawn = drawn[np.argsort(-means[drawn], kind="stable")]
    scale = float(highest.max()) or 1.0
    end_s = float(song.ends_s.max())
    widths_s = np.diff(np.append(song.starts_s, song.ends_s[-1]))
    return {
        **facts,
        "end_s": end_s,
        "scale": scale,
        "ticks": [(100 * tick / end_s, clock(tick)) for tick in ticks(end_s)],
        "rows": [
            {
                "genre": genres[column],
                "mean": float(means[column]),
                "cells": [
                    (song.starts_s[i], widths_s[i], song.scores[i, column] / scale)
                    for i in np.flatnonzero(has_scores)
                    if song.scores[i, column] >= 0.005 * scale
                ],
            }
            for column in drawn
        ],
        "gaps": [(song.starts_s[i], widths_s[i]) for i in np.flatnonzero(~has_scores)],
        "windows": [
            {
                "start_s": float(song.starts_s[i]),
                "time": clock(song.starts_s[i]),
                "reason": song.reasons[i],
                "scores": song.scores[i, drawn].tolist() if has_scores[i] else [None] * len(drawn),
            }
            for i in range(len(song.scores))
        ],
    }


def ticks(end_s: float) -> Sequence[int]:
    """Return the positions, in s, of the ticks of an axis from 0 to `end_s`."""
    step = next((step for step in _TICK_STEPS_S if end_s / step < _MAX_TICKS), _TICK_STEPS_S[-1])
    return range(0, int(end_s - _TICK_ROOM * end_s) + 1, step)
