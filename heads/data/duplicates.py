"""Find recordings that a store holds under several ids: by equal audio files, or by nearly equal spectrograms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...cache.errors import ConfigError
from ...cache.format.schema import OK
from ...cache.messages import counted, join_names
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..metrics.nearest import Cosine
from ..results import Result

Index = npt.NDArray[np.int64]

THRESHOLD = 0.92
"""Cosine from which two clips count as one recording; see benchmarks/tables/duplicates.md."""
MIN_TRACKS = 20
"""Fewest tracks with which values can be standardised."""
_SEGMENTS = 8
_READ_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class DuplicateGroup(Result):
    """Tracks that seem to be one recording.

    Attributes
    ----------
    equal_files : whether their audio files have one hash.
    similarity : least cosine of the pairs that link them; 1 for equal files.
    """

    ids: tuple[str, ...]
    equal_files: bool
    similarity: float


def find_duplicates(
    store: FeatureStore, *, near: bool = False, threshold: float = THRESHOLD, on_progress: Progress = silent
) -> list[DuplicateGroup]:
    """Return the groups of tracks with equal audio files, the largest first; with `near`, of similar spectrograms too.

    Raises
    ------
    ConfigError
        If `near` is given for a store without mel, or with fewer than `MIN_TRACKS` tracks.

    Notes
    -----
    A clip is described by the mean of each band in eight segments, less its mean level, standardised over the store. A
    copy in another codec or at another level has nearly the same values; a clip from another place of the recording
    does not.
    """
    tracks = store.newest_tracks(["id", "row", "source_sha256", "status"])
    tracks = tracks.filter(pc.equal(tracks.column("status"), OK))
    hashes, rows = tracks.column("source_sha256").to_pylist(), np.asarray(tracks.column("row"), dtype=np.int64)
    first: dict[str, int] = {}
    links = [(first.setdefault(name, i), i, 1.0) for i, name in enumerate(hashes) if name]
    if near:
        if store.recipe.mel is None or len(rows) < MIN_TRACKS:
            raise ConfigError(
                f"--near: {store.path} needs mel spectrograms of at least {counted(MIN_TRACKS, 'track')}."
            )
        links += Cosine(_segment_means(store, rows, on_progress), standardise=True).pairs(threshold, on_progress)
    ids = tracks.column("id").to_pylist()
    groups = [
        DuplicateGroup(
            ids=tuple(ids[i] for i in members),
            equal_files=len({hashes[i] or i for i in members}) == 1,
            similarity=similarity,
        )
        for members, similarity in _components(links)
    ]
    return sorted(groups, key=lambda group: (-len(group.ids), group.ids))


def _segment_means(store: FeatureStore, rows: Index, on_progress: Progress) -> npt.NDArray[np.float32]:
    """Return (n, 8 bands) float32."""
    described = np.empty((len(rows), _SEGMENTS * store.array("mel").tail[0]), dtype=np.float32)
    for start in range(0, len(rows), _READ_AT_ONCE):
        block = rows[start : start + _READ_AT_ONCE]
        for i, (mel, frames) in enumerate(zip(store.read("mel", block), store.read("mel_frames", block), strict=True)):
            clip = mel[:, : max(_SEGMENTS, int(frames))].astype(np.float32)
            means = np.concatenate([part.mean(axis=1) for part in np.array_split(clip, _SEGMENTS, axis=1)])
            described[start + i] = np.nan_to_num(means - np.nanmean(means))
        on_progress("read", start + len(block), len(rows))
    return described


def _components(links: Iterable[tuple[int, int, float]]) -> Iterator[tuple[list[int], float]]:
    """Yield the connected tracks, in order, and the least similarity of their links; single tracks are left out."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while parent.setdefault(i, i) != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    least: dict[int, float] = {}
    for i, j, similarity in links:
        a, b = sorted((root(i), root(j)))
        parent[b] = a
        least[a] = min(least.get(a, 1.0), least.get(b, 1.0), similarity)
    members: dict[int, list[int]] = {}
    for i in sorted(parent):
        members.setdefault(root(i), []).append(i)
    return ((group, round(least[top], 4)) for top, group in members.items() if len(group) > 1)


def leaks(tracks: pa.Table, positions: Mapping[str, Index]) -> list[str]:
    """Return a warning if an audio file of the training split is in the validation or test split as well.

    Parameters
    ----------
    tracks : columns id, source_sha256.
    positions : positions of the tracks of each split.
    """
    hashes, ids = (tracks.column(name).to_pylist() for name in ("source_sha256", "id"))
    trained = {hashes[i] for i in positions["train"].tolist()} - {None}
    leaked = [ids[i] for name in ("validation", "test") for i in positions[name].tolist() if hashes[i] in trained]
    if not leaked:
        return []
    have = counted(len(leaked), "validation or test track has", "validation and test tracks have")
    return [
        f"{have} the audio file of a training track, so scores are too high: {join_names(leaked, 3)}. List the copies "
        "with `mgc store duplicates STORE`, or use --split artist, which keeps them together."
    ]
