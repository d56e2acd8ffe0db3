"""Reading a store in its Zarr form.

Local shards of plain codecs are memory-mapped through their own Zarr shard index; anything else goes through zarr.
Both ways give identical bytes.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import zarr

from ..errors import StoreCorruptError, StoreFormatError
from ..format.layout import object_key
from ..format.plan import Plan, read_genres, read_plan, read_tracks
from ..format.records import committed, outcomes_key, read_commit
from ..format.schema import FAILED, ArraySpec, Reason, added_arrays
from ..format.tables import ADDED_OUTCOME_SCHEMA, OUTCOME_SCHEMA, absent_outcomes, read_table
from ..writing import commits, publish
from ..writing.takedowns import dropped_ids
from .mapped_shard import MappedShard, max_mapped_files

_MAX_MAPPED = max_mapped_files()
_FETCH_ROWS = 64
"""Rows that the disk is asked for at once: 20 MB of mels."""


class ZarrReader:
    """What :class:`mgc.cache.reading.store.FeatureStore` reads a folder through."""

    def __init__(self, path: Path, *, mapped: bool) -> None:
        self._path = path
        self._plan = _visible_plan(path)
        self._group = _open_group(path)
        self._mapped = mapped
        self._shards: OrderedDict[tuple[str, int], MappedShard] = OrderedDict()
        self.recipe = self._plan.recipe
        self.fingerprints = self._plan.fingerprints
        self.library_versions: dict[str, str] = dict(self._plan.document["library_versions"])
        self.part_rows = self._plan.part_rows
        self.n_rows = self._plan.n_rows
        self.embeds_genres = self._plan.embeds_genres
        self.added = {name: one.recipe for name, one in self._plan.added.items()}
        self.tracks = _read_outcomes(path, self._plan)
        self.genres = read_genres(path, self._plan)

    def genre_embedding(self, feature_set: str | None = None) -> npt.NDArray[np.float32]:
        name = "genre_embedding" if feature_set is None else f"genre_embedding_{feature_set}"
        return np.asarray(self._array(name)[: len(self.genres)], dtype=np.float32)

    def added_outcomes(self, feature_set: str) -> pa.Table:
        """What became of the tracks in a feature set that joined the store; rows of its committed parts."""
        done = committed(self._path, feature_set).keys() - commits.waiting_parts(self._path, feature_set)
        tables = [
            read_table(self._path / outcomes_key(part, feature_set), ADDED_OUTCOME_SCHEMA) for part in sorted(done)
        ]
        return pa.concat_tables([ADDED_OUTCOME_SCHEMA.empty_table(), *tables])

    def column(self, spec: ArraySpec, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A small array whole; `rows` are those that must be there."""
        for part in np.unique(rows // self.part_rows).tolist():
            self._refuse_missing_object(spec, part)
        return np.asarray(self._array(spec.name)[: self.n_rows])

    def read_into(self, spec: ArraySpec, out: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
        """Fill `out`, (len(rows), length, ...), from a large array."""
        if self._mapped:
            for first in range(0, len(rows), _FETCH_ROWS):
                some = slice(first, first + _FETCH_ROWS)
                self._read_mapped(spec, out[some], rows[some])
            return
        array = self._array(spec.name)
        for i, row in enumerate(rows.tolist()):
            self._refuse_missing_object(spec, row // self.part_rows)
            out[i] = array[(row, slice(out.shape[1]))]

    def _read_mapped(self, spec: ArraySpec, out: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
        """The disk is told of all rows before the first is waited for; page faults would ask for them bit by bit."""
        places = [(row // self.part_rows, row % self.part_rows) for row in rows.tolist()]
        for part, row in places:
            self._shard(spec, part).fetch(row, out.shape[1])
        for i, (part, row) in enumerate(places):
            self._shard(spec, part).read_into(out[i], row)

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self._group[name]
        assert isinstance(array, zarr.Array)
        return array

    def _shard(self, spec: ArraySpec, part: int) -> MappedShard:
        shard = self._shards.get((spec.name, part))
        if shard is None:
            self._refuse_missing_object(spec, part)
            shard = MappedShard(self._path / object_key(spec, part), spec, self.part_rows)
            self._shards[spec.name, part] = shard
            if len(self._shards) > _MAX_MAPPED:
                self._shards.popitem(last=False)[1].close()
        self._shards.move_to_end((spec.name, part))
        return shard

    def _refuse_missing_object(self, spec: ArraySpec, part: int) -> None:
        """A deleted object would read as fill; only one that the commit does not list may be absent."""
        key = object_key(spec, part)
        if (self._path / key).exists():
            return
        owners = {one.name: name for name, recipe in self.added.items() for one in added_arrays(name, recipe)}
        feature_set = owners.get(spec.name)
        record = read_commit(self._path, part, feature_set)
        if record is None:
            raise StoreCorruptError(f"{self._path / key}: taken out since the store was opened; open it again")
        if any(item["key"] == key for item in record["objects"]):
            raise StoreCorruptError(
                f"{self._path / key}: missing, though part {part} was committed with it; "
                f"`mgc store repair {self._path} --source SOURCE` makes it again"
            )


def _visible_plan(store: Path) -> Plan:
    """The plan as far as readers may see it: what is decided is rolled forward where we may write, else not shown."""
    plan = read_plan(store)
    with contextlib.suppress(OSError):
        commits.finish(store)
    n = len(plan.generations)
    while n > 1:
        last = plan.generations[n - 1]
        if not publish.staged_folder(store, last.key, last.record).is_dir():
            break
        if (store / "tracks" / f"{last.number}.parquet").exists():
            break
        n -= 1
    return plan.through(n)


def _read_outcomes(store: Path, plan: Plan) -> pa.Table:
    """The planned tracks with what became of them."""
    done = committed(store).keys() - commits.waiting_parts(store)
    planned, outcomes = [], []
    for generation in plan.generations:
        planned.append(read_tracks(store, generation))
        for part in plan.parts_of(generation):
            rows = plan.part_range(part)
            if part in done:
                outcomes.append(read_table(store / "rows" / f"{part}.parquet", OUTCOME_SCHEMA))
            else:
                outcomes.append(absent_outcomes(rows.start, len(rows)))
    table = pa.concat_tables(planned)
    found = pa.concat_tables(outcomes) if outcomes else OUTCOME_SCHEMA.empty_table()
    if found.num_rows != table.num_rows:
        raise StoreCorruptError(
            f"{store}: {found.num_rows} outcomes of {table.num_rows} tracks; run `mgc store verify`"
        )
    for name in OUTCOME_SCHEMA.names[1:]:
        table = table.append_column(OUTCOME_SCHEMA.field(name), found.column(name))
    return _without_dropped(table.combine_chunks(), dropped_ids(store))


def _without_dropped(tracks: pa.Table, dropped: set[str]) -> pa.Table:
    """Tracks taken down are shown as failed, whether or not their bytes are gone."""
    if not dropped:
        return tracks
    gone = pc.is_in(tracks.column("id"), pa.array(sorted(dropped), pa.string()))
    for name, value in (("status", FAILED), ("reason", str(Reason.DROPPED)), ("detail", None), ("flags", 0)):
        field = OUTCOME_SCHEMA.field(name)
        values = pc.if_else(gone, pa.scalar(value, field.type), tracks.column(name))
        tracks = tracks.set_column(tracks.schema.get_field_index(name), field, values)
    return tracks


def _open_group(path: Path) -> zarr.Group:
    try:
        group = zarr.open_group(path, mode="r")
    except (OSError, ValueError) as error:
        raise StoreFormatError(f"{path}: zarr cannot open the group ({error}); is zarr.json whole?") from error
    return group
