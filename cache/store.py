"""The public reader of a feature store: what was planned, what became of it, and the features by array row.

Local shards of plain codecs are memory-mapped through their own Zarr shard index; anything else goes through zarr.
Both ways give identical bytes.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr

from . import commits, publish
from .drops import dropped_ids
from .errors import StoreCorruptError, StoreError, StoreFormatError, TrackUnavailableError
from .layout import object_key
from .mapped_shard import MappedShard, max_mapped_files
from .plan import Plan, read_genres, read_plan, read_tracks
from .schema import ABSENT, FAILED, OK, ArraySpec, Flag, Reason, track_arrays
from .tracks import OUTCOME_SCHEMA, absent_outcomes, read_table

_MAX_MAPPED = max_mapped_files()


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Outcomes of a store's tracks: ``planned = ok + failed + pending``; failures by reason, flags by name."""

    planned: int
    ok: int
    failed: int
    pending: int
    reasons: dict[str, int]
    flags: dict[str, int]


class FeatureStore:
    """A feature store opened for reading; what was committed when it was opened is what it shows.

    Attributes
    ----------
    path : folder of the store.
    recipe : what the features were made by; `fingerprints` holds a sha256 for each feature.
    tracks : one row a planned track, in array-row order: columns of the plan, then of the outcomes. Array rows are in
        its column ``row``; between two generations of the plan some belong to no track. A track that was tried again
        has a row for each try, the newest last.
    status : (row,) uint8; 0 absent, 1 ok, 2 failed.
    ok_rows : array rows that have features, ascending, int64.
    genres : names of the rows of `genre_embedding`.

    Examples
    --------
    >>> store = FeatureStore.open("songs.zarr")  # doctest: +SKIP
    >>> store.read("mel", store.ok_rows[:16]).shape  # doctest: +SKIP
    (16, 128, 1292)
    """

    def __init__(self, path: Path, *, mapped: bool = True) -> None:
        self.path = path
        self.plan = _visible_plan(path)
        self.recipe = self.plan.recipe
        self.fingerprints = self.plan.fingerprints
        self.part_rows = self.plan.part_rows
        self._specs = {spec.name: spec for spec in track_arrays(self.recipe)}
        self._group = _open_group(path)
        self._mapped = mapped
        self._shards: OrderedDict[tuple[str, int], MappedShard] = OrderedDict()
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self.tracks = _read_outcomes(path, self.plan)
        self._rows = np.asarray(self.tracks.column("row"))
        self.status: npt.NDArray[np.uint8] = np.full(self.plan.n_rows, ABSENT, dtype=np.uint8)
        self.status[self._rows] = np.asarray(self.tracks.column("status"))
        self.ok_rows: npt.NDArray[np.int64] = np.flatnonzero(self.status == OK)
        self.genres = read_genres(path, self.plan)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, mapped: bool = True) -> FeatureStore:
        """Open a store for reading.

        Parameters
        ----------
        path : the store's folder.
        mapped : memory-map plain shards; False reads everything through zarr.

        Raises
        ------
        StoreNotFoundError, StoreFormatError, StoreCorruptError
        """
        return cls(Path(path), mapped=mapped)

    @property
    def arrays(self) -> list[ArraySpec]:
        """What each track array is: name, dims, dtype, unit."""
        return list(self._specs.values())

    @property
    def genre_embedding(self) -> npt.NDArray[np.float32]:
        """(genre, text_dim) float32: the text encoder's mean state over each genre name."""
        if not self.plan.embeds_genres or not self.genres:
            raise StoreError(
                f"{self.path}: no genre embeddings in this store: it was extracted without lyrics or genres among its "
                "features, or from tracks without any genre"
            )
        array = self._group["genre_embedding"]
        assert isinstance(array, zarr.Array)
        return np.asarray(array[: len(self.genres)], dtype=np.float32)

    def counts(self) -> Counts:
        """How many tracks are ok, failed (by reason) and pending, and how many carry each flag."""
        tracks = self.tracks.filter(pa.array(self.newest))
        reasons = Counter(reason for reason in tracks.column("reason").to_pylist() if reason)
        bits, status = np.asarray(tracks.column("flags")), np.asarray(tracks.column("status"))
        flags = {str(flag.name): int(((bits & flag.value) != 0).sum()) for flag in Flag}
        ok, failed = int((status == OK).sum()), int((status == FAILED).sum())
        return Counts(
            planned=len(status),
            ok=ok,
            failed=failed,
            pending=len(status) - ok - failed,
            reasons=dict(reasons.most_common()),
            flags={name: count for name, count in flags.items() if count},
        )

    @property
    def newest(self) -> npt.NDArray[np.bool_]:
        """(len(tracks),) True where a row of `tracks` is its track's newest: the one that counts."""
        chosen = np.ones(len(self._rows), dtype=np.bool_)
        if any(generation.kind == "retry" for generation in self.plan.generations):
            last = {name: i for i, name in enumerate(self.tracks.column("id").to_pylist())}
            chosen[:] = False
            chosen[list(last.values())] = True
        return chosen

    def read(
        self,
        name: str,
        rows: Sequence[int] | npt.NDArray[np.integer[Any]],
        *,
        out: npt.NDArray[Any] | None = None,
        length: int | None = None,
    ) -> npt.NDArray[Any]:
        """Features of array rows, in the order given.

        Parameters
        ----------
        name : an array of the store, such as ``mel``.
        rows : array rows, each with status ok.
        out : (len(rows), *tail) array of the stored dtype to fill instead of a new one.
        length : read only this much of the first dimension after ``track`` (tokens of ``lyrics``).

        Raises
        ------
        TrackUnavailableError
            If a row is absent, failed or out of range; names the tracks.
        StoreError
            If the store has no such array.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        spec = self._spec(name)
        self._refuse_unavailable(wanted)
        if not spec.sharded:
            return self._fill(self._column(spec)[wanted], out)
        tail = spec.tail if length is None else (min(length, spec.tail[0]), *spec.tail[1:])
        if out is None:
            out = np.empty((len(wanted), *tail), dtype=spec.dtype)
        elif out.shape != (len(wanted), *tail) or out.dtype != np.dtype(spec.dtype):
            raise ValueError(f"out: want shape {(len(wanted), *tail)} {spec.dtype}, got {out.shape} {out.dtype}")
        array = None if self._mapped else self._group[name]
        for i, row in enumerate(wanted.tolist()):
            if array is None:
                self._shard(spec, row // self.part_rows).read_into(out[i], row % self.part_rows)
            else:
                assert isinstance(array, zarr.Array)
                out[i] = array[(row, slice(tail[0]))]
        return out

    def close(self) -> None:
        """Let go of the mapped files."""
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spec(self, name: str) -> ArraySpec:
        if name not in self._specs:
            raise StoreError(f"{self.path}: no array {name!r} in this store; it has {', '.join(self._specs)}")
        return self._specs[name]

    def _refuse_unavailable(self, rows: npt.NDArray[np.int64]) -> None:
        out_of_range = rows[(rows < 0) | (rows >= len(self.status))]
        if len(out_of_range):
            raise TrackUnavailableError(
                f"{self.path}: rows {out_of_range[:5].tolist()} of {len(self.status)} array rows"
            )
        bad = rows[self.status[rows] != OK]
        if len(bad):
            here = np.searchsorted(self._rows, bad[:5])
            if not np.isin(bad[:5], self._rows).all():
                raise TrackUnavailableError(f"{self.path}: some of rows {bad[:5].tolist()} belong to no track")
            some = self.tracks.take(here).select(["id", "reason"]).to_pylist()
            named = ", ".join(f"{track['id']} ({track['reason'] or 'not extracted yet'})" for track in some)
            raise TrackUnavailableError(
                f"{self.path}: {len(bad)} of the tracks asked for have no features: {named}; ask for `ok_rows` only"
            )

    def _column(self, spec: ArraySpec) -> npt.NDArray[Any]:
        if spec.name not in self._columns:
            for part in np.unique(self.ok_rows // self.part_rows).tolist():
                self._refuse_missing_object(spec, part)
            array = self._group[spec.name]
            assert isinstance(array, zarr.Array)
            self._columns[spec.name] = np.asarray(array[:])
        return self._columns[spec.name]

    @staticmethod
    def _fill(values: npt.NDArray[Any], out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        if out is None:
            return values
        out[...] = values
        return out

    def _shard(self, spec: ArraySpec, part: int) -> MappedShard:
        shard = self._shards.get((spec.name, part))
        if shard is None:
            self._refuse_missing_object(spec, part)
            shard = MappedShard(self.path / object_key(spec, part), spec, self.part_rows)
            self._shards[spec.name, part] = shard
            if len(self._shards) > _MAX_MAPPED:
                self._shards.popitem(last=False)[1].close()
        self._shards.move_to_end((spec.name, part))
        return shard

    def _refuse_missing_object(self, spec: ArraySpec, part: int) -> None:
        """A deleted object would read as fill; only one that the commit does not list may be absent."""
        key = object_key(spec, part)
        if (self.path / key).exists():
            return
        record = commits.read_commit(self.path, part)
        if record is not None and any(item["key"] == key for item in record["objects"]):
            raise StoreCorruptError(
                f"{self.path / key}: missing, though part {part} was committed with it; "
                f"`mgc store repair {self.path} --source SOURCE` makes it again"
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
    done = commits.committed(store).keys() - commits.waiting_parts(store)
    planned, outcomes = [], []
    for generation in plan.generations:
        planned.append(read_tracks(store, plan, generation))
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
    gone = np.isin(tracks.column("id").to_pylist(), list(dropped))
    for name, value in (("status", FAILED), ("reason", str(Reason.DROPPED)), ("detail", None), ("flags", 0)):
        field = OUTCOME_SCHEMA.field(name)
        values = [value if hidden else kept for hidden, kept in zip(gone, tracks.column(name).to_pylist(), strict=True)]
        tracks = tracks.set_column(tracks.schema.get_field_index(name), field, pa.array(values, field.type))
    return tracks


def _open_group(path: Path) -> zarr.Group:
    try:
        group = zarr.open_group(path, mode="r")
    except (OSError, ValueError) as error:
        raise StoreFormatError(f"{path}: zarr cannot open the group ({error}); is zarr.json whole?") from error
    return group
