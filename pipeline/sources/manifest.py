"""The list of tracks to extract: checked ids, filters with counts, and its file format.

A path is relative to the source's root, or a URL. Only :func:`mgc.pipeline.sources.files.local_file` turns it into a
file; an id never becomes a path. A track whose path leaves the root stays in the plan and fails there with
``PATH_ESCAPE``, so that it is counted.
"""

from __future__ import annotations

import functools
import json
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import langcodes
import numpy as np

from ...cache.durable import atomic_write
from ...cache.errors import ClipError, ManifestError
from ...cache.format.schema import Flag
from ...cache.messages import counted
from ...cache.names import caseless, find_file
from ...cache.steps import Progress
from ..text.lyrics import MAX_LYRICS_BYTES, Lyrics, load_lyrics, read_lyrics
from .files import local_file
from .genre_aliases import MergedGenre
from .options import SourceOptions

NO_LANGUAGE = "zxx"
"""ISO 639-2's code for "no linguistic content", which Music4All spells ``INTRUMENTAL``."""

LISTED_PAIRS = 50

COLUMNS = {"artist": "artists", "song": "song", "genres": "genres", "lyrics": "lyrics"}
"""Column of a table -> field of a track, for the columns that tags of audio files can also fill."""

TAGS = "tags"
"""Origin of values from the tags of audio files; see :class:`Source`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """One track of a source.

    Attributes
    ----------
    id : the source's own name of the track, unique also when case and Unicode form are ignored.
    path : audio file relative to the source's root, with ``/``.
    language : a BCP 47 tag (``en``, ``zh-CN``; ``zxx`` for instrumentals), or the source's own text if it is not a tag.
    split : ``train``, ``validation`` or ``test``, if the source has a split.
    lyrics_path, lyrics : file relative to the root, or the text itself; at most one of them is given.
    """

    id: str
    path: str
    artists: tuple[str, ...] = ()
    song: str | None = None
    genres: tuple[str, ...] = ()
    language: str | None = None
    split: str | None = None
    lyrics_path: str | None = None
    lyrics: str | None = None

    def has(self, field: str) -> bool:
        """Return whether one of :data:`COLUMNS` has a value; lyrics may be in a file."""
        return bool(getattr(self, field) or (field == "lyrics" and self.lyrics_path is not None))


@dataclass(frozen=True, kw_only=True)
class Source:
    """Tracks sorted by id, with the root of their paths, notes, and the provenance of their columns.

    Attributes
    ----------
    own_columns : the :data:`COLUMNS` that the source has, even if a cell is empty; tags fill the others.
    columns : column -> origin (such as the name of a table) -> number of tracks that have their value from there.
    lyrics_encoding : encoding of lyrics files without a byte order mark that are not UTF-8; None detects it.
    unpack : writes audio that is inside other files to its path; :func:`~.datasets.load_source` calls it.
    """

    root: Path
    tracks: list[Track]
    notes: list[str] = field(default_factory=list)
    own_columns: frozenset[str] = frozenset(COLUMNS)
    columns: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    lyrics_encoding: str | None = None
    merged_genres: list[MergedGenre] = field(default_factory=list)
    unpack: Callable[[Progress], None] | None = None

    def with_origins(self, origins: Mapping[str, str]) -> Source:
        """Return the source with its columns counted, all values of a column having one origin."""
        counts = {name: sum(track.has(COLUMNS[name]) for track in self.tracks) for name in origins}
        return replace(self, columns={name: {origins[name]: n} for name, n in counts.items() if n})

    @property
    def uses_tags(self) -> bool:
        """Whether a value is from the tags of an audio file."""
        return any(TAGS in origins for origins in self.columns.values())

    @property
    def provenance(self) -> dict[str, Any]:
        """Provenance of the columns and merged genres, as data; empty entries are left out."""
        merged = [genre.to_dict() for genre in self.merged_genres]
        columns = {name: dict(self.columns[name]) for name in COLUMNS if self.columns.get(name)}
        return {name: value for name, value in (("columns", columns), ("merged_genres", merged)) if value}

    def describe_columns(self) -> list[str]:
        """Return a note on the provenance of the columns."""
        total = len(self.tracks)
        columns = (
            f"{name}: " + ", ".join(f"{origin} ({n} of {total})" for origin, n in self.columns[name].items())
            for name in COLUMNS
            if self.columns.get(name)
        )
        line = "; ".join(columns)
        return [line] if line else []


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A data set that is read in the layout in which it is distributed.

    Attributes
    ----------
    name : as for ``--dataset``.
    needs : files that must be on disk, and where.
    terms : terms of use of its authors; facts, no legal advice.
    recognises : returns whether a source is this data set; may list folders, but must not open audio.
    load : returns the tracks of a source; raises ManifestError with the missing or wrong file and the expected content.
    options : :data:`mgc.pipeline.sources.options.READER_OPTIONS` that it accepts. Delimiters also apply to a
        table of labels.
    """

    name: str
    title: str
    needs: str
    terms: str
    recognises: Callable[[Path], bool]
    load: Callable[[Path, SourceOptions], Source]
    options: frozenset[str] = frozenset()


