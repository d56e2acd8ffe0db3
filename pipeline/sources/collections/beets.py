"""A beets library: its SQLite file, opened read-only. The tags in it are those that the user has curated."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ....cache.errors import ManifestError
from ..manifest import KnownDataset, Source
from ..options import SourceOptions
from ..table_source import source_of_rows
from ..tables import Row

_MAGIC = b"SQLite format 3\0"
_SEPARATOR = "\\␀"
"""Separator of the values of a field with several values in beets' data base."""

_COLUMNS = ("id", "path", "artist", "artists", "title", "genre", "genres", "language", "lyrics")


def load_beets(path: Path, options: SourceOptions) -> Source:
    """Read the items of a library; the id of a track is its path from the root.

    The root is ``--root``, or the folder that contains all items. Libraries with paths relative to the music folder
    need ``--root``. The split is the flexible attribute ``split``.

    Raises
    ------
    ManifestError
        If the file is no library of beets, or cannot be read.
    """
    try:
        with closing(_connect(path)) as library:
            items = list(_items(library, path))
    except (sqlite3.Error, OSError) as error:
        raise ManifestError(f"{path}: not readable as a library of beets: {error}") from error
    if not items:
        raise ManifestError(f"{path}: the library has no items")
    absolute = [item["path"] for item in items if item["path"].startswith("/")]
    root = options.root
    if root is None and len(absolute) == len(items):
        root = Path(os.path.commonpath([os.path.dirname(name) for name in absolute]))  # noqa: PTH120 (text of a table)
    root = path.parent if root is None else root
    rows = [Row(f"{path}, item {item.pop('item')}", {**item, "id": _relative(item["path"], root)}) for item in items]
    return source_of_rows(path, rows, root, options)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.row_factory = sqlite3.Row
    return connection


def _tables(library: sqlite3.Connection) -> set[str]:
    return {name for (name,) in library.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def _items(library: sqlite3.Connection, path: Path) -> Iterator[dict[str, Any]]:
    tables = _tables(library)
    if "items" not in tables:
        raise ManifestError(f"{path}: no table 'items'; it is no library of beets")
    present = {row["name"] for row in library.execute("PRAGMA table_info(items)")}
    if not {"id", "path"} <= present:
        raise ManifestError(f"{path}: its items have no id or no path; it is no library of beets")
    splits: dict[int, str] = {}
    if "item_attributes" in tables:
        splits = dict(map(tuple, library.execute("SELECT entity_id, value FROM item_attributes WHERE key = 'split'")))
    columns = ", ".join(name for name in _COLUMNS if name in present)
    for row in library.execute(f"SELECT {columns} FROM items ORDER BY id"):  # noqa: S608 (names of our own)
        item = dict(row)
        name = item["path"]
        yield {
            "item": item["id"],
            "path": os.path.normpath(name.decode(errors="replace") if isinstance(name, bytes) else str(name)),
            "artists": _several(item.get("artists")) or item.get("artist"),
            "song": item.get("title"),
            "genres": _several(item.get("genres")) or item.get("genre"),
            "language": item.get("language"),
            "lyrics": item.get("lyrics") or None,
            "split": splits.get(item["id"]),
        }


def _several(text: Any) -> list[str] | None:
    return [name for name in text.split(_SEPARATOR) if name] if isinstance(text, str) and text else None


def _relative(name: str, root: Path) -> str:
    for folder in (root.absolute(), root.resolve()):
        if Path(name).is_relative_to(folder):
            return Path(name).relative_to(folder).as_posix()
    return name.lstrip("/")


def _recognises(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return False
        with closing(_connect(path)) as library:
            return {"items", "albums"} <= _tables(library)
    except (OSError, sqlite3.Error):
        return False


BEETS = KnownDataset(
    name="beets",
    title="a beets library",
    needs="the SQLite file of the library (musiclibrary.db, library.db); it is opened read-only; with paths relative "
    "to the music folder, that folder with --root",
    terms="your own",
    recognises=_recognises,
    load=load_beets,
    options=frozenset({"root", "genre_delimiter", "artist_delimiter"}),
)
