"""Test cross-modal retrieval against an exhaustive search, and at chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mgc.heads.metrics import retrieval
from mgc.heads.metrics.retrieval import RANKS, alignment

N = 60


def _exhaustive_search(
    own: np.ndarray, other: np.ndarray, track_key: np.ndarray, lyrics_key: np.ndarray
) -> dict[int, float]:
    """Sort every candidate by its score, track by track."""
    hits = {k: [] for k in RANKS}
    with_both = [i for i in range(len(own)) if lyrics_key[i] != -1]
    for i in with_both:
        candidates = [
            j for j in with_both if j == i or (track_key[i] != track_key[j] and lyrics_key[i] != lyrics_key[j])
        ]
        order = sorted(candidates, key=lambda j: -float(np.dot(own[i].astype(float), other[j].astype(float))))
        for k in RANKS:
            hits[k].append(i in order[:k])
    return {k: float(np.mean(values)) for k, values in hits.items()}


@pytest.fixture
def world() -> dict[str, Any]:
    """Return correlated embeddings, with tracks without lyrics, and duplicates of lyrics and of an audio file."""
    random = np.random.default_rng(3)
    audio = random.normal(size=(N, 8)).astype(np.float32)
    lyrics = (audio + random.normal(size=(N, 8))).astype(np.float32)
    track_key, lyrics_key = np.arange(N), np.arange(N)
    lyrics_key[::9] = -1
    lyrics_key[[4, 5, 6]] = 100
    track_key[[10, 20]] = 100
    return {"audio": audio, "lyrics": lyrics, "track_key": track_key, "lyrics_key": lyrics_key}


def test_recall_equals_that_of_an_exhaustive_search(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_CHUNK_ROWS", 7)
    result = alignment(**world, groups=np.arange(N) // 2, n_replicates=200)
    assert result is not None
    keys = world["track_key"], world["lyrics_key"]
    for direction, own, other in (("audio_to_lyrics", "audio", "lyrics"), ("lyrics_to_audio", "lyrics", "audio")):
        expected = _exhaustive_search(world[own], world[other], *keys)
        assert 0.1 < expected[1] < expected[5] < expected[10]
        for k in RANKS:
            estimate = result.recall[direction][k]
            assert estimate.value == pytest.approx(expected[k])
            assert estimate.low < estimate.value < estimate.high
    assert result.n_tracks == N - 7
    # 53 candidates each, except for three tracks with the same lyrics (51) and two with the same file (52).
    assert result.chance[5] == pytest.approx((48 * 5 / 53 + 3 * 5 / 51 + 2 * 5 / 52) / 53)
    assert result.recall["audio_to_lyrics"] != result.recall["lyrics_to_audio"]


def test_constant_embeddings_are_at_chance(world: dict[str, Any]) -> None:
    same = {**world, "audio": np.ones((N, 8), np.float32), "lyrics": np.ones((N, 8), np.float32)}
    result = alignment(**same, groups=np.arange(N), n_replicates=0)
    assert result is not None
    for by_rank in result.recall.values():
        assert {k: value.value for k, value in by_rank.items()} == pytest.approx(dict(result.chance))


def test_single_track_has_no_retrieval_and_many_tracks_are_sampled(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    single = {**world, "lyrics_key": np.where(np.arange(N) == 3, 3, -1)}
    assert alignment(**single, groups=np.arange(N)) is None
    monkeypatch.setattr(retrieval, "MAX_TRACKS", 20)
    sampled = alignment(**world, groups=np.arange(N), n_replicates=0)
    assert sampled is not None
    assert (sampled.n_tracks, sampled.n_left_out) == (20, N - 7 - 20)
    few = alignment(**{name: value[1:4] for name, value in world.items()}, groups=np.arange(3), n_replicates=0)
    assert few is not None
    assert few.chance == pytest.approx({1: 1 / 3, 5: 1, 10: 1})
    assert few.recall["audio_to_lyrics"][5].value == 1
