"""What a data set is here: how it is told from others, what must lie on disk, under which terms, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from .manifest import Source

GenreLevel = Literal["own", "all", "top"]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a user may say about a source; None and False where nothing was said.

    Attributes
    ----------
    root : folder that audio paths start from, where it is not the source's own.
    genre_delimiter, artist_delimiter : what separates names in one cell of text.
    genres_from_folders : the first folder of a file's path is its genre.
    genre_level : of a genre hierarchy: a track's ``own`` genres, ``all`` with their ancestors, or their ``top`` ones.
    """

    root: Path | None = None
    genre_delimiter: str | None = None
    artist_delimiter: str | None = None
    genres_from_folders: bool = False
    genre_level: GenreLevel | None = None

    @property
    def given(self) -> list[str]:
        """Names of what was said."""
        return [name for name, value in asdict(self).items() if value not in (None, False)]


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A data set that is read as it is handed out.

    Attributes
    ----------
    name : what ``--dataset`` calls it.
    needs : what must lie on disk, and where.
    terms : under which terms its makers hand it out. Facts for the reader, no advice.
    recognises : whether a source looks like it; may look into folders, never into audio.
    load : tracks of a source; raises ManifestError naming a file that is missing or wrong, and what was expected.
    options : which of :class:`ReadOptions` mean something for it. Delimiters also go with a table of labels.
    """

    name: str
    title: str
    needs: str
    terms: str
    recognises: Callable[[Path], bool]
    load: Callable[[Path, ReadOptions], Source]
    options: frozenset[str] = frozenset()
