"""Known data sets, the reader of a source (:func:`load_source`), and sources of single songs."""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ...cache.errors import ConfigError, ManifestError
from ...cache.format.schema import Flag
from ...cache.messages import counted, nearest
from ...cache.names import find_file
from ...cache.places import web_url
from ...cache.steps import Progress, silent
from ..text.language import detect_language
from .audio_folder import ARCHIVE, AUDIO_FOLDER, GENRE_FOLDERS
from .collections.beets import BEETS
from .collections.hugging_face import HUGGING_FACE
from .collections.lhotse import LHOTSE
from .collections.mirdata import MIRDATA
from .files import url_problem
from .fma import FMA
from .genre_aliases import GenreAliases, genre_aliases, merge_genres, remark_mergeable, remark_merged
from .label_tables import labels_table
from .manifest import (
    COLUMNS,
    NO_LANGUAGE,
    KnownDataset,
    Source,
    Track,
    escaping_paths,
    normalise_language,
    remark_links,
    track_lyrics,
)
from .mtg_jamendo import MTG_JAMENDO
from .music4all import MUSIC4ALL
from .names import lyrics_next_to, refuse_other_encodings, remark_names, stands_for_nothing
from .options import SourceOptions
from .table_source import MANIFEST_COLUMNS, TABLE, relabel, sample_tracks
from .tables import SEPARATORS
from .tags import add_tags

DATASETS = (
    *(MUSIC4ALL, MTG_JAMENDO, FMA, HUGGING_FACE, LHOTSE, BEETS, MIRDATA),
    *(GENRE_FOLDERS, ARCHIVE, AUDIO_FOLDER, TABLE),
)
"""Known data sets in the order of recognition; the last two accept every folder and every file."""


def load_source(source: str | os.PathLike[str], options: SourceOptions, *, on_progress: Progress = silent) -> Source:
    """List all tracks of `source`, sorted by id.

    Parameters
    ----------
    source : a folder that holds one of :data:`DATASETS`, a table of tracks, or a folder of audio files.
    options : how to read it; its filters are for :func:`mgc.pipeline.sources.manifest.filter_tracks`.
    on_progress : receives files whose tags were read, of many.

    Raises
    ------
    ManifestError
        If the source cannot be read or breaks a rule; the message has the file, the line and the column.
    ConfigError
        If an option does not fit the kind of source.

    Notes
    -----
    In a folder of audio the tracks are the files that are audio by name or by content; hidden files and feature stores
    are skipped. The id of a track is its path with the extension; ``song.txt`` or ``song.lrc`` next to
    ``song.mp3`` is its lyrics. For a folder or a table, missing values come from
    the tags of the audio files, unless ``options.tags`` is false.
    """
    path = Path(source)
    kind = _choose_kind(path, options)
    tracks = _read(path, kind, options)
    if tracks.unpack is not None:
        tracks.unpack(on_progress)
        tracks = replace(tracks, unpack=None)
    if options.labels is not None:
        if options.genres_from_folders:
            raise ConfigError("genres come from the labels file or from folder names, not from both")
        tracks = relabel(tracks, labels_table(options.labels, MANIFEST_COLUMNS), options)
    if options.tags:
        tracks = add_tags(tracks, options, COLUMNS.keys() - tracks.own_columns, on_progress=on_progress)
    if options.merge_genres is not None:
        tracks = _merge_genres(tracks, genre_aliases(options.merge_genres))
    notes = tracks.notes + _remarks(tracks)
    if options.detect_language:
        detected = [_with_language(track, tracks.root, options.lyrics_encoding) for track in tracks.tracks]
        n_before, n_after = (sum(t.language is not None for t in each) for each in (tracks.tracks, detected))
        notes.append(f"language of {counted(n_after - n_before, 'track')} detected; {len(detected) - n_after} without")
        tracks = replace(tracks, tracks=detected)
    if kind not in (AUDIO_FOLDER, GENRE_FOLDERS):
        paths = [track.path for track in sample_tracks(tracks.tracks)]
        notes += remark_links(tracks.root, paths, "write a manifest with -o {}/tracks.jsonl and extract from that")
    return replace(tracks, notes=notes, lyrics_encoding=options.lyrics_encoding)


