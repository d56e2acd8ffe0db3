"""The work of an export: its files. Each appears in one step, and a repeated export keeps those that are finished."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from ..claims import lock
from ..durable import file_sha256, fingerprint, make_folders, names_in, replace_file, seal, unseal
from ..errors import ConfigError, StoreCorruptError
from ..format.recipe import recipe_document
from ..format.tables import table_bytes
from ..reading.view import StoreView
from ..steps import Progress, within
from .features import Feature, Rows

EXPORT_FILE = "export.json"
TRACK_COLUMNS = (
    *("id", "path", "artists", "song", "genres", "language", "split", "flags"),
    *("source_sha256", "lyrics_sha256", "offset_s", "seconds", "sample_rate_hz", "channels"),
)
"""Columns of the store's table of tracks that an export has."""

NO_SPLIT = "unsplit"
"""Name in files for tracks without a split."""

FILE_BYTES = 2**28
"""Bytes of features per file, in formats that divide the tracks into files."""

_DRAFT = re.compile(r"\..+\.\d+\.partial")


@dataclass(frozen=True, kw_only=True)
class Export:
    """What a format writes: the tracks of a view and their features.

    Attributes
    ----------
    tracks : one row per track, :data:`TRACK_COLUMNS`.
    licence : licence of the features, for formats with a field for it.
    """

    view: StoreView
    format: str
    folder: Path
    tracks: pa.Table
    features: list[Feature]
    licence: str | None = None

    @cached_property
    def document(self) -> dict[str, Any]:
        """Recipe, fingerprints and versions of the store, and a description of each feature."""
        store = self.view.store
        return {
            "format": self.format,
            "tracks": len(self.view),
            "recipe": store.recipe.to_dict(),
            "fingerprints": store.fingerprints,
            "added": {name: recipe_document(recipe) for name, recipe in sorted(store.added.items())},
            "library_versions": store.library_versions,
            "genres": self.view.genres,
            "features": {feature.name: feature.to_dict() for feature in self.features},
            **({} if self.licence is None else {"licence": self.licence}),
        }

    @cached_property
    def identity(self) -> str:
        """Hash of all that determines the bytes of the export."""
        table = hashlib.sha256(table_bytes(self.tracks)).hexdigest()
        return fingerprint({**self.document, "table": table})

    @cached_property
    def row_bytes(self) -> int:
        """Bytes per track of all features in memory."""
        return sum(feature.row_bytes for feature in self.features)

    def rows(self, positions: Rows) -> list[dict[str, Any]]:
        """Return the description of tracks as JSON values, without null values."""
        rows: list[dict[str, Any]] = self.tracks.take(positions).to_pylist()
        return [{name: value for name, value in row.items() if value is not None} for row in rows]

    def by_split(self) -> dict[str, Rows]:
        """Return the positions of the tracks of each split, of those that have tracks."""
        splits = np.asarray(self.tracks.column("split").fill_null(NO_SPLIT).to_pylist(), dtype=object)
        names = ("train", "validation", "test", NO_SPLIT)
        positions = {name: np.flatnonzero(splits == name) for name in names}
        return {name: rows for name, rows in positions.items() if len(rows)}

    def divided(self, pattern: str) -> Iterator[tuple[str, Rows]]:
        """Yield key and tracks of each file that holds at most :data:`FILE_BYTES` of the tracks of one split.

        `pattern` has the fields ``split``, ``i`` and ``n``.
        """
        n_rows = max(1, FILE_BYTES // max(1, self.row_bytes))
        for split, positions in self.by_split().items():
            n = -(-len(positions) // n_rows)
            for i in range(n):
                yield pattern.format(split=split, i=i, n=n), positions[i * n_rows : (i + 1) * n_rows]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One file of an export, or a folder of files that appear together.

    Attributes
    ----------
    n : units of work, for the progress.
    write : writes the file at a path in one step; the second argument receives units that are done.
    """

    key: str
    n: int
    write: Callable[[Path, Callable[[int], None]], None]


def small_piece(key: str, content: Callable[[], bytes]) -> Piece:
    """Return a file whose content fits in memory."""
    return Piece(key=key, n=0, write=lambda path, _: replace_file(path, content()))


@dataclass(frozen=True, kw_only=True)
class Written:
    """Files of a finished export, and how many of them this call wrote."""

    files: list[dict[str, Any]]
    n_written: int


def write_export(export: Export, pieces: list[Piece], progress: Progress) -> Written:
    """Write the missing files of an export.

    Raises
    ------
    ConfigError
        If the folder holds other files, or another process writes to it.
    """
    export.folder.mkdir(parents=True, exist_ok=True)
    with lock(export.folder) as locked:
        if not locked:
            raise ConfigError(f"{export.folder}: another export is writing to it. Wait for it, or use another folder.")
        return _write(export, pieces, progress)


def _write(export: Export, pieces: list[Piece], progress: Progress) -> Written:
    target = export.folder
    files, written, done = _begun(export, [piece.key for piece in pieces]), 0, 0
    total = sum(piece.n for piece in pieces)
    for piece in pieces:
        path = target / piece.key
        if not path.exists():
            make_folders(target, piece.key)
            on_piece = within(progress, step="export", before=done, total=total)
            piece.write(path, lambda n, show=on_piece: show("", n, 0))  # type: ignore[misc]
            written += 1
        done += piece.n
        progress("export", done, total)
    if written or files is None:
        files = list(_described(target, [piece.key for piece in pieces], progress))
        _write_document(export, {"files": files})
    return Written(files=files, n_written=written)


def _begun(export: Export, keys: Collection[str]) -> list[dict[str, Any]] | None:
    """Begin or continue an export; return the files of a finished one.

    A piece with a file that is missing, or not as long as it was at the end of the export, is removed.
    """
    target = export.folder
    existing = names_in(target, "[!.]*")
    if not existing:
        _write_document(export, {})
    elif EXPORT_FILE not in existing:
        raise ConfigError(f"{target}: holds other files, such as {min(existing)!r}. Use a new folder.")
    document = _read_document(target)
    if document["identity"] != export.identity:
        raise ConfigError(
            f"{target}: an export of other tracks, features or options, or of an earlier state of the store. "
            "Use a new folder."
        )
    for draft in target.rglob(".*.partial"):
        if _DRAFT.fullmatch(draft.name):
            draft.unlink()
    files: list[dict[str, Any]] | None = document.get("files")
    for file in files or ():
        path = target / file["key"]
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            _remove_piece(target, file["key"], keys)
    return files


def _remove_piece(target: Path, key: str, keys: Collection[str]) -> None:
    """Remove the piece that has a file; it may be a folder."""
    piece = next((name for name in (key, *map(str, PurePosixPath(key).parents)) if name in keys), None)
    if piece is not None and (target / piece).is_dir():
        shutil.rmtree(target / piece)
    elif piece is not None:
        (target / piece).unlink(missing_ok=True)


def _read_document(target: Path) -> dict[str, Any]:
    try:
        return unseal(target / EXPORT_FILE)
    except StoreCorruptError as error:
        raise ConfigError(f"{target}: {EXPORT_FILE} is not that of an export. Use a new folder.") from error


def _write_document(export: Export, more: dict[str, Any]) -> None:
    document = {"identity": export.identity, **export.document, **more}
    replace_file(export.folder / EXPORT_FILE, seal(document))


def _described(target: Path, keys: Sequence[str], progress: Progress) -> Iterator[dict[str, Any]]:
    for done, key in enumerate(keys, start=1):
        piece = target / key
        for path in sorted(piece.iterdir()) if piece.is_dir() else [piece]:
            name = path.relative_to(target).as_posix()
            yield {"key": name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
        progress("hash", done, len(keys))
