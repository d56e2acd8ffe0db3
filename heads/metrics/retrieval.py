"""Measure cross-modal retrieval, audio to lyrics and lyrics to audio, on held-out tracks.

Each track is a query. Its counterpart in the other modality is ranked among those of all tracks with both modalities.
The audio-lyrics loss (:mod:`mgc.heads.model.contrastive`) trains this ranking.

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
"""Above this number a sample is drawn: the work is quadratic, and recall falls with the number of candidates."""
DIRECTIONS = ("audio_to_lyrics", "lyrics_to_audio")

_CHUNK_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Alignment(Result):
    """Recall of both directions.

    Attributes
    ----------
    n_tracks : tracks with audio and lyrics that are queries and candidates.
    n_left_out : further tracks with both modalities that were not drawn (see :data:`MAX_TRACKS`).
    recall : by direction and k: share of tracks whose counterpart is among the k nearest.
    chance : by k: recall of a random order.

    Notes
    -----
    Similarity is the score that the loss compares, ``g_a(E_a) . g_l(E_l)`` (Ru et al. 2023, section 2.4). As in the
    loss, other tracks with the same audio file or the same lyrics are not candidates. Ties count with the probability
    of a hit in random order, so a model with constant output is at chance.
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
    """Return recall at 1, 5 and 10; None if fewer than two tracks have audio and lyrics.

    Parameters
    ----------
    audio, lyrics : (N, P) projected embeddings of each track.
    track_key, lyrics_key : (N,) equal for equal audio files and equal lyrics; tracks with ``lyrics_key`` -1 have no
        lyrics and are left out.
    groups : (N,) unit of the bootstrap: the artist. Queries are resampled, candidates are not.
    seed : of the bootstrap, and of the sample of more than :data:`MAX_TRACKS` tracks.
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
        n_better, n_equal, n_candidates = _ranks(own, other, keys)
        # With ties, the counterpart takes one of the n_equal + 1 ranks after n_better; ranks up to k are hits.
        hits = {k: np.clip((k - n_better) / (n_equal + 1), 0, 1) for k in RANKS}
        recall[direction] = {k: estimate(float(hit.mean()), resampling.means(hit)) for k, hit in hits.items()}
    return Alignment(
        n_tracks=len(index),
        n_left_out=n_with_both - len(index),
        recall=recall,
        chance={k: float(np.minimum(1, k / n_candidates).mean()) for k in RANKS},
    )


def _ranks(
    own: FloatArray, other: FloatArray, keys: tuple[IntArray, IntArray]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return, per track, the numbers of candidates nearer than its counterpart, equally near, and in all; (N,) each."""
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
