"""FMA (Defferrard et al. 2017): ``tracks.csv`` with its header of two rows, ``genres.csv`` with the genre hierarchy.

``fma_metadata/`` is next to one of ``fma_small/ fma_medium/ fma_large/ fma_full/``, in which track 2 is
``000/000002.mp3``. A subset holds the smaller ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import ManifestError
from ...cache.format.tables import SPLIT_SPELLINGS
from .manifest import KnownDataset, Source, Track, check_collisions, normalise_language
from .options import GenreLevel, SourceOptions
from .tables import Row, Table, distinct_names, quoted_records, read_quoted, rows_of

METADATA = "fma_metadata"
SUBSETS = ("small", "medium", "large")
AUDIO = {"fma_small": 1, "fma_medium": 2, "fma_large": 3, "fma_full": 3}
"""Audio folder -> number of :data:`SUBSETS` in it; ``fma_full`` has the tracks of ``fma_large``, untrimmed."""

COLUMNS = ("set.split", "set.subset", "track.genres", "track.title", "track.language_code", "artist.name")


@dataclass(frozen=True)
class Genre:
    """A row of genres.csv; a top genre's parent is 0."""

    title: str
    parent: int


def load_fma(folder: Path, options: SourceOptions) -> Source:
    """Read the tracks of the subset whose audio folder exists, with FMA's own split.

    A track has the genres of its column ``genres``, and by default their ancestors in ``genres.csv`` too.
    """
    metadata, audio = _places(folder)
    for name in ("tracks.csv", "genres.csv"):
        if not (metadata / name).is_file():
            raise ManifestError(f"{metadata / name}: no such file. Unpack fma_metadata.zip there.")
    genres, level = read_genres(metadata / "genres.csv"), options.genre_level or "all"
    wanted = SUBSETS[: AUDIO[audio.name]]
    prefix = "" if folder == audio else f"{audio.name}/"
    tracks, wheres = [], []
    for row in read_two_row_header(metadata / "tracks.csv", COLUMNS):
        if row.text("set.subset") in wanted:
            tracks.append(_track(row, prefix, genres, level))
            wheres.append(row.location)
    if not tracks:
        raise ManifestError(f"{metadata / 'tracks.csv'}: no track whose subset is {' or '.join(wanted)}")
    check_collisions([track.id for track in tracks], wheres)
    tracks.sort(key=lambda track: track.id)
    notes = [f"{audio.name}: the tracks of subset {' and '.join(wanted)}", f"genres: {LEVELS[level]}"]
    return Source(root=folder, tracks=tracks, notes=notes)


LEVELS: Mapping[GenreLevel, str] = {
    "own": "those a track was given",
    "all": "those a track was given, and all their ancestors (--genre-level own or top for others)",
    "top": "the top genres above those a track was given",
}


def _places(folder: Path) -> tuple[Path, Path]:
    """Find the metadata folder and the audio folder."""
    if folder.name in AUDIO:
        return folder.parent / METADATA, folder
    audio = [folder / name for name in AUDIO if (folder / name).is_dir()]
    if not audio:
        raise ManifestError(
            f"{folder}: there is none of {', '.join(AUDIO)} next to {METADATA}. Unpack one of them there."
        )
    if len(audio) > 1:
        names = ", ".join(path.name for path in audio)
        raise ManifestError(f"{folder}: there are {names}. Use one of them as the source, such as {audio[0]}.")
    return folder / METADATA, audio[0]


