"""Compare copies of real songs, and different songs, by the similarity of `mgc store duplicates --near`.

MGC_REAL_DATA=... python -m benchmarks.tables.duplicates > benchmarks/tables/duplicates.md

MGC_REAL_DATA/songs and songs_nc have audio files. Copies are in other codecs, at another level, and cut by 0.5 s.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import librosa
import numpy as np
import soundfile

from benchmarks.machine import print_heading
from mgc import api
from mgc.cache.reading.store import FeatureStore
from mgc.heads.data.duplicates import THRESHOLD, _segment_means
from mgc.heads.metrics.nearest import Cosine

EXCERPT_S, CUT_S, MAX_SONGS = 12, 0.5, 40
COPIES = {
    "mp3": "MP3 of low quality",
    "ogg": "Vorbis of low quality, 6 dB lower",
    "cut": "WAV, begins 0.5 s later",
}


def write_copies(folder: Path) -> int:
    """Write excerpts of songs and their copies; return the number of songs."""
    root, n_songs = Path(os.environ["MGC_REAL_DATA"]), 0
    songs = [file for name in ("songs", "songs_nc") for file in sorted((root / name).rglob("*")) if file.is_file()]
    for song in songs:
        try:
            samples, rate = librosa.load(song, sr=None, mono=True, duration=EXCERPT_S)
        except Exception:  # not audio
            continue
        if len(samples) < EXCERPT_S * rate or n_songs == MAX_SONGS:
            continue
        name = f"{n_songs:02d}"
        soundfile.write(folder / f"{name}_original.wav", samples, rate)
        soundfile.write(folder / f"{name}_mp3.mp3", samples, rate, format="MP3", compression_level=0.8)
        soundfile.write(folder / f"{name}_ogg.ogg", samples / 2, rate, format="OGG", compression_level=0.9)
        soundfile.write(folder / f"{name}_cut.wav", samples[int(CUT_S * rate) :], rate)
        n_songs += 1
    return n_songs


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        (audio := Path(scratch) / "audio").mkdir()
        n_songs, path = write_copies(audio), Path(scratch) / "s.zarr"
        api.extract(api.read_source(audio).source, path, features=["mel"], clip_s=10.0, workers=0)
        with FeatureStore.open(path) as store:
            ids = store.tracks.column("id").to_pylist()
            vectors = _segment_means(store, store.ok_rows, lambda *_: None)
        groups = api.store_duplicates(path, near=True)
    search = Cosine(vectors, standardise=True)
    cosines = np.eye(len(ids))
    for i, j, similarity in search.pairs(-1.0):
        cosines[i, j] = cosines[j, i] = similarity
    names = [name.partition(".")[0].split("_") for name in ids]
    where = {tuple(name): i for i, name in enumerate(names)}
    songs = sorted({song for song, _ in names})
    print_heading("Copies of a recording", __file__, f": excerpts of {n_songs} real songs, three copies of each.")
    print("Similarity of `mgc store duplicates --near` to the original.\n\n| copy | least | median |\n|---|---|---|")
    for kind, about in COPIES.items():
        values = [cosines[where[song, "original"], where[song, kind]] for song in songs]
        print(f"| {about} | {min(values):.3f} | {np.median(values):.3f} |")
    others = [cosines[where[a, "original"], where[b, "original"]] for a in songs for b in songs if a < b]
    print(f"\nHighest of {len(others)} pairs of different songs: {max(others):.3f}. Threshold: {THRESHOLD:g}.")
    own = sum(len({name.split("_")[0] for name in group.ids}) == 1 for group in groups)
    print(f"Groups at the threshold: {len(groups)}, of which {own} have the copies of one song only.")


if __name__ == "__main__":
    main()
