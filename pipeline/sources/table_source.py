"""Read tracks from the columns of a manifest, and of a table of labels."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...cache.errors import ManifestError
from ...cache.format.tables import SPLIT_SPELLINGS
from ...cache.messages import counted
from ...cache.names import explain_no_match, find_file, match_names
from .files import is_url, url_problem
from .manifest import COLUMNS, KnownDataset, Source, Track, check_collisions, check_id, normalise_language
from .names import look_alikes
from .options import SourceOptions
from .tables import TABLE_SUFFIXES, Row, Table, read_table

DESCRIPTIONS = ("artist", "artists", "song", "title", "genres", "language", "split")
"""Columns that a table of labels may replace."""

MANIFEST_COLUMNS = ("id", "path", *DESCRIPTIONS, "lyrics", "lyrics_path")
ROOT_CHECK_TRACKS = 20
_SYNONYMS = {
    "artist": {"artist", "artists"},
    "song": {"song", "title"},
    "genres": {"genres"},
    "lyrics": {"lyrics", "lyrics_path"},
}


def load_table(path: Path, options: SourceOptions) -> Source:
    """Read a manifest: a table with ``id``, ``path`` and any other of :data:`MANIFEST_COLUMNS`."""
    if not path.exists():
        raise ManifestError(f"{path}: no such file or folder")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise ManifestError(
            f"{path}: a source is a folder or a table ({', '.join(TABLE_SUFFIXES)}); to classify single songs use "
            "`mgc predict`, to extract one put it into a folder"
        )
    if not path.is_file():
        raise ManifestError(f"{path}: not a regular file")
    table = read_table(path, MANIFEST_COLUMNS)
    if not len(table.rows):
        raise ManifestError(f"{path}: the table lists no track")
    table.require(("id", "path"))
    table.refuse_near_misses(MANIFEST_COLUMNS)
    base = path.parent if options.root is None else options.root
    source = source_of_rows(path, table.rows, base, options)
    notes = list(source.notes)
    others = [column for column in table.columns if column not in MANIFEST_COLUMNS]
    if others and "genres" not in table.columns:
        have = ", ".join(map(repr, others))
        notes.append(f"{path}: no column 'genres', but {have}. Rename the column that contains the genres, if any")
    own_columns = given_columns(table.columns)
    source = replace(source, notes=notes, own_columns=own_columns)
    return source.with_origins(dict.fromkeys(sorted(own_columns), path.name))


def source_of_rows(
    path: Path, rows: Iterable[Row], base: Path, options: SourceOptions, *, check: bool = True
) -> Source:
    """Return the tracks of rows with the columns of a manifest, whose paths start from `base`.

    Parameters
    ----------
    path : the source, for messages.
    rows : can be iterated repeatedly.
    check : refuse a base in which no file exists (:func:`check_root`).
    """
    tracks = [_inside(base, read_track(row, options)) for row in rows]
    check_collisions([track.id for track in tracks], (row.location for row in rows))
    tracks.sort(key=lambda track: track.id)
    return Source(root=base, tracks=tracks, notes=check_root(base, tracks, path, options) if check else [])


def _inside(base: Path, track: Track) -> Track:
    """Return the track with absolute paths below `base` as paths that start from `base`; others stay as they are."""
    bases = (base.absolute(), base.resolve())

    def relative(name: str | None) -> str | None:
        if name is None or not name.startswith("/"):
            return name
        path = PurePosixPath(posixpath.normpath(name))
        inside = (str(path.relative_to(folder)) for folder in bases if path.is_relative_to(folder))
        return next(inside, name)

    return replace(track, path=relative(track.path) or track.path, lyrics_path=relative(track.lyrics_path))


def given_columns(columns: Collection[str]) -> frozenset[str]:
    """Return which of :data:`mgc.pipeline.sources.manifest.COLUMNS` a table with these columns decides."""
    return frozenset(name for name, synonyms in _SYNONYMS.items() if not synonyms.isdisjoint(columns))


def read_track(row: Row, options: SourceOptions) -> Track:
    """Return the track that a row of a manifest describes."""
    track_id = row.required_text("id")
    check_id(track_id, row.location)
    lyrics, lyrics_path = row.verbatim("lyrics"), row.verbatim("lyrics_path")
    if lyrics is not None and lyrics_path is not None:
        raise ManifestError(f"{row.location}: both 'lyrics' and 'lyrics_path' are given. Keep one.")
    fields = _described_fields(row, MANIFEST_COLUMNS, options)
    path = row.required_text("path")
    for location in (path, lyrics_path or ""):
        if is_url(location) and (fault := url_problem(location)):
            raise ManifestError(f"{row.location}: {fault}.")
    return Track(id=track_id, path=path, lyrics=lyrics, lyrics_path=lyrics_path or None, **fields)


def _described_fields(row: Row, columns: Collection[str], options: SourceOptions) -> dict[str, Any]:
    """Return the artists, song, genres, language and split that `row` has in `columns`, as fields of a track."""
    for name, synonym in (("artist", "artists"), ("song", "title")):
        if row.cells.get(name) is not None and row.cells.get(synonym) is not None:
            raise ManifestError(f"{row.location}: both {name!r} and {synonym!r} are given. Keep one.")
    values: dict[str, Any] = {}
    if "artist" in columns or "artists" in columns:
        artists = "artists" if row.cells.get("artists") is not None else "artist"
        values["artists"] = row.one_or_more(artists, options.artist_delimiter)
    if "song" in columns or "title" in columns:
        values["song"] = row.text("song") or row.text("title")
    if "genres" in columns:
        values["genres"] = row.names("genres", options.genre_delimiter)
    if "language" in columns:
        values["language"] = normalise_language(row.text("language"))
    if "split" in columns:
        values["split"] = _split(row)
    return values


def _split(row: Row) -> str | None:
    text = row.text("split")
    if text is None:
        return None
    if text.casefold() not in SPLIT_SPELLINGS:
        raise ManifestError(
            f"{row.location}: column 'split' holds {text!r}; known: {', '.join(SPLIT_SPELLINGS)}, or empty"
        )
    return SPLIT_SPELLINGS[text.casefold()]


def relabel(source: Source, table: Table, options: SourceOptions) -> Source:
    """Replace values of the tracks of `source` by the columns of a labels table, matched by id, else by path."""
    key = "id" if "id" in table.columns else "path"
    if key not in table.columns:
        table.require(("id",))
    table.refuse_near_misses((*DESCRIPTIONS, key))
    if not set(DESCRIPTIONS) & set(table.columns):
        table.require(("genres",))
    rows = {row.required_text(key): row for row in table.rows}
    check_collisions([row.required_text(key) for row in table.rows], (row.location for row in table.rows))
    keys = [track.id if key == "id" else track.path for track in source.tracks]
    row_of = match_names(keys, rows)
    matched = [name for name in keys if name in row_of]
    if not matched:
        raise ManifestError(
            f"{table.path}: no {key} matches the source: {next(iter(rows), None)!r} in the table, {keys[0]!r} in it. "
            f"{explain_no_match(rows, keys)}"
        )
    tracks = [
        replace(track, **_described_fields(rows[row_of[name]], table.columns, options)) if name in row_of else track
        for name, track in zip(keys, source.tracks, strict=True)
    ]
    notes = [f"{table.path.name} describes {len(matched)} of {counted(len(keys), 'track')}"]
    unused = rows.keys() - set(row_of.values())
    if unused:
        notes.append(f"{counted(len(unused), 'row')} of {table.path.name} without a track here")
    alike = [group for group in look_alikes([*unused, *(set(keys) - row_of.keys())]) if unused & set(group)]
    if alike:
        notes.append(
            f"{counted(len(alike), 'row')} of {table.path.name} would be of a track but for case, spaces, punctuation, "
            f"width or letters of another script: {', '.join(map(repr, alike[0]))}"
        )
    columns = dict(source.columns)
    for column in given_columns(set(table.columns) & set(DESCRIPTIONS)):
        has = [track.has(COLUMNS[column]) for track in tracks]
        listed = sum(has[i] for i, name in enumerate(keys) if name in row_of)
        others = sum(has) - listed
        origin = next(iter(columns.get(column, ())), "")
        columns[column] = {table.path.name: listed} | ({origin: others} if others else {})
    own_columns = source.own_columns | given_columns(set(table.columns) & set(DESCRIPTIONS))
    return replace(source, tracks=tracks, notes=source.notes + notes, own_columns=own_columns, columns=columns)


def sample_tracks(tracks: Sequence[Track]) -> Sequence[Track]:
    """Return about :data:`ROOT_CHECK_TRACKS` tracks, spread evenly over a source."""
    return tracks[:: max(1, len(tracks) // ROOT_CHECK_TRACKS)]


def check_root(root: Path, tracks: Sequence[Track], path: Path, options: SourceOptions) -> list[str]:
    """Refuse a root in which no file of a sample of tracks exists; for few tracks, or with --root, only add a note."""
    sample = [track for track in sample_tracks(tracks) if not is_url(track.path)]
    if not sample:
        return []
    if options.root is None and all(track.path.startswith("/") for track in tracks):
        folder = os.path.commonpath([os.path.dirname(track.path) for track in tracks])  # noqa: PTH120 (text of a table)
        raise ManifestError(
            f"{path}: all paths are absolute, such as {tracks[0].path!r}, and outside {root}. Give --root {folder}."
        )
    if any("\0" not in track.path and os.path.lexists(find_file(root, track.path)) for track in sample):
        return []
    text = f"{path}: none of {counted(len(sample), 'audio file')}, such as {sample[0].path!r}, is under {root}"
    if len(sample) >= ROOT_CHECK_TRACKS and options.root is None:
        raise ManifestError(f"{text}. Set the folder that the paths start from with --root.")
    return [text]


TABLE = KnownDataset(
    name="table",
    title="a table of tracks",
    needs="CSV, TSV, JSON Lines or Parquet with the columns id and path, and any of artist, song, genres, language, "
    "split, lyrics, lyrics_path; paths start from the folder of the table, or from --root",
    terms="your own",
    recognises=lambda path: not path.is_dir(),
    load=load_table,
    options=frozenset({"root", "genre_delimiter", "artist_delimiter"}),
)