def _with_language(track: Track, root: Path, encoding: str | None) -> Track:
    """Return the track with the detected language of its lyrics, if it has none and the detection is certain."""
    if track.language is not None:
        return track
    lyrics = track_lyrics(track, root, encoding)
    if Flag.INSTRUMENTAL in lyrics.flags:
        return replace(track, language=NO_LANGUAGE)
    return replace(track, language=normalise_language(None if lyrics.text is None else detect_language(lyrics.text)))


def _choose_kind(path: Path, options: SourceOptions) -> KnownDataset:
    if options.root is not None and not options.root.is_dir():
        raise ManifestError(f"{options.root}: the root is no folder")
    refuse_other_encodings()
    kind = _detect(path, options.genres_from_folders) if options.dataset is None else _named(options.dataset, path)
    _refuse_strange_options(path, kind, options)
    return kind


def _read(path: Path, kind: KnownDataset, options: SourceOptions) -> Source:
    """Read a source without filters, with notes on skipped files."""
    source = kind.load(path, options)
    if not source.columns:
        source = source.with_origins(dict.fromkeys(COLUMNS, kind.name))
    if kind in (AUDIO_FOLDER, TABLE):
        return source
    return replace(source, notes=[f"read as {kind.title}", *source.notes])


def _detect(path: Path, genres_from_folders: bool) -> KnownDataset:
    """Return the kind of a source by its content."""
    first = next(kind for kind in DATASETS if kind.recognises(path))
    if first is AUDIO_FOLDER:
        return GENRE_FOLDERS if genres_from_folders else AUDIO_FOLDER
    others = [kind for kind in DATASETS if kind not in (first, AUDIO_FOLDER, TABLE) and kind.recognises(path)]
    if others:
        names = [kind.name for kind in (first, *others)]
        raise ConfigError(f"{path}: this matches {' and '.join(names)}. Choose one with --dataset {names[0]}.")
    return first


def _named(name: str, path: Path) -> KnownDataset:
    kinds = {kind.name: kind for kind in DATASETS}
    name, _, loader = name.partition(":")
    if name not in kinds or (loader and name != MIRDATA.name):
        near = nearest(name, kinds, cutoff=0.4)
        hint = "" if near is None else f"; did you mean {near!r}?"
        raise ConfigError(f"--dataset {name!r}: known are {', '.join(kinds)}{hint}")
    kind = kinds[name]
    if not path.exists():
        raise ManifestError(f"{path}: no such file or folder")
    if not kind.recognises(path) and not (kind in (GENRE_FOLDERS, MIRDATA) and path.is_dir()):
        raise ManifestError(f"{path}: this is not {kind.title}; expected: {kind.needs}")
    return kind


DELIMITERS = {"genre_delimiter", "artist_delimiter"}
"""Options for the cells of a table, also of a labels table."""


def _refuse_strange_options(path: Path, kind: KnownDataset, options: SourceOptions) -> None:
    of_labels = set() if options.labels is None else DELIMITERS
    for name in options.reader_options:
        if name not in kind.options | of_labels:
            takers = " or ".join(other.name for other in DATASETS if name in other.options)
            remedy = "Leave it out" + (", or give --labels." if name in DELIMITERS else ".")
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{path}: {option} goes with {takers}; this is read as {kind.title}. {remedy}")


def _merge_genres(source: Source, aliases: GenreAliases) -> Source:
    before = {name for track in source.tracks for name in track.genres}
    genres, merged = merge_genres((track.genres for track in source.tracks), aliases)
    tracks = [
        track if names == track.genres else replace(track, genres=names)
        for track, names in zip(source.tracks, genres, strict=True)
    ]
    notes = source.notes + remark_merged(merged, aliases, before)
    return replace(source, tracks=tracks, notes=notes, merged_genres=merged)


