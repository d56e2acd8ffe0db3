"""Description of a store: counts, arrays, added feature sets, recipe, genres."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ..format.recipe import Recipe, TextRecipe
from ..format.schema import FORMAT_VERSION, added_arrays
from ..reading.store import FeatureStore


@dataclass(frozen=True, kw_only=True)
class ArrayInfo:
    """One array with one row per track, as text."""

    name: str
    dims: str
    shape: str
    dtype: str
    unit: str


@dataclass(frozen=True, kw_only=True)
class FeatureSetInfo:
    """An added feature set: what made it, and its outcomes for the tracks that have the store's own features."""

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
    path, rows = store.path, len(store.status)
    genres = pc.value_counts(pc.list_flatten(store.newest_tracks(["genres"]).column("genres"))).to_pylist()
    return StoreInfo(
        store=str(path),
        format_version=FORMAT_VERSION,
        bytes=sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()),
        **asdict(store.counts()),
        part_rows=store.part_rows,
        arrays=[
            ArrayInfo(
                name=spec.name,
                dims=", ".join(spec.dims),
                shape=" x ".join(map(str, (rows, *spec.tail))),
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
    folders = [store.path / spec.name for spec in added_arrays(name, store.added[name])]
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
