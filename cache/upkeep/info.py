"""What a store holds, in plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ..format.recipe import TextRecipe
from ..format.schema import FORMAT_VERSION, added_arrays
from ..reading.store import FeatureStore


def describe_store(path: Path) -> dict[str, Any]:
    """What a store holds, in plain values."""
    with FeatureStore.open(path) as store:
        return describe(store)


def describe(store: FeatureStore) -> dict[str, Any]:
    """The same of a store that is open."""
    path, counts = store.path, store.counts()
    newest = store.newest_tracks(["genres"]).column("genres")
    genres = {one["values"]: one["counts"] for one in pc.value_counts(pc.list_flatten(newest)).to_pylist()}
    rows = len(store.status)
    return {
        "store": str(path),
        "format_version": FORMAT_VERSION,
        "bytes": sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()),
        "planned": counts.planned,
        "ok": counts.ok,
        "failed": counts.failed,
        "pending": counts.pending,
        "reasons": counts.reasons,
        "flags": counts.flags,
        "part_rows": store.part_rows,
        "arrays": [
            {
                "name": spec.name,
                "dims": ", ".join(spec.dims),
                "shape": " x ".join(map(str, (rows, *spec.tail))),
                "dtype": spec.dtype,
                "unit": spec.unit,
            }
            for spec in store.arrays
        ],
        "added": [_joined(store, name) for name in store.added],
        "recipe": store.recipe.to_dict(),
        "fingerprints": store.fingerprints,
        "genres": dict(sorted(genres.items(), key=lambda item: (-item[1], item[0]))),
    }


def describe_feature(path: Path, name: str) -> dict[str, Any]:
    """Features that joined a store in its Zarr form: as :func:`describe` does, and the ``bytes`` of their arrays.

    Raises
    ------
    ConfigError
        If no features of that name joined.
    """
    with FeatureStore.open(path) as store:
        joined = _joined(store, name)
        arrays = {spec.name for spec in added_arrays(name, store.added[name])}
        files = (file for array in arrays for file in (path / array).rglob("*") if file.is_file())
        return {**joined, "bytes": sum(file.stat().st_size for file in files)}


def _joined(store: FeatureStore, name: str) -> dict[str, Any]:
    """Features that joined the store: what made them, and how many of the tracks that the store has features of."""
    counts, recipe = store.counts(name), store.added[name]  # the first refuses a name that did not join
    made_by = (
        f"text encoder {recipe.model}" if isinstance(recipe, TextRecipe) else f"extractor, version {recipe.version}"
    )
    return {"name": name, "made_by": made_by, "ok": counts.ok, "failed": counts.failed, "pending": counts.pending}