def read_two_row_header(path: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    """Yield the rows of a table with `columns` that pandas wrote with two header rows and a named index.

    A column is named by both rows, ``track.title``; the index is ``track_id``.

    Raises
    ------
    ManifestError
        If the header differs, a column is missing, or a row is invalid.
    """
    records = quoted_records(path, ",")
    (_, above), (_, below), (_, index) = (next(records, (0, [""])) for _ in range(3))
    if not index or index[0] != "track_id" or len(above) != len(below):
        raise ManifestError(
            f"{path}: expected a header of two rows, such as ',album,...,track' and ',comments,...,title', and then a "
            "row that starts with 'track_id'"
        )
    names = [f"{first}.{second}" for first, second in zip(above[1:], below[1:], strict=True)]
    Table(path, tuple(names), []).require(columns)
    yield from rows_of(path, ("track_id", *names), records)


def read_genres(path: Path) -> dict[int, Genre]:
    """Read genres.csv: id -> title and parent; refuse a parent that is not in the table."""
    table = read_quoted(path, ",")
    table.require(("genre_id", "parent", "title"))
    genres = {
        _number(row, "genre_id"): Genre(row.required_text("title").strip(), _number(row, "parent"))
        for row in table.rows
    }
    for number, genre in genres.items():
        if genre.parent not in genres and genre.parent != 0:
            raise ManifestError(f"{path}: genre {number} ({genre.title}) has the parent {genre.parent}, no genre here")
    return genres


def _track(row: Row, prefix: str, genres: Mapping[int, Genre], level: GenreLevel) -> Track:
    number, split = f"{_number(row, 'track_id'):06}", row.text("set.split")
    if split is not None and split not in SPLIT_SPELLINGS:
        raise ManifestError(f"{row.location}: set.split holds {split!r}. Expected training, validation or test.")
    return Track(
        id=number,
        path=f"{prefix}{number[:3]}/{number}.mp3",
        artists=distinct_names([row.text("artist.name") or ""]),
        song=row.text("track.title"),
        genres=distinct_names(_titles(row, genres, level)),
        language=normalise_language(row.text("track.language_code")),
        split=None if split is None else SPLIT_SPELLINGS[split],
    )


def _titles(row: Row, genres: Mapping[int, Genre], level: GenreLevel) -> Iterator[str]:
    """Return the genre names of a track; an ancestor follows its descendant."""
    for number in _numbers(row):
        line = _lineage(number, genres, row.location)
        kept = {"own": line[:1], "all": line, "top": line[-1:]}[level]
        yield from (genres[ancestor].title for ancestor in kept)


def _numbers(row: Row) -> list[int]:
    text = row.text("track.genres") or "[]"
    try:
        numbers = json.loads(text)
    except ValueError:
        numbers = None
    if not isinstance(numbers, list) or not all(isinstance(number, int) for number in numbers):
        raise ManifestError(f"{row.location}: track.genres holds {text!r}. Expected genre ids such as '[21, 45]'.")
    return numbers


def _lineage(number: int, genres: Mapping[int, Genre], location: str) -> list[int]:
    """Return a genre, its parent and so on up to a top genre."""
    line = [number]
    while (parent := genres[line[-1]].parent if line[-1] in genres else None) != 0:
        if parent is None or parent in line:
            why = "is no genre of genres.csv" if parent is None else "is its own ancestor in genres.csv"
            raise ManifestError(f"{location}: genre {line[-1]} {why}")
        line.append(parent)
    return line


def _number(row: Row, column: str) -> int:
    text = row.required_text(column)
    if not text.isdecimal():
        raise ManifestError(f"{row.location}: {column} holds {text!r}. Expected a whole number.")
    return int(text)


def _recognises(path: Path) -> bool:
    if path.name in AUDIO and path.is_dir():
        return (path.parent / METADATA).is_dir()
    return (path / METADATA).is_dir() or any((path / name).is_dir() for name in AUDIO)


FMA = KnownDataset(
    name="fma",
    title="FMA (Free Music Archive)",
    needs="fma_metadata/tracks.csv and fma_metadata/genres.csv next to one of fma_small/, fma_medium/, fma_large/, "
    "fma_full/; where there are several, name the one to read",
    terms="metadata CC BY 4.0; audio under the licence each artist chose (column license of tracks.csv)",
    recognises=_recognises,
    load=load_fma,
    options=frozenset({"genre_level"}),
)
