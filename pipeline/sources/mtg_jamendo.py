"""MTG-Jamendo's genre subset (Bogdanov et al. 2019) with its own splits, from the official label files.

A label file is tab-separated with the header ``TRACK_ID ARTIST_ID ALBUM_ID PATH DURATION TAGS``; a row continues with
all tags of the track, each ``genre---rock``. Audio files are ``14/214.mp3``, or ``14/214.low.mp3`` in the low-bitrate
copy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...cache.errors import ManifestError
from .manifest import KnownDataset, Source, Track, check_collisions, check_id
from .options import SourceOptions
from .table_source import check_root, sample_tracks
from .tables import distinct_names, tab_separated

SPLITS = ("train", "validation", "test")
HEADER = ("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS")
GENRE = "genre---"
LABEL_FOLDERS = ("", "data/splits/split-0", "splits/split-0", "split-0")
AUDIO_FOLDERS = ("", "audio", "audio-low", "raw_30s/audio", "raw_30s/audio-low")


def load_mtg_jamendo(folder: Path, options: SourceOptions) -> Source:
    """Read the three label files of a split; a track belongs to the split whose file lists it."""
    labels = _label_folder(folder)
    assert labels is not None
    missing = [_label_file(split) for split in SPLITS if not (labels / _label_file(split)).is_file()]
    if missing:
        raise ManifestError(
            f"{labels}: there is no {', no '.join(missing)}; MTG-Jamendo's genre split is the three files "
            f"{', '.join(map(_label_file, SPLITS))}"
        )
    rows = [row for split in SPLITS for row in _rows(labels / _label_file(split), split)]
    check_collisions([track.id for track, _ in rows], [location for _, location in rows])
    tracks = sorted((track for track, _ in rows), key=lambda track: track.id)
    root, low = _audio_root(folder, options.root, tracks)
    notes = [f"label files: {labels}", *(["the smaller audio files (.low.mp3) are used"] if low else [])]
    if low:
        tracks = [replace(track, path=_low(track.path)) for track in tracks]
    notes += check_root(root, tracks, labels, options)
    return Source(root=root, tracks=tracks, notes=notes)


def _label_file(split: str) -> str:
    return f"autotagging_genre-{split}.tsv"


def _label_folder(folder: Path) -> Path | None:
    """Find the label files: in the folder itself, or in split 0 of a clone of MTG-Jamendo's repository."""
    places = (folder / place for place in LABEL_FOLDERS)
    return next((place for place in places if any((place / _label_file(split)).is_file() for split in SPLITS)), None)


def _rows(path: Path, split: str) -> list[tuple[Track, str]]:
    """Read the tracks of a label file, each with its file and line."""
    records = tab_separated(path)
    number, header = next(records, (1, []))
    if tuple(header) != HEADER:
        raise ManifestError(
            f"{path}, line {number}: the header is {' '.join(header)!r}. Expected {' '.join(HEADER)!r}."
        )
    tracks = []
    for number, cells in records:
        location = f"{path}, line {number}"
        if len(cells) < len(HEADER):
            raise ManifestError(
                f"{location}: {len(cells)} cells. Expected {len(HEADER)} or more, tags such as 'genre---rock' last."
            )
        track_id, artist, _, audio, _, *tags = cells
        check_id(track_id, location)
        if not audio:
            raise ManifestError(f"{location}: PATH is empty. Expected one such as '14/214.mp3'.")
        genres = distinct_names(tag.removeprefix(GENRE) for tag in tags if tag.startswith(GENRE))
        track = Track(id=track_id, path=audio, artists=distinct_names([artist]), genres=genres, split=split)
        tracks.append((track, location))
    return tracks


def _audio_root(folder: Path, root: Path | None, tracks: Sequence[Track]) -> tuple[Path, bool]:
    """Find the audio folder, and whether it has the low-bitrate copy, from a sample of tracks."""
    sample = sample_tracks(tracks)
    roots = [root] if root is not None else [folder / place for place in AUDIO_FOLDERS]
    for root in roots:
        for low in (False, True):
            if any(os.path.lexists(root / (_low(track.path) if low else track.path)) for track in sample):
                return root, low
    return roots[0], False


def _low(path: str) -> str:
    return f"{path.removesuffix('.mp3')}.low.mp3"


MTG_JAMENDO = KnownDataset(
    name="mtg-jamendo",
    title="MTG-Jamendo, genre subset",
    needs="autotagging_genre-{train,validation,test}.tsv in the folder, or a clone of the makers' repository (its "
    "data/splits/split-0 is then read; name data/splits/split-N for another); audio as NN/ID.mp3 or NN/ID.low.mp3 in "
    "the folder, audio/ or audio-low/ in it, or --root",
    terms="metadata CC BY-NC-SA 4.0; audio under Creative Commons licences, one a track (audio_licenses.txt)",
    recognises=lambda path: _label_folder(path) is not None,
    load=load_mtg_jamendo,
    options=frozenset({"root"}),
)