def _remarks(source: Source) -> list[str]:
    notes = []
    instrumental = sum(track.language == NO_LANGUAGE for track in source.tracks)
    if instrumental:
        notes.append(
            f"{counted(instrumental, 'instrumental track')}, of language {NO_LANGUAGE!r} (no linguistic content)"
        )
    genres = Counter(name for track in source.tracks for name in track.genres)
    artists = Counter(name for track in source.tracks for name in track.artists)
    notes += (
        remark_names("genres", genres) + remark_mergeable(genres) + remark_names("artists", artists, ", in splits too")
    )
    placeholders = [track for track in source.tracks if track.lyrics and stands_for_nothing(track.lyrics)]
    if placeholders:
        first = placeholders[0]
        notes.append(
            f"lyrics of {counted(len(placeholders), 'track')} probably stand for a missing value: {first.lyrics!r} of "
            f"{first.id!r}; leave the cell empty where there are none"
        )
    for mark in SEPARATORS:
        marked = sorted(name for name in genres if mark in name)
        if marked:
            notes.append(
                f"{counted(len(marked), 'genre')} with {mark!r} in the name, such as {marked[0]!r}: "
                f"where it separates genres, give --genre-delimiter {mark!r}"
            )
    unlabelled = sum(not track.genres for track in source.tracks)
    if unlabelled:
        notes.append(
            f"{unlabelled} of {counted(len(source.tracks), 'track')} without a genre; "
            "give --labels or --genres-from-folders"
        )
    outside = escaping_paths(source)
    if outside:
        notes.append(
            f"{counted(len(outside), 'track')} with a path outside {source.root} (PATH_ESCAPE), first {outside[0]!r}. "
            "Give the folder that holds all files with --root."
        )
    return notes


def songs_source(
    inputs: Sequence[Path],
    lyrics: Path | None = None,
    *,
    missing_ok: bool = False,
    lyrics_encoding: str | None = None,
    with_lyrics: bool = True,
    on_progress: Progress = silent,
) -> Source:
    """Return single songs as a source; ids are the paths as the user wrote them.

    Parameters
    ----------
    inputs : audio files, ``https`` URLs of them, folders and archives; ``song.txt`` or ``song.lrc`` next to
        ``song.mp3`` is its lyrics, or else those in its tags.
    lyrics : lyrics of the single song, in place of these.
    missing_ok : a path that does not exist becomes a failed track.
    lyrics_encoding : encoding of lyrics files without a byte order mark that are not UTF-8; None detects it.
    with_lyrics : read lyrics from the tags of files that have no lyrics file.

    Raises
    ------
    ConfigError
        If a path does not exist and `missing_ok` is false, or `lyrics` is given with several songs.
    """
    refuse_other_encodings()
    lyrics_in = functools.cache(_lyrics_in)
    tracks: dict[str, Track] = {}
    notes: list[str] = []
    for song in inputs:
        if (url := web_url(song)) is not None:
            if (fault := url_problem(url)) is not None:
                raise ConfigError(f"{fault}.")
            tracks[url] = Track(id=url, path=url)
            continue
        path = find_file(Path(song.anchor), str(song.relative_to(song.anchor)))
        if not missing_ok and not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        if path.is_dir() or ARCHIVE.recognises(path):
            options = SourceOptions()
            folder = _read(path, _choose_kind(path, options), options)
            notes += [f"{song}: {note}" for note in folder.notes]
            for track in folder.tracks:
                words = None if track.lyrics_path is None else _from_root(folder.root / track.lyrics_path)
                name, audio = str(song / track.id), _from_root(folder.root / track.path)
                tracks[name] = replace(track, id=name, path=audio, lyrics_path=words)
        else:
            text = lyrics_in(str(path.parent))(path.name)
            words = None if text is None else _from_root(path.parent / text)
            tracks[str(song)] = Track(id=str(song), path=_from_root(path), lyrics_path=words)
    if lyrics is not None:
        if len(tracks) != 1:
            raise ConfigError(f"--lyrics goes with one song, not with {len(tracks)}. Put song.txt next to song.mp3.")
        if not lyrics.is_file():
            raise ConfigError(f"--lyrics {lyrics}: no such file")
        ((name, track),) = tracks.items()
        tracks[name] = replace(track, lyrics=None, lyrics_path=_from_root(lyrics))
    source = Source(
        root=Path(Path.cwd().anchor), tracks=list(tracks.values()), notes=notes, lyrics_encoding=lyrics_encoding
    )
    return add_tags(source, SourceOptions(), {"lyrics"}, on_progress=on_progress) if with_lyrics else source


def _lyrics_in(folder: str) -> Callable[[str], str | None]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return lyrics_next_to([entry.name for entry in entries if entry.is_file()])
    return lyrics_next_to(())


def _from_root(path: Path) -> str:
    absolute = path.resolve()
    return absolute.relative_to(absolute.anchor).as_posix()
