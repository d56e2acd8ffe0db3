"""Options of reading a source and filtering its tracks.

The command line imports this module before it runs a command, so it must not import anything heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ...cache.bounds import Between, Count, Encoding, check_options
from ...cache.errors import ConfigError

GenreLevel = Literal["own", "all", "top"]

READER_OPTIONS = ("root", "genre_delimiter", "artist_delimiter", "genres_from_folders", "genre_level")
"""Options that only some data sets take; see :class:`mgc.pipeline.sources.manifest.KnownDataset`."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Options of a source: how to read it, and which tracks to keep.

    Attributes
    ----------
    dataset : name of the data set that the source is read as (``mgc manifest --list``); None detects it.
    root : folder that audio paths start from, if it is not the source's own.
    labels : table with ``id`` or ``path`` whose other columns replace those of the source.
    genre_delimiter, artist_delimiter : separator of names in one cell of text. Without a genre delimiter a cell with
        ``,`` ``;`` or ``|`` (also full-width) is refused. Without an artist delimiter a cell is one artist. Lists need
        neither.
    genres_from_folders : take the first folder of a file's path as its genre.
    merge_genres : ``common`` merges spellings of one genre by a built-in table, a file by a table of its own, with
        the columns ``from`` and ``to``; see :mod:`mgc.pipeline.sources.genre_aliases`.
    tags : take missing values from the tags of the audio files.
    genre_level : of a genre hierarchy: a track's ``own`` genres, ``all`` with their ancestors, or their ``top`` ones.
    lyrics_encoding : encoding of lyrics files without a byte order mark that are not UTF-8; None detects it.
    detect_language : detect the language of tracks that have none, from their lyrics.
    languages : keep tracks in these languages. ``zh`` keeps ``zh-CN`` too; ``instrumental`` means ``zxx``.
    min_labels : keep tracks with at least this many genres.
    require_lyrics : keep tracks whose lyrics have text.
    limit : keep the first tracks by id, at most this many.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    dataset: str | None = None
    root: Path | None = None
    labels: Path | None = None
    genre_delimiter: str | None = None
    artist_delimiter: str | None = None
    genres_from_folders: bool = False
    genre_level: GenreLevel | None = None
    lyrics_encoding: Encoding | None = None
    detect_language: bool = False
    merge_genres: str | None = None
    tags: bool = True
    languages: Sequence[str] = ()
    min_labels: Annotated[int, Between(0)] = 0
    require_lyrics: bool = False
    limit: Count | None = None

    def __post_init__(self) -> None:
        for name in ("root", "labels"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(path))  # callers may give a str
        if "" in (self.genre_delimiter, self.artist_delimiter):
            raise ConfigError("a delimiter must be at least one character")
        check_options(self)

    @property
    def reader_options(self) -> list[str]:
        """Names of the :data:`READER_OPTIONS` that are set."""
        return [name for name in READER_OPTIONS if getattr(self, name) not in (None, False)]
