"""Small tables beside a store: other labels for its tracks, and how genre names are read aloud.

They need nothing but pyarrow, so that they can be read where only the training part of mgc is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...cache.errors import ManifestError
from .tables import Table, read_table


def labels_table(path: Path, wanted: Sequence[str]) -> Table:
    """The table that --labels names; see :func:`mgc.pipeline.sources.tables.read_table`.

    Raises
    ------
    ManifestError
        If it is no such table; one that is not there is named with the option.
    """
    if not path.exists():
        raise ManifestError(f"--labels {path}: there is no such file; want a table with the columns 'id' and 'genres'")
    return read_table(path, wanted)


def read_labels(path: Path, genre_delimiter: str | None = None) -> dict[str, tuple[str, ...]]:
    """Genres by track id, from a table with the columns ``id`` and ``genres``.

    Parameters
    ----------
    genre_delimiter : what separates genres inside a cell; lists (JSON Lines, Parquet) need none.

    Raises
    ------
    ManifestError
        If it is no such table, names a track twice, or holds no track; says where.
    """
    table = labels_table(path, ("id", "genres"))
    table.require(("id", "genres"))
    labels: dict[str, tuple[str, ...]] = {}
    for row in table.rows:
        track_id = row.required_text("id")
        if track_id in labels:
            raise ManifestError(f"{row.where}: track {track_id!r} is listed already; keep one row a track")
        labels[track_id] = row.names("genres", genre_delimiter)
    if not labels:
        raise ManifestError(f"{path}: the table lists no track")
    return labels


def read_genre_names(path: Path) -> dict[str, str]:
    """How genres are read aloud to the text encoder, from a table with the columns ``genre`` and ``text``.

    Raises
    ------
    ManifestError
        If it is no such table, names a genre twice, or holds none; says where.
    """
    table = read_table(path, ("genre", "text"))
    table.require(("genre", "text"))
    names: dict[str, str] = {}
    for row in table.rows:
        genre, text = row.required_text("genre").strip(), row.required_text("text").strip()
        if genre in names:
            raise ManifestError(f"{row.where}: genre {genre!r} is listed already; keep one row a genre")
        names[genre] = text
    if not names:
        raise ManifestError(f"{path}: the table lists no genre")
    return names
