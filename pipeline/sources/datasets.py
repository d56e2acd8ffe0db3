"""The data sets that are read by name, the reader of a source (:func:`load_source`), and songs named one by one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...cache.errors import ConfigError, ManifestError
from ...cache.messages import counted, nearest
from .audio_folder import AUDIO_FOLDER, GENRE_FOLDERS
from .fma import FMA
from .label_tables import labels_table
from .manifest import NO_LANGUAGE, KnownDataset, Source, Track, caseless, escaping_paths
from .mtg_jamendo import MTG_JAMENDO
from .music4all import MUSIC4ALL
from .options import SourceOptions
from .table_source import MANIFEST_COLUMNS, TABLE, relabel
from .tables import SEPARATORS

DATASETS = (MUSIC4ALL, MTG_JAMENDO, FMA, GENRE_FOLDERS, AUDIO_FOLDER, TABLE)
"""In the order in which a source is offered to them; the last two take every folder and every file."""


def load_source(source: str | os.PathLike[str], options: SourceOptions) -> Source:
    """List all tracks of `source`, sorted by id.

    Parameters
    ----------
    source : a folder that holds one of :data:`DATASETS`, a table of tracks, or a folder of audio files.
    options : how to read it; its filters are for :func:`mgc.pipeline.sources.manifest.filter_tracks`.

    Raises
    ------
    ManifestError
        When the source cannot be read or breaks a rule; the message names the file, the line and the column.
    ConfigError
        When an option does not go with the kind of source.

    Notes
    -----
    In a folder of audio every regular file is a track but tables and texts, hidden files and feature stores; its id is
    its path with the extension, and ``song.txt`` beside ``song.mp3`` its lyrics.
    """
    if options.root is not None and not options.root.is_dir():
        raise ManifestError(f"{options.root}: the root is no folder")
    path = Path(source)
    kind = _detect(path, options.genres_from_folders) if options.dataset is None else _named(options.dataset, path)
    _refuse_strange_options(path, kind, options)
    tracks = kind.load(path, options)
    if kind not in (AUDIO_FOLDER, TABLE):
        tracks = replace(tracks, notes=[f"read as {kind.title}", *tracks.notes])
    if options.labels is not None:
        if options.genres_from_folders:
            raise ConfigError("genres come from the labels file or from folder names, not from both")
        tracks = relabel(tracks, labels_table(options.labels, MANIFEST_COLUMNS), options)
    return replace(tracks, notes=tracks.notes + _remarks(tracks))


def _detect(path: Path, genres_from_folders: bool) -> KnownDataset:
    """Return the data set that a source looks like."""
    first = next(kind for kind in DATASETS if kind.recognises(path))
    if first is AUDIO_FOLDER:
        return GENRE_FOLDERS if genres_from_folders else AUDIO_FOLDER
    others = [kind for kind in DATASETS if kind not in (first, AUDIO_FOLDER, TABLE) and kind.recognises(path)]
    if others:
        names = [kind.name for kind in (first, *others)]
        raise ConfigError(f"{path}: this looks like {' and like '.join(names)}; say which with --dataset {names[0]}")
    return first


def _named(name: str, path: Path) -> KnownDataset:
    kinds = {kind.name: kind for kind in DATASETS}
    if name not in kinds:
        near = nearest(name, kinds, cutoff=0.4)
        hint = "" if near is None else f"; did you mean {near!r}?"
        raise ConfigError(f"--dataset {name!r}: known are {', '.join(kinds)}{hint}")
    kind = kinds[name]
    if not path.exists():
        raise ManifestError(f"{path}: there is no such file or folder")
    if not kind.recognises(path) and not (kind is GENRE_FOLDERS and path.is_dir()):
        raise ManifestError(f"{path}: this is not {kind.title}; expected: {kind.needs}")
    return kind


def _refuse_strange_options(path: Path, kind: KnownDataset, options: SourceOptions) -> None:
    of_labels = set() if options.labels is None else {"genre_delimiter", "artist_delimiter"}
    for name in options.reader_options:
        if name not in kind.options | of_labels:
            takers = " or ".join(other.name for other in DATASETS if name in other.options)
            raise ConfigError(f"{path}: --{name.replace('_', '-')} goes with {takers}; this is read as {kind.title}")


def _remarks(source: Source) -> list[str]:
    notes = []
    instrumental = sum(track.language == NO_LANGUAGE for track in source.tracks)
    if instrumental:
        notes.append(
            f"{counted(instrumental, 'instrumental track')}, of language {NO_LANGUAGE!r} (no linguistic content)"
        )
    genres: dict[str, set[str]] = {}
    for name in {name for track in source.tracks for name in track.genres}:
        genres.setdefault(caseless(name), set()).add(name)
    for names in sorted(sorted(names) for names in genres.values() if len(names) > 1):
        notes.append(f"genres that differ by case only are kept apart: {', '.join(map(repr, names))}")
    for mark in SEPARATORS:
        marked = sorted(name for names in genres.values() for name in names if mark in name)
        if marked:
            notes.append(
                f"{counted(len(marked), 'genre')} with {mark!r} in the name, such as {marked[0]!r}: "
                f"where it separates genres, say --genre-delimiter {mark!r}"
            )
    unlabelled = sum(not track.genres for track in source.tracks)
    if unlabelled:
        notes.append(
            f"{unlabelled} of {counted(len(source.tracks), 'track')} without a genre; "
            "--labels or --genres-from-folders may tell"
        )
    outside = escaping_paths(source)
    if outside:
        notes.append(
            f"{counted(len(outside), 'track')} with a path outside the root (PATH_ESCAPE); first: {outside[0]!r}"
        )
    return notes


def songs_source(inputs: Sequence[Path], lyrics: Path | None = None, *, missing_ok: bool = False) -> Source:
    """Return songs named one by one as a source; ids are the paths as the user wrote them.

    Parameters
    ----------
    inputs : audio files, and folders of them; ``song.txt`` beside ``song.mp3`` is its lyrics.
    lyrics : of the one song given, instead.
    missing_ok : a path that does not exist fails alone, as a track.

    Raises
    ------
    ConfigError
        If a path does not exist and that is not ok, or `lyrics` is given with several songs.
    """
    tracks: dict[str, Track] = {}
    for path in inputs:
        if not missing_ok and not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        if path.is_dir():
            folder = load_source(path, SourceOptions())
            for track in folder.tracks:
                words = None if track.lyrics_path is None else _from_root(folder.root / track.lyrics_path)
                name, audio = str(path / track.id), _from_root(folder.root / track.path)
                tracks[name] = replace(track, id=name, path=audio, lyrics_path=words)
        else:
            text = path.with_suffix(".txt")
            words = _from_root(text) if text.is_file() else None
            tracks[str(path)] = Track(id=str(path), path=_from_root(path), lyrics_path=words)
    if lyrics is not None:
        if len(tracks) != 1:
            raise ConfigError(f"--lyrics goes with one song, not with {len(tracks)}; put song.txt beside song.mp3")
        if not lyrics.is_file():
            raise ConfigError(f"--lyrics {lyrics}: no such file")
        ((name, track),) = tracks.items()
        tracks[name] = replace(track, lyrics=None, lyrics_path=_from_root(lyrics))
    return Source(root=Path(Path.cwd().anchor), tracks=list(tracks.values()))


def _from_root(path: Path) -> str:
    absolute = path.resolve()
    return absolute.relative_to(absolute.anchor).as_posix()
