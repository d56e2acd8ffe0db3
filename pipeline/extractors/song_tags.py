"""Tags of one song by musicnn, for each window of 3 s, without a store.

Shapes: W windows, 50 tags.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...cache.errors import ClipError
from ...cache.format.recipe import MelRecipe
from ...cache.format.schema import Flag, Reason
from ...cache.steps import Progress, silent
from ..audio.clip_reader import ClipReader, ClipSamples
from .musicnn import HOP, SAMPLE_RATE_HZ, TAGS, WINDOW_FRAMES, network, windows_of

WINDOW_S = WINDOW_FRAMES * HOP / SAMPLE_RATE_HZ  # 2.992
_WINDOWS_PER_CLIP = 10
CLIP = MelRecipe(sample_rate_hz=SAMPLE_RATE_HZ, fmax_hz=SAMPLE_RATE_HZ / 2)
"""Recipe of the clips that are decoded: 30 s, so 10 windows."""


@dataclass(frozen=True, kw_only=True)
class SongTags:
    """Tags of the windows of a song.

    Attributes
    ----------
    starts_s, ends_s : (W,) float64, in the song.
    scores : (W, 50) float32 probabilities of :data:`TAGS`; NaN for windows that cannot be read.
    flags : of all decoded clips.
    failures : start of an unreadable clip in s -> its error.
    reasons : (W,) reason codes; None for a window with scores.
    """

    starts_s: npt.NDArray[np.float64]
    ends_s: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float32]
    flags: Flag
    failures: dict[float, ClipError]
    reasons: list[str | None]


def tag_song(
    reader: ClipReader,
    path: Path,
    *,
    whole: bool,
    stop: threading.Event | None = None,
    on_progress: Progress = silent,
) -> SongTags:
    """Return the tags of the middle 30 s of a song, or of the `whole` song, which is decoded once, 30 s at a time.

    Parameters
    ----------
    reader : of `CLIP`, in the form ``samples``.
    stop : ends the work after the current clip, with SystemExit.
    on_progress : receives the number of windows with scores, and their total.

    Raises
    ------
    ClipError
        If the first clip cannot be read, with its reason; ``EXTRACTOR_FAILED`` for scores that are not finite.
    """
    clip = reader.read_samples(path, 0.0 if whole else None)
    first_s, seconds, flags = clip.offset_s, clip.seconds, clip.flags
    parts = [_scores(clip)]
    failures: dict[float, ClipError] = {}
    reasons: list[str | None] = [None] * len(parts[0])
    n_windows = max(len(parts[0]), int(seconds / WINDOW_S + 1e-6)) if whole else len(parts[0])
    for first in range(len(parts[0]), n_windows, _WINDOWS_PER_CLIP):
        if stop is not None and stop.is_set():
            raise SystemExit
        on_progress("windows", first, n_windows)
        n_left = min(_WINDOWS_PER_CLIP, n_windows - first)
        scores = np.full((n_left, len(TAGS)), np.nan, np.float32)
        try:
            clip = reader.read_samples(path, first * WINDOW_S)
            read = _scores(clip)[:n_left]
            scores[: len(read)] = read
            flags |= clip.flags
            if len(read) < n_left:
                raise ClipError(Reason.DECODE_ERROR, "fewer samples than the length of the file")
        except ClipError as error:
            failures[first * WINDOW_S] = error
        parts.append(scores)
        reason = failures[first * WINDOW_S].reason if first * WINDOW_S in failures else None
        reasons += [reason if is_missing else None for is_missing in np.isnan(scores[:, 0]).tolist()]
    on_progress("windows", n_windows, n_windows)
    if n_windows > _WINDOWS_PER_CLIP and whole:
        flags &= ~Flag.SHORT  # of the last clip
    starts_s = first_s + WINDOW_S * np.arange(n_windows, dtype=np.float64)
    return SongTags(
        starts_s=starts_s,
        ends_s=np.minimum(starts_s + WINDOW_S, seconds),
        scores=np.concatenate(parts),
        flags=flags,
        failures=failures,
        reasons=reasons,
    )


def _scores(clip: ClipSamples) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        scores = network()(windows_of(clip.samples))[1]
    if not np.isfinite(scores).all():
        raise ClipError(Reason.EXTRACTOR_FAILED, "musicnn: values that are not finite")
    return scores
