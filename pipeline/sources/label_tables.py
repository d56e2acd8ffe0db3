"""Small tables next to a store: other labels for its tracks, and genre name prompts.

They need nothing but pyarrow, so that they can be read where only the training part of mgc is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from ...cache.errors import ManifestError
from .tables import Row, Table, read_table

T = TypeVar("T")


def labels_table(path: Path, wanted: Sequence[str]) -> Table:
    """Read the table that --labels names; see :func:`mgc.pipeline.sources.tables.read_table`.

    Raises
    ------
    ManifestError
        If it is no such table; the message for a missing one names the option.
    """
    if not path.exists():
        raise ManifestError(f"--labels {path}: there is no such file; want a table with the columns 'id' and 'genres'")
    return read_table(path, wanted)


def read_labels(path: Path, genre_delimiter: str | None = None) -> dict[str, tuple[str, ...]]:
    """Read genres by track id, from a table with the columns ``id`` and ``genres``.

    Parameters
    ----------
    genre_delimiter : what separates genres inside a cell; lists (JSON Lines, Parquet) need none.

    Raises
    ------
    ManifestError
        If it is no such table, names a track twice, or holds no track; the message names the line.
    """
    table = labels_table(path, ("id", "genres"))
    table.require(("id", "genres"))
    cells = ((row, row.required_text("id"), row.names("genres", genre_delimiter)) for row in table.rows)
    return _unique("track", cells, path)


def read_genre_names(path: Path) -> dict[str, str]:
    """Read genre name prompts, from a table with the columns ``genre`` and ``text``.

    Raises
    ------
    ManifestError
        If it is no such table, names a genre twice, or holds none; the message names the line.
    """
    table = read_table(path, ("genre", "text"))
    table.require(("genre", "text"))
    cells = ((row, row.required_text("genre").strip(), row.required_text("text").strip()) for row in table.rows)
    return _unique("genre", cells, path)


def _unique(noun: str, cells: Iterable[tuple[Row, str, T]], path: Path) -> dict[str, T]:
    """Collect values by name; refuse a name that is listed twice, and an empty table."""
    values: dict[str, T] = {}
    for row, name, value in cells:
        if name in values:
            raise ManifestError(f"{row.where}: {noun} {name!r} is listed already; keep one row a {noun}")
        values[name] = value
    if not values:
        raise ManifestError(f"{path}: the table lists no {noun}")
    return values
