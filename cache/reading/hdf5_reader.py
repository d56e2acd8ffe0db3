"""Read the HDF5 form of a store; :mod:`mgc.cache.upkeep.hdf5_writer` describes and writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import StoreCorruptError, StoreFormatError
from ..format.plan import refuse_other_format
from ..format.recipe import Recipe, feature_set_recipe
from ..format.schema import ArraySpec, array_name
from ..format.tables import ADDED_OUTCOME_SCHEMA, OUTCOME_SCHEMA, PLAN_SCHEMA
from .reader import StoreReader

USER_BLOCK = 512
RECORDS = "records"
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
        try:
            self._file = h5py.File(path, "r", locking=False)
            attributes = dict(self._file.attrs)
            version = attributes["mgc_format_version"]
        except (OSError, KeyError) as error:
            raise StoreFormatError(f"{path}: no mgc feature store in HDF5 form ({error})") from error
        refuse_other_format(path, version)
        self.recipe = Recipe.from_dict(json.loads(attributes["recipe"]))
        self.fingerprints = json.loads(attributes["fingerprints"])
        self.library_versions = json.loads(attributes["library_versions"])
        self.part_rows = int(attributes["part_rows"])
        self.n_rows = int(self._file["status"].shape[0])
        self.embeds_genres = "genre_embedding" in self._file
        added = json.loads(attributes.get("added", "{}"))
        self.added = {name: feature_set_recipe(entry["recipe"]) for name, entry in added.items()}
        self.tracks = self._table("tracks", pa.schema([*PLAN_SCHEMA, *list(OUTCOME_SCHEMA)[1:]]))
        self.genres = [name.decode() for name in self._file["genres/name"][:].tolist()]

    def genre_embedding(self, feature_set: str | None = None) -> npt.NDArray[np.float32]:
        return self._array(array_name("genre_embedding", feature_set)).astype(np.float32)

    def added_outcomes(self, feature_set: str) -> pa.Table:
        return self._table(f"added/{feature_set}", ADDED_OUTCOME_SCHEMA)

    def column(self, spec: ArraySpec, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return self._array(spec.name)

    def read_into(self, spec: ArraySpec, out: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
        dataset = self._file[spec.name]
        for i, row in enumerate(rows.tolist()):
            try:
                dataset.read_direct(out, np.s_[row, : out.shape[1]], np.s_[i])
            except OSError as error:
                raise self._damaged(spec.name) from error

    def close(self) -> None:
        self._file.close()

    def _array(self, name: str) -> npt.NDArray[Any]:
        try:
            return np.asarray(self._file[name][:])
        except OSError as error:
            raise self._damaged(name) from error

    def _damaged(self, name: str) -> StoreCorruptError:
        return StoreCorruptError(f"{self._path}: {name} does not match its checksum; restore the file from a copy")

    def _table(self, name: str, schema: pa.Schema) -> pa.Table:
        try:
            columns = {field.name: self._values(f"{name}/{field.name}", field) for field in schema}
        except (OSError, KeyError) as error:
            raise self._damaged(name) from error
        return pa.table(columns, schema=schema)

    def _values(self, name: str, field: pa.Field) -> pa.Array:
        values = self._file[name][:]
        if pa.types.is_list(field.type):
            return pa.array([json.loads(text) for text in values.tolist()], field.type)
        missing = self._file[f"{name}_missing"][:] if f"{name}_missing" in self._file else None
        if pa.types.is_string(field.type):
            values = np.asarray([text.decode() for text in values.tolist()], dtype=object)
        return pa.array(values, field.type, mask=missing)
