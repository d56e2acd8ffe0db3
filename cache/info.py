"""What a store holds, in plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from .schema import FORMAT_VERSION
from .store import FeatureStore


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
        "recipe": store.recipe.to_dict(),
        "fingerprints": store.fingerprints,
        "genres": dict(sorted(genres.items(), key=lambda item: (-item[1], item[0]))),
    }
