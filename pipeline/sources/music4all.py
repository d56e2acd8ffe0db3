"""Music4All's folder, read unchanged (layout: paper.md section 14)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...cache.errors import ManifestError
from .manifest import KnownDataset, Source, Track, check_collisions, check_id, normalise_language
from .options import SourceOptions
from .tables import Table, distinct_names, read_quoted, read_unquoted, unquote

MUSIC4ALL_TABLES = {
    "id_information.csv": ("artist", "song"),
    "id_genres.csv": ("genres",),
    "id_lang.csv": ("lang",),
}


def find_music4all(folder: Path) -> Path | None:
    """Find the folder that holds Music4All's tables: `folder`, or ``music4all/`` in it up to two levels down."""
    candidates = (folder, folder / "music4all", folder / "music4all" / "music4all")
    return next((path for path in candidates if any((path / name).is_file() for name in MUSIC4ALL_TABLES)), None)


def load_music4all(path: Path, options: SourceOptions) -> Source:
    """Read a Music4All folder unchanged: tab-separated ``.csv`` without quoting, in which "NA" is a name.

    The tracks are those that any of :data:`MUSIC4ALL_TABLES` lists. A table that is absent leaves its columns empty.
    """
    folder = find_music4all(path)
    assert folder is not None
    audio = folder / "audios"
    if not audio.is_dir():
        raise ManifestError(f"{audio}: no such folder; Music4All's clips belong there, as audios/<id>.mp3")
    notes: list[str] = []
    tables = {name: _music4all_table(folder / name, columns, notes) for name, columns in MUSIC4ALL_TABLES.items()}
    ids = sorted({track_id for table in tables.values() for track_id in table})
    if not ids:
        raise ManifestError(f"{folder}: the tables list no track")
    check_collisions(ids, [folder.name] * len(ids))
    notes += [
        f"{name} has no row for {len(ids) - len(table)} of {len(ids)} tracks"
        for name, table in tables.items()
        if table and len(table) < len(ids)
    ]
    clips = _by_stem(
        audio, ids, "files in audios/ are left out: no table has their id, or they are a track's second", notes
    )
    texts, inline = _music4all_lyrics(folder, ids, notes)
    tracks = []
    for track_id in ids:
        cells = {name: value for table in tables.values() for name, value in table.get(track_id, {}).items()}
        tracks.append(
            Track(
                id=track_id,
                path=f"audios/{clips.get(track_id, f'{track_id}.mp3')}",
                artists=distinct_names([cells.get("artist", "")]),
                song=cells.get("song", "").strip() or None,
                genres=distinct_names(unquote(cells.get("genres", "")).split(",")),
                language=normalise_language(unquote(cells.get("lang", "")).strip() or None),
                lyrics_path=f"lyrics/{texts[track_id]}" if track_id in texts else None,
                lyrics=inline.get(track_id),
            )
        )
    return Source(root=folder, tracks=tracks, notes=notes)


def _music4all_table(path: Path, columns: Sequence[str], notes: list[str]) -> dict[str, dict[str, str]]:
    if not path.is_file():
        notes.append(f"{path.name} is absent: no {' or '.join(columns)}")
        return {}
    table = read_unquoted(path)
    table.require(("id", *columns))
    return _keyed(table, columns)


def _keyed(table: Table, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    ids = [row.required_text("id") for row in table.rows]
    for track_id, row in zip(ids, table.rows, strict=True):
        check_id(track_id, row.location)
    check_collisions(ids, (row.location for row in table.rows))
    return {
        track_id: {name: row.verbatim(name) or "" for name in columns}
        for track_id, row in zip(ids, table.rows, strict=True)
    }


def _music4all_lyrics(folder: Path, ids: Sequence[str], notes: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return file names by id from ``lyrics/``, and texts by id from ``lyrics.csv`` if there is no such folder."""
    if (folder / "lyrics").is_dir():
        unused = "files in lyrics/ are left out: no table has their id, or they are no .txt"
        return _by_stem(folder / "lyrics", ids, unused, notes, suffix=".txt"), {}
    path = folder / "lyrics.csv"
    if not path.is_file():
        notes.append("neither lyrics/ nor lyrics.csv is there: no lyrics")
        return {}, {}
    try:
        table = read_unquoted(path)
    except ManifestError as error:
        # Some tool may have written it with quotes around texts of many lines.
        try:
            table = read_quoted(path, "\t")
        except ManifestError:
            raise error from None
        notes.append("lyrics.csv is quoted and was read so")
    table.require(("id", "lyrics"))
    texts = {track_id: cells["lyrics"] for track_id, cells in _keyed(table, ("lyrics",)).items()}
    unused_rows = len(texts.keys() - set(ids))
    if unused_rows:
        notes.append(f"{unused_rows} rows of lyrics.csv match no track of the other tables and are left out")
    return {}, texts


def _by_stem(
    folder: Path, ids: Iterable[str], unused: str, notes: list[str], suffix: str | None = None
) -> dict[str, str]:
    """Return the names of the files in `folder` by the id before their suffix; ``.mp3`` is preferred to others."""
    try:
        listing = os.listdir(folder)
    except OSError as error:
        raise ManifestError(f"{folder}: the folder cannot be read: {error.strerror}") from error
    track_ids, names, n_unused = set(ids), dict[str, str](), 0
    for name in sorted(listing, key=lambda name: (not name.endswith(suffix or ".mp3"), name)):
        stem, dot, _ = name.rpartition(".")
        fits = stem in track_ids and stem not in names and (suffix is None or name.endswith(suffix))
        if fits and dot:
            names[stem] = name
        else:
            n_unused += not name.startswith(".")
    if n_unused:
        notes.append(f"{n_unused} {unused}")
    return names


MUSIC4ALL = KnownDataset(
    name="music4all",
    title="Music4All",
    needs="id_information.csv, id_genres.csv and id_lang.csv (tab-separated), audios/ID.mp3, and lyrics/ID.txt or "
    "lyrics.csv, in the folder or in music4all/ below it",
    terms="on request to its authors, for research, under their agreement",
    recognises=lambda path: find_music4all(path) is not None,
    load=load_music4all,
)
