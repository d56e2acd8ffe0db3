"""Describe a store (counts, arrays, added feature sets, recipe, genres) and the progress of its extractions."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ..durable import bytes_below
from ..format.plan import read_plan
from ..format.recipe import Recipe, TextRecipe
from ..format.records import committed, read_commit
from ..format.schema import FORMAT_VERSION, added_arrays
from ..reading.store import FeatureStore
from ..writing.publish import staged
from ..writing.remote import remote_of, writable_folder


@dataclass(frozen=True, kw_only=True)
class ArrayInfo:
    """One array with one row per track."""

    name: str
    dims: list[str]
    shape: list[int]
    dtype: str
    unit: str


@dataclass(frozen=True, kw_only=True)
class FeatureSetInfo:
    """An added feature set: its encoder or extractor, and its outcomes for tracks with the store's own features."""

    name: str
    made_by: str
    ok: int
    failed: int
    pending: int


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """Description of a store; `bytes` of all its files, tracks by outcome, by reason, by flag and by genre."""

    store: str
    format_version: int
    bytes: int
    planned: int
    ok: int
    failed: int
    pending: int
    reasons: dict[str, int]
    flags: dict[str, int]
    part_rows: int
    arrays: list[ArrayInfo]
    added: list[FeatureSetInfo]
    recipe: Recipe
    fingerprints: dict[str, str]
    genres: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"recipe": self.recipe.to_dict()}


def describe_store(path: Path) -> StoreInfo:
    """Describe the store at `path`."""
    with FeatureStore.open(path) as store:
        return describe(store)


def describe(store: FeatureStore) -> StoreInfo:
    """Describe an open store."""
    rows = len(store.status)
    genres = pc.value_counts(pc.list_flatten(store.newest_tracks(["genres"]).column("genres"))).to_pylist()
    return StoreInfo(
        store=str(store.path),
        format_version=FORMAT_VERSION,
        bytes=bytes_below(store.local_files()),
        **asdict(store.counts()),
        part_rows=store.part_rows,
        arrays=[
            ArrayInfo(
                name=spec.name,
                dims=list(spec.dims),
                shape=[rows, *spec.tail],
                dtype=spec.dtype,
                unit=spec.unit,
            )
            for spec in store.arrays
        ],
        added=[describe_feature(store, name) for name in store.added],
        recipe=store.recipe,
        fingerprints=store.fingerprints,
        genres={
            row["values"]: row["counts"] for row in sorted(genres, key=lambda row: (-row["counts"], row["values"]))
        },
    )


def describe_feature(store: FeatureStore, name: str) -> FeatureSetInfo:
    """Describe an added feature set.

    Raises
    ------
    ConfigError
        If there is no added feature set of that name.
    """
    counts, recipe = store.counts(name), store.added[name]  # the first refuses unknown names
    made_by = (
        f"text encoder {recipe.model}" if isinstance(recipe, TextRecipe) else f"extractor, version {recipe.version}"
    )
    return FeatureSetInfo(name=name, made_by=made_by, ok=counts.ok, failed=counts.failed, pending=counts.pending)


def feature_bytes(store: FeatureStore, name: str) -> int:
    """Return the size of the arrays of an added feature set of a store in its Zarr form."""
    return sum(bytes_below(store.local_files() / spec.name) for spec in added_arrays(name, store.added[name]))


@dataclass(frozen=True, kw_only=True)
class StoreProgress:
    """Parts and tracks by outcome, from the commit records of all processes and machines.

    `tracks_per_s` and `left_s` count from the start of the watch; they are None at first. A track that is retried
    counts once, by its newest attempt; `reasons` are those of all attempts. `working` counts the claimed parts.
    """

    parts: int
    parts_done: int
    planned: int
    ok: int
    failed: int
    reasons: dict[str, int]
    working: int
    tracks_per_s: float | None
    left_s: float | None

    @property
    def complete(self) -> bool:
        return self.parts_done == self.parts

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def watch(store: Path, *, every_s: float = 5.0) -> Iterator[StoreProgress]:
    """Yield the progress every `every_s` seconds until every part is committed; each record is read once.

    Raises
    ------
    StoreNotFoundError
    """
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    seen: set[int] = set()
    started, first = time.monotonic(), 0
    while True:
        folder = writable_folder(store)
        if (remote := remote_of(folder)) is not None:
            remote.pull()
        with contextlib.nullcontext() if remote is None else remote.errors():
            plan = read_plan(folder)
        for part in {part for part in committed(folder) if part < plan.n_parts} - seen:
            record = read_commit(folder, part)
            if record is not None:
                seen.add(part)
                counts.update(record["counts"])
                reasons.update(record["reasons"])
        retried = sum(len(gen.rows) for gen in plan.generations if gen.kind == "retry")  # each failed before
        planned, failed = sum(len(gen.rows) for gen in plan.generations) - retried, counts["failed"] - retried
        done = counts["ok"] + failed
        elapsed = time.monotonic() - started
        rate = (done - first) / elapsed if seen and elapsed > 1 and done > first else None
        first = first or done
        now = StoreProgress(
            parts=plan.n_parts,
            parts_done=len(seen),
            planned=planned,
            ok=counts["ok"],
            failed=failed,
            reasons=dict(reasons.most_common()),
            working=len(staged(folder, "*~claim")) if remote is None else remote.n_claims(),
            tracks_per_s=None if rate is None else round(rate, 2),
            left_s=None if rate is None else round((planned - done) / rate, 1),
        )
        yield now
        if now.complete:
            return
        time.sleep(every_s)
