"""Read the HDF5 form of a store, which :mod:`mgc.cache.upkeep.hdf5_writer` describes and writes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..bounds import problem
from ..errors import StoreCorruptError, StoreError
from ..format.documents import Attributes, refuse_other_format
from ..format.layout import genre_spec
from ..format.plan import plan_problem
from ..format.recipe import Recipe, TextRecipe, feature_set_recipe
from ..format.schema import (
    ArraySpec,
    added_arrays,
    array_name,
    dimension_clash,
    length_problem,
    size_problem,
    track_arrays,
)
from ..format.tables import ADDED_OUTCOME_SCHEMA, GENRE_SCHEMA, OUTCOME_SCHEMA, PLAN_SCHEMA, check_content
from ..messages import printable
from .hdf5_contents import array_fault, column_fault, dtype_of, foreign_contents, hdf5_errors, unknown_names
from .reader import StoreReader

USER_BLOCK = 512
_TRACKS = pa.schema([*PLAN_SCHEMA, *list(OUTCOME_SCHEMA)[1:]])
SEALED_FORMAT = "mgc feature store"
JSON_ATTRIBUTES = ("recipe", "added", "fingerprints", "library_versions", "flag_bits", "status_codes")


class Hdf5Reader(StoreReader):
    """Reader of the sealed form, one HDF5 file.

    Raises
    ------
    StoreFormatError, StoreCorruptError
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with hdf5_errors(path), contextlib.ExitStack() as stack:
            self._file = stack.enter_context(h5py.File(path, "r", locking=False))
            self._open()
            stack.pop_all()  # the file stays open

    def _open(self) -> None:
        for name, fault in foreign_contents(self._file):
            raise self._foreign(name, fault)
        attributes = self._attributes()
        self.recipe = Recipe.from_dict(attributes["recipe"])
        self.fingerprints, self.library_versions = attributes["fingerprints"], attributes["library_versions"]
        self.part_rows = attributes["part_rows"]
        added = attributes.get("added", {})
        self.added = {name: feature_set_recipe(entry["recipe"]) for name, entry in added.items()}
        self.embeds_genres = "genre_embedding" in self._file
        self.tracks = self._table("tracks", _TRACKS)
        rows = np.asarray(self.tracks.column("row"))
        self.n_rows = -(-(int(rows[-1]) + 1) // self.part_rows) * self.part_rows if len(rows) else 0
        if len(rows) and (rows[0] < 0 or (np.diff(rows) <= 0).any() or self.n_rows > len(rows) * self.part_rows):
            raise self._foreign("tracks/row", "is not ascending, or skips too many rows")
        self.genres = self._table("genres", GENRE_SCHEMA).column("name").to_pylist()
        self._check_arrays()

    def _attributes(self) -> dict[str, Any]:
        stored = self._file.attrs
        if "mgc_format_version" not in stored:
            raise KeyError("no attribute mgc_format_version")
        attributes: dict[str, Any] = {}
        for name in stored:
            value = stored[name]
            if name in JSON_ATTRIBUTES:
                attributes[name] = json.loads(value)
            else:
                attributes[name] = int(value) if isinstance(value, np.integer) else str(value)
        refuse_other_format(self._path, attributes["mgc_format_version"])
        embeds_genres = "genre_embedding" in self._file
        if fault := problem(attributes, Attributes) or plan_problem({**attributes, "embeds_genres": embeds_genres}):
            raise StoreCorruptError(f"{self._path}: attribute {fault}. Do not use this store.")
        return attributes

    def _check_arrays(self) -> None:
        """Raise StoreCorruptError if the arrays are not those of the recipe; no value is read before this check."""
        specs, tables = track_arrays(self.recipe), {"tracks": _TRACKS, "genres": GENRE_SCHEMA}
        genres = [] if not self.embeds_genres else [genre_spec(self.recipe.lyrics.hidden_size)]  # type: ignore[union-attr]
        for name, recipe in self.added.items():
            if fault := length_problem(recipe) or dimension_clash(specs, added_arrays(name, recipe), name):
                raise self._foreign(name, fault)
            specs += added_arrays(name, recipe)
            tables[f"added/{name}"] = ADDED_OUTCOME_SCHEMA
            genres += [genre_spec(recipe.hidden_size, name)] if isinstance(recipe, TextRecipe) else []
        names = {
            f"{table}/{field.name}{end}" for table in tables for field in tables[table] for end in ("", "_missing")
        }
        if unknown := unknown_names(self._file, names | {spec.name for spec in [*specs, *genres]}):
            raise self._foreign(unknown[0], "is not the name of a group or dataset of a store")
        if fault := size_problem(specs, self.part_rows):
            raise self._foreign("recipe", fault)
        for spec, n_rows in [*((spec, self.n_rows) for spec in specs), *((spec, len(self.genres)) for spec in genres)]:
            if fault := array_fault(self._file, spec, n_rows):
                raise self._foreign(spec.name, fault)

    def _foreign(self, name: str, fault: str) -> StoreCorruptError:
        return StoreCorruptError(f"{self._path}: {printable(name)}: {fault}. Do not use this store.")

    def local_files(self, prefix: str | None = None) -> Path:
        return self._path

    def genre_embedding(self, feature_set: str | None = None) -> npt.NDArray[np.float32]:
        return self._array(array_name("genre_embedding", feature_set)).astype(np.float32)

    def added_outcomes(self, feature_set: str) -> pa.Table:
        return self._table(f"added/{feature_set}", ADDED_OUTCOME_SCHEMA)

    def column(self, spec: ArraySpec, rows: npt.NDArray[np.int64], span: slice = slice(None)) -> npt.NDArray[Any]:
        return self._array(spec.name, span)

    def read_into(self, spec: ArraySpec, out: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
        dataset = self._file[spec.name]
        for i, row in enumerate(rows.tolist()):
            try:
                dataset.read_direct(out, np.s_[row, : out.shape[1]], np.s_[i])
            except OSError as error:
                raise self._damaged(spec.name) from error

    def close(self) -> None:
        self._file.close()

    def _array(self, name: str, span: slice = slice(None)) -> npt.NDArray[Any]:
        try:
            return np.asarray(self._file[name][span])
        except OSError as error:
            raise self._damaged(name) from error
        except MemoryError as error:
            raise StoreError(f"{self._path}: not enough memory for {name}. Use a machine with more.") from error

    def _damaged(self, name: str) -> StoreCorruptError:
        return StoreCorruptError(f"{self._path}: {name} does not match its checksum. Restore the file from a copy.")

    def _table(self, name: str, schema: pa.Schema) -> pa.Table:
        length: int | None = None
        columns = {}
        for field in schema:
            key = f"{name}/{field.name}"
            if fault := column_fault(self._file, key, dtype_of(field), length):
                raise self._foreign(key, fault)
            try:
                columns[field.name] = self._values(key, field)
            except (OSError, ValueError, KeyError, TypeError, RecursionError, pa.ArrowException) as error:
                if isinstance(error, StoreError):
                    raise
                raise self._damaged(key) from error
            length = len(columns[field.name])
        table = pa.table(columns, schema=schema)
        try:
            check_content(table, None if name == "tracks" or name.startswith("added") else range(length or 0))
        except ValueError as error:
            raise self._foreign(name, str(error)) from error
        return table

    def _values(self, name: str, field: pa.Field) -> pa.Array:
        values, missing = self._file[name][:], None
        if f"{name}_missing" in self._file:
            if fault := column_fault(self._file, f"{name}_missing", "bool", len(values)):
                raise self._foreign(f"{name}_missing", fault)
            missing = self._file[f"{name}_missing"][:]
        if pa.types.is_list(field.type):
            return pa.array([json.loads(text) for text in values.tolist()], field.type, mask=missing)
        if pa.types.is_string(field.type):
            values = np.asarray([text.decode() for text in values.tolist()], dtype=object)
        return pa.array(values, field.type, mask=missing)
