"""Read a store in an object store: records and tables from a mirror, shards by ranged reads or from the cache."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import StoreCorruptError
from ..format.layout import object_key
from ..format.records import commit_key, newest_record, read_commit
from ..format.schema import ArraySpec, added_arrays
from ..object_folder import in_threads
from ..places import ObjectPath
from .mapped_shard import CHECKSUM_BYTES, NO_CHUNK, MappedShard, check_chunk, chunk_bytes, index_bytes, read_index
from .mirror import Mirror
from .shard_cache import ShardCache
from .zarr_reader import ZarrReader

log = logging.getLogger(__name__)

WHOLE_SHARE = 0.25
"""Share of the rows of a part after whose reading, one by one or at once, its shard is downloaded whole."""


class ObjectReader(ZarrReader):
    """Reader of the Zarr form in an object store.

    Single rows are ranged reads of their inner chunks, after one of the shard index. If more rows of a part are read,
    its shard is downloaded whole, compared with the sha256 of its commit record, and kept in the cache.
    """

    def __init__(self, url: ObjectPath) -> None:
        self._mirror = Mirror.open(url)
        self.cache, self._announced = ShardCache(), False
        self._indices: dict[str, npt.NDArray[np.uint64]] = {}
        self._rows_read: Counter[str] = Counter()
        self._hashes: dict[tuple[str | None, int], dict[str, str]] = {}
        with self._mirror.errors():
            super().__init__(self._mirror.folder, mapped=True)
        self._owner = {array.name: name for name, recipe in self.added.items() for array in added_arrays(name, recipe)}

    def local_files(self, prefix: str | None = None) -> Path:
        if prefix is not None:
            self._mirror.fetch_below(prefix)
        return self._mirror.folder

    def genre_embedding(self, feature_set: str | None = None) -> npt.NDArray[np.float32]:
        self._mirror.fetch_below("genre_embedding")
        with self._mirror.errors():
            return super().genre_embedding(feature_set)

    def added_outcomes(self, feature_set: str) -> pa.Table:
        self._mirror.fetch_below(f"rows/{feature_set}/")
        with self._mirror.errors():
            return super().added_outcomes(feature_set)

    def column(self, spec: ArraySpec, rows: npt.NDArray[np.int64], span: slice = slice(None)) -> npt.NDArray[Any]:
        self._mirror.fetch_below(f"{spec.name}/c/")
        with self._mirror.errors():
            return super().column(spec, rows, span)

    def read_into(self, spec: ArraySpec, out: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
        parts = rows // self.part_rows
        with self._mirror.errors():
            ranged: list[tuple[int, npt.NDArray[np.intp]]] = []
            for part in np.unique(parts).tolist():
                target = np.flatnonzero(parts == part)
                if self._is_whole(spec, part, len(target)):
                    self._read_whole(spec, out, rows, target)
                else:
                    ranged.append((part, target))
            keys = [object_key(spec, part) for part, _ in ranged if object_key(spec, part) not in self._indices]
            for key, index in in_threads(lambda key: (key, self._read_index(spec, key)), keys) if keys else ():
                self._indices[key] = index
            for values, target in in_threads(lambda work: self._ranged(spec, out.shape[1], rows, *work), ranged):
                out[target] = values

    def _read_whole(
        self, spec: ArraySpec, out: npt.NDArray[Any], rows: npt.NDArray[np.int64], target: npt.NDArray[np.intp]
    ) -> None:
        values = np.empty((len(target), *out.shape[1:]), out.dtype)
        try:
            self._read_mapped(spec, values, rows[target])
        except StoreCorruptError:  # a damaged file in the cache: download it again, once
            part = int(rows[target[0]]) // self.part_rows
            key = object_key(spec, part)
            if (shard := self._shards.pop((spec.name, part), None)) is not None:
                shard.close()
            self.cache.remove(self._sha256(spec, part, key))
            self._read_mapped(spec, values, rows[target])
        out[target] = values

    def _is_whole(self, spec: ArraySpec, part: int, n_rows: int) -> bool:
        """Return whether to read from a whole shard: it is here, or many of its rows are read and it has room."""
        key = object_key(spec, part)
        if (spec.name, part) in self._shards or key not in self._mirror.listing:
            return True  # also an absent object, which is fill or refused
        listed = self._mirror.listing[key]
        if self.cache.find(self._sha256(spec, part, key), listed.size) is not None:
            return True
        self._rows_read[key] += n_rows
        return self._rows_read[key] >= WHOLE_SHARE * self.part_rows and self.cache.has_room(listed.size)

    def _map_shard(self, spec: ArraySpec, part: int) -> MappedShard:
        key = object_key(spec, part)
        if key not in self._mirror.listing:
            return super()._map_shard(spec, part)
        sha256, listed = self._sha256(spec, part, key), self._mirror.listing[key]
        path = self.cache.find(sha256, listed.size)
        if path is None:
            if not self._announced:
                self._announced = True
                log.warning("%s: %s", self._mirror.url, self.cache.note)
            path = self.cache.add(self._mirror.objects.get(key), sha256)
        if path is None:
            raise StoreCorruptError(
                f"{self._path / key}: its sha256 differs from the commit record. Run `mgc store repair`."
            )
        try:
            return MappedShard(path, spec, self.part_rows)
        except FileNotFoundError:  # another process has removed it since
            return self._map_shard(spec, part)

    def _refuse_missing_object(self, spec: ArraySpec, part: int) -> None:
        if object_key(spec, part) not in self._mirror.listing:
            self._objects_of(part, self._owner.get(spec.name))  # downloads the commit record
            super()._refuse_missing_object(spec, part)

    def _sha256(self, spec: ArraySpec, part: int, key: str) -> str:
        """Return the sha256 of an object in the commit record of its part."""
        sha256 = self._objects_of(part, self._owner.get(spec.name)).get(key)
        if sha256 is None:
            raise StoreCorruptError(f"{self._path / key}: in no commit record. Run `mgc store repair`.")
        return sha256

    def _objects_of(self, part: int, owner: str | None) -> dict[str, str]:
        """Return key -> sha256 of the objects in the commit record of a part."""
        if (owner, part) not in self._hashes:
            n = newest_record(self._path, part, owner)
            self._mirror.fetch([] if n is None else [commit_key(part, n, owner)])
            record = read_commit(self._path, part, owner)
            objects = [] if record is None else record["objects"]
            self._hashes[owner, part] = {item["key"]: item["sha256"] for item in objects}
        return self._hashes[owner, part]

    def _read_index(self, spec: ArraySpec, key: str) -> npt.NDArray[np.uint64]:
        size, n_tail = self._mirror.listing[key].size, index_bytes(spec, self.part_rows)
        tail = self._mirror.objects.get_ranges(key, [(size - n_tail, size)])[0] if size >= n_tail else b""
        return read_index(self._path / key, np.frombuffer(tail, np.uint8), size, spec, self.part_rows)

    def _ranged(
        self, spec: ArraySpec, length: int, rows: npt.NDArray[np.int64], part: int, target: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
        """Read the first `length` values of some rows of a part; return them and their positions in the output."""
        key, step, size = object_key(spec, part), spec.inner[1], chunk_bytes(spec)
        index = self._indices[key]
        values = np.full((len(target), length, *spec.tail[1:]), spec.fill, np.dtype(spec.dtype))
        chunks = [
            (i, k, row, int(index[row, k, 0]))
            for i, row in enumerate((rows[target] % self.part_rows).tolist())
            for k in range(-(-length // step))
            if index[row, k, 0] != NO_CHUNK
        ]
        spans = [(offset, offset + size) for *_, offset in chunks]
        read = self._mirror.objects.get_ranges(key, spans) if spans else []
        for (i, k, row, _), data in zip(chunks, read, strict=True):
            check_chunk(Path(self._path, key), np.frombuffer(data, np.uint8), spec, row)
            chunk = np.frombuffer(data[:-CHECKSUM_BYTES], np.dtype(spec.dtype).newbyteorder("<"))
            part_of = values[i, k * step : (k + 1) * step]
            part_of[...] = chunk.reshape(spec.inner[1:])[: len(part_of)]
        return values, target