def check_id(track_id: str, location: str) -> None:
    """Refuse an id with a ``..`` component, NUL or a leading ``/``; `location` names its row."""
    parts = track_id.replace("\\", "/").split("/")
    if not track_id or "\0" in track_id or not parts[0] or ".." in parts:
        raise ManifestError(
            f"{location}: id {track_id!r} is refused: an id is not empty, does not start with '/' and has neither NUL "
            "nor a '..' component"
        )


def check_collisions(ids: Sequence[str], locations: Iterable[str]) -> None:
    """Raise ManifestError for ids that are equal but for case or Unicode form; list the pairs, up to a limit.

    `locations` are the file and line of each id; they are read only if there are such pairs.
    """
    hashes = np.fromiter((hash(caseless(track_id)) for track_id in ids), np.int64, len(ids))
    values, counts = np.unique(hashes, return_counts=True)
    if len(values) == len(ids):
        return
    first: dict[str, int] = {}
    pairs = []
    for index in np.flatnonzero(np.isin(hashes, values[counts > 1])).tolist():
        before = first.setdefault(caseless(ids[index]), index)
        if before != index:
            pairs.append((before, index))
    if not pairs:
        return
    listed = {index for pair in pairs[:LISTED_PAIRS] for index in pair}
    location = {index: place for index, place in enumerate(locations) if index in listed}
    lines = [f"{ids[a]!r} ({location[a]}) and {ids[b]!r} ({location[b]})" for a, b in pairs[:LISTED_PAIRS]]
    lines += [f"and {len(pairs) - LISTED_PAIRS} more"] if len(pairs) > LISTED_PAIRS else []
    problem = f"{len(pairs)} pairs of ids are the same, or differ only by case or Unicode form; rename one of each"
    raise ManifestError("\n  ".join([f"{problem}:", *lines]))


@functools.lru_cache(maxsize=4096)
def normalise_language(tag: str | None) -> str | None:
    """Normalise a language tag: ``zh-cn`` to ``zh-CN``, ``eng`` to ``en``, Music4All's ``INTRUMENTAL`` to ``zxx``.

    A word that is not a language tag ("english") is kept.
    """
    if tag is None:
        return None
    if tag.casefold() in ("intrumental", "instrumental"):
        return NO_LANGUAGE
    try:
        return langcodes.standardize_tag(tag)
    except ValueError:
        return tag


