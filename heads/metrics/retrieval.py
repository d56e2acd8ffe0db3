"""Alignment of sound and lyrics by retrieval: of all lyrics, are a track's own among the nearest to its sound?

What the audio-lyrics loss trains (:mod:`mgc.heads.model.contrastive`), on tracks it has not seen: each track's sound
looks for its lyrics among those of all tracks that have both, and each track's lyrics for their sound.

Shapes: N tracks, P projection width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..results import Result
from .bootstrap import Estimate, FloatArray, IntArray, Resampling, estimate

RANKS = (1, 5, 10)
MAX_TRACKS = 20_000
"""More are drawn from: the work grows with their square, and the question gets harder with their number."""
DIRECTIONS = ("audio_to_lyrics", "lyrics_to_audio")

_CHUNK_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Alignment(Result):
    """Recall of both directions.

    Attributes
    ----------
    n_tracks : with sound and lyrics, which look for each other; `n_left_out` more had both (see :data:`MAX_TRACKS`).
    recall : by direction and k: the share of tracks whose own counterpart is among the k nearest.
    chance : by k: what a random order would reach.

    Notes
    -----
    Nearness is the score that the loss compares, ``g_a(E_a) . g_l(E_l)`` (Ru et al. 2023, section 2.4). As in the loss,
    other tracks with the same audio file or the same lyrics are no candidates. Among equal scores any order is as
    likely, so a model that says the same of everything is at chance.
    """

    n_tracks: int
    n_left_out: int
    recall: Mapping[str, Mapping[int, Estimate]]
    chance: Mapping[int, float]


def alignment(
    audio: npt.NDArray[np.float32],
    lyrics: npt.NDArray[np.float32],
    *,
    track_key: IntArray,
    lyrics_key: IntArray,
    groups: npt.ArrayLike,
    n_replicates: int = 1000,
    seed: int = 0,
) -> Alignment | None:
    """Recall at 1, 5 and 10; None where fewer than two tracks have sound and lyrics.

    Parameters
    ----------
    audio, lyrics : (N, P) embeddings of each track's sound and lyrics.
    track_key, lyrics_key : (N,) equal for equal audio files, equal lyrics; ``lyrics_key`` -1: no lyrics, left out.
    groups : (N,) what intervals resample: the artist. Who looks is resampled, not the candidates.
    seed : of the bootstrap, and of the draw where there are more than :data:`MAX_TRACKS`.
    """
    index = np.flatnonzero(lyrics_key >= 0)
    n_with_both = len(index)
    if n_with_both < 2:
        return None
    if n_with_both > MAX_TRACKS:
        index = np.sort(np.random.default_rng(seed).choice(index, MAX_TRACKS, replace=False))
    keys = track_key[index], lyrics_key[index]
    a, b = audio[index].astype(np.float64), lyrics[index].astype(np.float64)
    resampling = Resampling.of(np.asarray(groups)[index], n_replicates, seed)
    recall, n_candidates = {}, np.ones(len(index))
    for direction, (own, other) in zip(DIRECTIONS, ((a, b), (b, a)), strict=True):
        n_better, n_equal, n_candidates = _standing(own, other, keys)
        # Of the n_equal + 1 places from n_better on, those up to k are hits.
        hits = {k: np.clip((k - n_better) / (n_equal + 1), 0, 1) for k in RANKS}
        recall[direction] = {k: estimate(float(hit.mean()), resampling.means(hit)) for k, hit in hits.items()}
    return Alignment(
        n_tracks=len(index),
        n_left_out=n_with_both - len(index),
        recall=recall,
        chance={k: float(np.minimum(1, k / n_candidates).mean()) for k in RANKS},
    )


def _standing(
    own: FloatArray, other: FloatArray, keys: tuple[IntArray, IntArray]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """For each track, (N,) each: candidates nearer than its own counterpart, others equally near, and candidates."""
    counts = np.empty((3, len(own)))
    for start in range(0, len(own), _CHUNK_ROWS):
        rows = np.arange(start, min(start + _CHUNK_ROWS, len(own)))
        scores = own[rows] @ other.T
        candidate = ~np.logical_or(*(key[rows, None] == key[None, :] for key in keys))
        target = scores[np.arange(len(rows)), rows][:, None]
        counts[:, rows] = (
            (candidate & (scores > target)).sum(axis=1),
            (candidate & (scores == target)).sum(axis=1),
            candidate.sum(axis=1) + 1,
        )
    return counts[0], counts[1], counts[2]
