"""Miniatures of collections: five generated songs with labels, and the check that a source extracts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from keywords import load_source

from mgc import api
from mgc.cache.reading.view import open_store

SONGS: tuple[dict[str, Any], ...] = tuple(
    {
        "name": f"song{i}",
        "artist": f"Artist {i // 2}",
        "title": f"Title {i}",
        "genres": [("jazz", "rock", "hip hop")[i % 3], *(["blues"] if i == 3 else [])],
        "split": ("train", "train", "validation", "test", "train")[i],
    }
    for i in range(5)
)


def write_songs(folder: Path) -> list[Path]:
    """Write the audio of :data:`SONGS` as ``songI.wav``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{song['name']}.wav" for song in SONGS]
    for i, path in enumerate(paths):
        soundfile.write(path, 0.3 * np.sin(np.arange(12_000) * (0.02 + 0.01 * i)).astype(np.float32), 22_050)
    return paths


def check(source: Path, store: Path, **options: Any) -> Any:
    """Read a source, extract it, and compare labels, artists, splits and audio with :data:`SONGS`."""
    read = load_source(source, **options)
    report = api.extract(read, store, features=("mel",), workers=0, clip_s=0.5)
    assert (report.ok, report.failed) == (len(SONGS), 0)
    with open_store(store) as view:
        tracks = view.tracks.to_pylist()
        levels = [view["mel"][i].astype(float).mean() for i in range(len(view))]
        by_title = {t["song"]: t for t in tracks}
        for song in SONGS:
            track = by_title[song["title"]]
            assert sorted(track["genres"]) == sorted(song["genres"])
            assert track["artists"] == [song["artist"]]
            assert track["split"] == song["split"]
        assert len(set(levels)) == len(SONGS), "each track has its own audio"
    return read