def filter_tracks(
    tracks: Sequence[Track], options: SourceOptions, root: Path | None = None
) -> tuple[list[Track], list[tuple[str, int]]]:
    """Apply the filters of `options`: languages, min_labels, require_lyrics, limit, in this order.

    Parameters
    ----------
    tracks : sorted by id, as in :class:`Source`.
    root : folder of lyrics files. With it they are read, so that an empty file or the word INSTRUMENTAL does not pass;
        without it a path to a file counts as lyrics.

    Returns
    -------
    kept : list of Track
    counts : list of (filter, tracks kept after it), one per active filter

    Raises
    ------
    ManifestError
        If a filter leaves no track.
    """
    kept = list(tracks)
    counts: list[tuple[str, int]] = []

    def count(name: str, tracks: list[Track], advice: str) -> list[Track]:
        if not tracks:
            raise ManifestError(f"the filter {name} leaves none of {len(kept)} tracks; {advice}")
        counts.append((name, len(tracks)))
        return tracks

    wanted = sorted({normalise_language(language) or "" for language in options.languages})
    if wanted:
        languages = Counter(track.language or "none" for track in kept)
        advice = "languages there: " + ", ".join(f"{name} ({n})" for name, n in languages.most_common(10))
        if languages["none"]:
            advice += "; --detect-language detects it from the lyrics"
        kept = count(f"language {','.join(wanted)}", [t for t in kept if _speaks(t.language, wanted)], advice)
    if options.min_labels:
        enough = [track for track in kept if len(track.genres) >= options.min_labels]
        kept = count(f"min-labels {options.min_labels}", enough, "give labels, or ask for fewer")
    if options.require_lyrics:
        kept = count(
            "require-lyrics", [t for t in kept if _has_words(t, root, options.lyrics_encoding)], "no lyrics were found"
        )
    if options.limit is not None:
        kept = count(f"limit {options.limit}", kept[: options.limit], "")
    return kept, counts


def write_manifest(source: Source, path: Path) -> None:
    """Write `source` as JSON Lines, one track per line in order of id; replace `path` atomically.

    Paths stay relative to ``source.root``. Reading takes the manifest's own folder as the root, so a manifest written
    to another folder is read with ``root=`` (``--root``). A manifest cannot refer to a folder outside its own, so a
    manifest of another person has no access beyond the folder that the user chose.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [column.name for column in fields(Track)]
    with atomic_write(path) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        for track in source.tracks:
            cells = {name: value for name in names if (value := getattr(track, name)) not in (None, ())}
            file.write(json.dumps(cells, ensure_ascii=False) + "\n")


def escaping_paths(source: Source) -> list[str]:
    """Return ids of tracks whose paths are absolute or lead outside the root (links are not followed)."""
    return [track.id for track in source.tracks if _climbs_out(track.path)]


def remark_links(root: Path, paths: Iterable[str], advice: str) -> list[str]:
    """Return notes on `paths` that lead outside `root` through links; `advice` is a format with the common folder."""
    inside, first = root.resolve(), None
    outside: list[Path] = []
    for path in paths:
        target = inside if _climbs_out(path) else find_file(root, path).resolve()
        if not target.is_relative_to(inside):
            first = first or path
            outside.append(target)
    if not outside:
        return []
    folder = os.path.commonpath([inside, *outside])
    return [
        f"{counted(len(outside), 'file')} {'is a link that leads' if len(outside) == 1 else 'are links that lead'} "
        f"out of {root} (PATH_ESCAPE); first: {first!r}. To read them, {advice.format(folder)}"
    ]


def _climbs_out(relative: str) -> bool:
    first = posixpath.normpath(relative).partition("/")[0]
    return relative.startswith("/") or "\0" in relative or first == ".."


def _speaks(language: str | None, wanted: Sequence[str]) -> bool:
    return language is not None and any(language == tag or language.startswith(f"{tag}-") for tag in wanted)


def _has_words(track: Track, root: Path | None, encoding: str | None) -> bool:
    if root is None and track.lyrics is None:
        return track.lyrics_path is not None
    return track_lyrics(track, root or Path(), encoding).text is not None


def track_lyrics(track: Track, root: Path, encoding: str | None) -> Lyrics:
    """Return the lyrics of a track, cleaned by the newest rule."""
    if track.lyrics is not None:
        return read_lyrics(track.lyrics)
    if track.lyrics_path is None:
        return Lyrics(None, Flag.NO_LYRICS)
    try:
        with local_file(root, track.lyrics_path, MAX_LYRICS_BYTES) as path:
            return load_lyrics(path, encoding=encoding)
    except ClipError:
        return Lyrics(None, Flag.LYRICS_FAILED)
