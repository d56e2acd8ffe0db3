"""Read the Zarr form of a store.

Local shards are memory-mapped through their own Zarr shard index; every other array is read through zarr. Both methods
give identical bytes.
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

from ..durable import inside
from ..errors import StoreCorruptError
from ..format.documents import refuse_foreign_files
from ..format.layout import genre_spec, object_key, read_rows
from ..format.plan import Plan, object_keys, read_genres, read_plan, read_tracks
from ..format.recipe import TextRecipe
from ..format.records import committed, read_commit, read_outcomes
from ..format.schema import FAILED, ArraySpec, Reason, added_arrays
from ..format.tables import ADDED_OUTCOME_SCHEMA, OUTCOME_SCHEMA, absent_outcomes, with_column
from ..writing import commits, publish
from ..writing.takedowns import dropped_ids
from .mapped_shard import MappedShard, max_mapped_files
from .reader import StoreReader

_MAX_MAPPED = max_mapped_files()
_FETCH_ROWS = 64
"""Rows requested from the disk at once, 20 MB of mels."""


class ZarrReader(StoreReader):
    """Reader of the Zarr form, a folder.

    Parameters
    ----------
    mapped : memory-map sharded arrays; False reads everything through zarr.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, StoreCorruptError
    """

    def __init__(self, path: Path, *, mapped: bool) -> None:
        self._path = path
        refuse_foreign_files(path)
        plan = self._plan = _visible_plan(path)
        self._mapped = mapped
        self._shards: OrderedDict[tuple[str, int], MappedShard] = OrderedDict()
        self.recipe = plan.recipe
        self.fingerprints = plan.fingerprints
        self.library_versions = dict(plan.document["library_versions"])
        self.part_rows = plan.part_rows
        self.n_rows = plan.n_rows
        self.embeds_genres = plan.embeds_genres
        self.added = {name: added_set.recipe for name, added_set in plan.added.items()}
        self.tracks = _tracks_with_outcomes(path, plan)
        self.genres = read_genres(path, plan)

    def local_files(self, prefix: str | None = None) -> Path:
        return self._path

    def genre_embedding(self, feature_set: str | None = None) -> npt.NDArray[np.float32]:
        text = self.recipe.lyrics if feature_set is None else self.added[feature_set]
        assert isinstance(text, TextRecipe)
        return read_rows(self._path, genre_spec(text.hidden_size, feature_set), range(len(self.genres)), 1)

    def added_outcomes(self, feature_set: str) -> pa.Table:
        parts = sorted(part for part in _visible_parts(self._path, feature_set) if part < self._plan.n_parts)
        tables = [read_outcomes(self._path, self._plan, part, feature_set) for part in parts]
        return pa.concat_tables([ADDED_OUTCOME_SCHEMA.empty_table(), *tables])

    def column(self, spec: ArraySpec, rows: npt.NDArray[np.int64], span: slice = slice(None)) -> npt.NDArray[Any]:
        values = read_rows(self._path, spec, range(self.n_rows)[span], self.part_rows)
        for part in np.unique(rows // self.part_rows).tolist():
            self._refuse_missing_object(spec, part)
        return values

    def read_into(self, spec: ArraySpec, out: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
        if self._mapped:
            for first in range(0, len(rows), _FETCH_ROWS):
                batch = slice(first, first + _FETCH_ROWS)
                self._read_mapped(spec, out[batch], rows[batch])
            return
        for i, row in enumerate(rows.tolist()):
            out[i] = read_rows(self._path, spec, range(row, row + 1), self.part_rows)[0, : out.shape[1]]
            self._refuse_missing_object(spec, row // self.part_rows)

    def _read_mapped(self, spec: ArraySpec, out: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
        """Request all rows from the disk before waiting for the first; page faults would request one page at a time."""
        positions = [divmod(row, self.part_rows) for row in rows.tolist()]
        for part, row in positions:
            self._shard(spec, part).fetch(row, out.shape[1])
        for i, (part, row) in enumerate(positions):  # _shard maps a shard again if it was closed since
            self._shard(spec, part).read_into(out[i], row)

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    def _shard(self, spec: ArraySpec, part: int) -> MappedShard:
        shard = self._shards.get((spec.name, part))
        if shard is None:
            shard = self._map_shard(spec, part)
            self._refuse_missing_object(spec, part)
            self._shards[spec.name, part] = shard
            if len(self._shards) > _MAX_MAPPED:
                self._shards.popitem(last=False)[1].close()
        self._shards.move_to_end((spec.name, part))
        return shard

    def _map_shard(self, spec: ArraySpec, part: int) -> MappedShard:
        return MappedShard(inside(self._path, object_key(spec, part)), spec, self.part_rows)

    def _refuse_missing_object(self, spec: ArraySpec, part: int) -> None:
        """Raise StoreCorruptError for a deleted object, which was read as fill; an object in no commit may be absent.

        Call this after the read: an object deleted between an earlier check and the read would be read as fill, too.
        """
        key = object_key(spec, part)
        if (self._path / key).exists():
            return
        owners = {array.name: name for name, recipe in self.added.items() for array in added_arrays(name, recipe)}
        record = read_commit(self._path, part, owners.get(spec.name))
        if record is None:
            raise StoreCorruptError(f"{self._path / key}: removed since the store was opened. Open the store again.")
        if key in object_keys(record):
            raise StoreCorruptError(
                f"{self._path / key}: missing, but part {part} was committed with it. "
                f"Run `mgc store repair {self._path} --source SOURCE` to build it again."
            )


def _visible_plan(store: Path) -> Plan:
    """Return the plan without generations that are not installed yet; with write access, install them first."""
    plan = read_plan(store)
    with contextlib.suppress(OSError):
        commits.roll_forward(store)
    n = len(plan.generations)
    while n > 1:
        last = plan.generations[n - 1]
        if not publish.staged_folder(store, last.key, last.record).is_dir():
            break
        if (store / "tracks" / f"{last.number}.parquet").exists():
            break
        n -= 1
    return plan.through(n)


def _visible_parts(store: Path, feature_set: str | None = None) -> set[int]:
    """Return the committed parts whose objects are all installed."""
    return committed(store, feature_set).keys() - commits.uninstalled_parts(store, feature_set)


def _tracks_with_outcomes(store: Path, plan: Plan) -> pa.Table:
    """Return the planned tracks with their outcomes."""
    visible = _visible_parts(store)
    planned, outcomes = [], [OUTCOME_SCHEMA.empty_table()]
    for generation in plan.generations:
        planned.append(read_tracks(store, generation))
        for part in plan.parts_of(generation):
            rows = plan.part_range(part)
            outcomes.append(read_outcomes(store, plan, part) if part in visible else absent_outcomes(rows))
    tracks, outcome = pa.concat_tables(planned), pa.concat_tables(outcomes)
    for name in OUTCOME_SCHEMA.names[1:]:
        tracks = tracks.append_column(OUTCOME_SCHEMA.field(name), outcome.column(name))
    return _without_dropped(tracks.combine_chunks(), dropped_ids(store))


def _without_dropped(tracks: pa.Table, dropped: set[str]) -> pa.Table:
    """Return tracks with taken-down tracks marked as failed, whether or not compaction has removed their bytes."""
    if not dropped:
        return tracks
    hidden = pc.is_in(tracks.column("id"), pa.array(sorted(dropped), pa.string()))
    for name, value in (("status", FAILED), ("reason", str(Reason.DROPPED)), ("detail", None), ("flags", 0)):
        column = tracks.column(name)
        tracks = with_column(tracks, name, pc.if_else(hidden, pa.scalar(value, column.type), column))
    return tracks
