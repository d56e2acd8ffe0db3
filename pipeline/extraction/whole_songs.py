"""Cut whole songs into windows of a clip's length; each window becomes a track."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...cache.errors import ClipError
from ...cache.format.recipe import MelRecipe
from ...cache.steps import Progress
from ..audio.clip_reader import ClipReader
from ..sources.files import local_file
from ..sources.manifest import Source, Track

MAX_WINDOWS = 1024
"""Maximum number of windows per batch, which bounds the disk space of the temporary store."""


@dataclass(frozen=True, kw_only=True)
class WindowBatch:
    """Windows of one or more whole songs.

    Attributes
    ----------
    songs : the songs, in order of id.
    source : one track per window; each window has the lyrics of its song.
    song_of : window id -> index of its song.
    starts_s : window id -> start in seconds. Songs of one window are absent; the recipe sets their offset.
    """

    songs: list[Track] = field(default_factory=list)
    source: Source
    song_of: dict[str, int] = field(default_factory=dict)
    starts_s: dict[str, float] = field(default_factory=dict)

    def add(self, song: Track, n_windows: int, clip_s: float) -> None:
        for k in range(n_windows):
            window = f"{len(self.songs):06}-{k:06}"
            self.source.tracks.append(dataclasses.replace(song, id=window))
            self.song_of[window] = len(self.songs)
            if n_windows > 1:
                self.starts_s[window] = k * clip_s
        self.songs.append(song)


def windows_per_song(seconds: float, clip_s: float) -> int:
    """Return the number of successive windows, at least one; the last window is kept if it is at least half full.

    >>> [windows_per_song(seconds, 30.0) for seconds in (12, 44.9, 45, 60, 200)]
    [1, 1, 2, 2, 7]
    """
    return max(1, math.floor(seconds / clip_s + 0.5))


def count_windows(source: Source, recipe: MelRecipe, on_progress: Progress) -> list[int]:
    """Return the number of windows per track; 1 if its length cannot be measured, as extraction then gives the reason.

    Parameters
    ----------
    on_progress : receives the number of measured tracks.
    """
    counts = []
    with ClipReader(recipe, form="seconds") as reader:
        for i, track in enumerate(source.tracks, 1):
            try:
                with local_file(source.root, track.path) as path:
                    seconds = reader.read_seconds(path)
            except ClipError:
                seconds = 0.0
            counts.append(windows_per_song(seconds, recipe.clip_s))
            on_progress("measure", i, len(source.tracks))
    return counts


def batch_songs(
    source: Source, counts: Sequence[int], recipe: MelRecipe, *, max_windows: int = MAX_WINDOWS
) -> Iterator[WindowBatch]:
    """Yield batches of songs in order of id, of at most `max_windows` windows; a longer song gets its own batch."""
    batch = WindowBatch(source=dataclasses.replace(source, tracks=[]))
    for song, n_windows in sorted(zip(source.tracks, counts, strict=True), key=lambda pair: pair[0].id):
        if batch.songs and len(batch.source.tracks) + n_windows > max_windows:
            yield batch
            batch = WindowBatch(source=dataclasses.replace(source, tracks=[]))
        batch.add(song, n_windows, recipe.clip_s)
    if batch.songs:
        yield batch
