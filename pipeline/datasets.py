"""Anything that lists tracks -> :class:`~mgc.pipeline.manifest.Source`: Music4All, a manifest, a folder of audio."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..cache.errors import ConfigError, ManifestError
from .columns import MANIFEST_COLUMNS, read_track, relabel
from .manifest import NO_LANGUAGE, Source, Track, caseless, check_collisions, check_id, escaping_paths
from .music4all import find_music4all, load_music4all
from .tables import TABLE_SUFFIXES, distinct_names, read_table

NOT_AUDIO_SUFFIXES = (".tsv", ".csv", ".json", ".jsonl", ".txt", ".md")
ROOT_CHECK_TRACKS = 20


def load_source(
    source: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    genre_delimiter: str | None = None,
    artist_delimiter: str | None = None,
    genres_from_folders: bool = False,
) -> Source:
    """List the tracks of `source`, sorted by id.

    Parameters
    ----------
    source : a Music4All folder (also the one around its nested ``music4all/``), a manifest (``.csv .tsv .jsonl
        .parquet`` with columns ``id`` and ``path``, and any of ``artist`` or ``artists``, ``song`` or ``title``,
        ``genres``, ``language``, ``split``, ``lyrics`` or ``lyrics_path``), or a folder of audio files.
    root : folder that a manifest's paths start from; default: the manifest's own folder.
    labels : a table with ``id`` or ``path`` whose other columns replace what `source` says of those tracks.
    genre_delimiter, artist_delimiter : what separates names in one cell of text; without the first a cell that holds
        ``,`` ``;`` or ``|`` is refused, without the second a cell is one artist. Lists need neither.
    genres_from_folders : in a folder of audio, the first folder of a file's path is its genre.

    Raises
    ------
    ManifestError
        When the source cannot be read or breaks a rule; the message names the file, the line and the column.
    ConfigError
        When an option does not go with the kind of source.

    Notes
    -----
    In a folder of audio every regular file is a track but tables and texts (:data:`NOT_AUDIO_SUFFIXES`), hidden files
    and feature stores; its id is its path with the extension, and ``song.txt`` beside ``song.mp3`` its lyrics.
    """
    if "" in (genre_delimiter, artist_delimiter):
        raise ConfigError("a delimiter must be at least one character")
    path = Path(source)
    if path.is_dir():
        music4all = find_music4all(path)
        if root is not None:
            raise ConfigError(f"{path}: root goes with a manifest; a folder is its own root")
        if music4all and genres_from_folders:
            raise ConfigError(f"{music4all}: this is a Music4All folder, whose genres stand in id_genres.csv")
        found = load_music4all(music4all) if music4all else load_folder(path, genres_from_folders=genres_from_folders)
    else:
        if genres_from_folders:
            raise ConfigError(f"{path}: genres_from_folders goes with a folder of audio, and this is none")
        found = load_table(path, root, genre_delimiter=genre_delimiter, artist_delimiter=artist_delimiter)
    if labels is not None:
        if genres_from_folders:
            raise ConfigError("genres come from the labels file or from folder names, not from both")
        found = relabel(found, read_table(Path(labels), MANIFEST_COLUMNS), genre_delimiter, artist_delimiter)
    return replace(found, notes=found.notes + _remarks(found))


def load_table(
    path: Path,
    root: str | os.PathLike[str] | None = None,
    *,
    genre_delimiter: str | None = None,
    artist_delimiter: str | None = None,
) -> Source:
    """Read a manifest; see :func:`load_source`."""
    if not path.exists():
        raise ManifestError(f"{path}: there is no such file or folder")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise ManifestError(
            f"{path}: a source is a folder or a table ({', '.join(TABLE_SUFFIXES)}); to classify single songs use "
            "`mgc predict`, to extract one put it into a folder"
        )
    if not path.is_file():
        raise ManifestError(f"{path}: not a regular file")
    table = read_table(path, MANIFEST_COLUMNS)
    if not table.rows:
        raise ManifestError(f"{path}: the table lists no track")
    table.require(("id", "path"))
    table.refuse_near_misses(MANIFEST_COLUMNS)
    tracks = [read_track(row, genre_delimiter, artist_delimiter) for row in table.rows]
    check_collisions([track.id for track in tracks], [row.where for row in table.rows])
    base = Path(root) if root is not None else path.parent
    if not base.is_dir():
        raise ManifestError(f"{base}: the root is no folder")
    tracks.sort(key=lambda track: track.id)
    return Source(root=base, tracks=tracks, notes=_missing_everywhere(base, tracks, path, given=root is not None))


def load_folder(folder: Path, *, genres_from_folders: bool = False) -> Source:
    """Plan every regular file of a folder of audio; see :func:`load_source`."""
    names, notes = _walk(folder)
    suffixes = NOT_AUDIO_SUFFIXES
    audio = [name for name in names if not name.lower().endswith(suffixes)]
    if len(audio) < len(names):
        notes.append(f"{len(names) - len(audio)} tables and texts are no tracks")
    if not audio:
        raise ManifestError(f"{folder}: there is no audio file in this folder")
    texts = {name.rpartition(".")[0]: name for name in names if name.endswith(".txt")}
    tracks = []
    for name in sorted(audio):
        check_id(name, str(folder))
        parent = name.partition("/")[0] if "/" in name else ""
        tracks.append(
            Track(
                id=name,
                path=name,
                genres=distinct_names([parent]) if genres_from_folders else (),
                lyrics_path=texts.get(_stem(name)),
            )
        )
    check_collisions([track.id for track in tracks], [folder.name] * len(tracks))
    if genres_from_folders and not any(track.genres for track in tracks):
        raise ManifestError(f"{folder}: no file lies in a folder of its own genre")
    return Source(root=folder, tracks=tracks, notes=notes)


def _stem(name: str) -> str:
    head, _, last = name.rpartition("/")
    return f"{head}/{last.rpartition('.')[0] or last}" if head else last.rpartition(".")[0] or last


def _walk(folder: Path) -> tuple[list[str], list[str]]:
    """Relative names of the files that are not hidden, and notes on what was passed over."""
    names: list[str] = []
    passed: Counter[str] = Counter()

    def refuse(error: OSError) -> None:
        raise ManifestError(f"{error.filename}: the folder cannot be read: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        if "zarr.json" in files:
            passed["feature stores inside were not entered"] += 1
            folders.clear()
            continue
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        passed["linked folders were not entered"] += len(linked)
        passed["hidden files and folders were passed over"] += sum(name.startswith(".") for name in files + folders)
        folders[:] = [name for name in folders if name not in linked and not name.startswith(".")]
        for name in files:
            if name.startswith("."):
                continue
            path = Path(parent, name)
            if not _is_file_or_dead_link(path):
                passed["pipes, sockets and devices are no tracks"] += 1
                continue
            names.append(_encodable(path.relative_to(folder).as_posix()))
    return names, [f"{count} {what}" for what, count in passed.items() if count]


def _is_file_or_dead_link(path: Path) -> bool:
    # A link to nowhere stays in the plan: extraction says SRC_MISSING, which is better than silence.
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _encodable(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ManifestError(
            f"file name {os.fsencode(name)!r} is not UTF-8, so that no table can hold it; rename it"
        ) from error
    return name


def _missing_everywhere(root: Path, tracks: Sequence[Track], path: Path, *, given: bool) -> list[str]:
    """Refuse, or for few tracks remark, that not one of some tracks' files is under the root."""
    sample = tracks[:: max(1, len(tracks) // ROOT_CHECK_TRACKS)]
    if any("\0" not in track.path and os.path.lexists(root / track.path) for track in sample):
        return []
    text = f"{path}: none of {len(sample)} audio files looked for is under {root}"
    if len(sample) >= ROOT_CHECK_TRACKS and not given:
        raise ManifestError(f"{text}, the manifest's own folder; say where the paths start with --root")
    return [text]


def _remarks(source: Source) -> list[str]:
    notes = []
    instrumental = sum(track.language == NO_LANGUAGE for track in source.tracks)
    if instrumental:
        notes.append(
            f"{instrumental} tracks are instrumental: their language is {NO_LANGUAGE!r} (no linguistic content)"
        )
    genres: dict[str, set[str]] = {}
    for name in {name for track in source.tracks for name in track.genres}:
        genres.setdefault(caseless(name), set()).add(name)
    for names in sorted(sorted(names) for names in genres.values() if len(names) > 1):
        notes.append(f"genres that differ by case only are kept apart: {', '.join(map(repr, names))}")
    unlabelled = sum(not track.genres for track in source.tracks)
    if unlabelled:
        notes.append(f"{unlabelled} of {len(source.tracks)} tracks have no genre")
    outside = escaping_paths(source)
    if outside:
        notes.append(
            f"{len(outside)} tracks have a path outside the root and will fail (PATH_ESCAPE); first: {outside[0]!r}"
        )
    return notes
