"""What failed, how often it was tried, and what that leaves of each genre and split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..format.plan import read_plan
from ..format.schema import OK
from ..reading.store import FeatureStore


def failures(store: Path, feature: str | None = None) -> dict[str, Any]:
    """The failed tracks of a store, and its coverage.

    Parameters
    ----------
    feature : features that joined the store, by name: which tracks lack them, and why.

    Returns
    -------
    dict
        ``failures``: id, path, reason, detail, attempts and genres of each; attempts as far as ``log/`` tells, None
        where there is no log, as in the sealed form. ``coverage``: by ``genre`` and by ``split`` the planned tracks and
        those with features, the worst first, so that a rare genre that was lost is seen.
    """
    with FeatureStore.open(store) as opened:
        tracks = opened.newest_tracks(feature_set=feature)
    attempts: Counter[str] | None = None
    if (store / "log").is_dir():
        attempts = Counter(_attempted(store, None))
        if feature is not None:
            attempts = Counter({**attempts, **Counter(_attempted(store, read_plan(store).sha256_of(feature)))})
    failed = tracks.filter(pc.is_valid(tracks.column("reason")))
    rows = [
        {
            **{name: row[name] for name in ("id", "path", "reason", "detail")},
            "attempts": None if attempts is None else attempts[row["id"]],
            "genres": row["genres"],
        }
        for row in failed.select(["id", "path", "reason", "detail", "genres"]).to_pylist()
    ]
    genres, splits = tracks.column("genres").combine_chunks(), tracks.column("split")
    ok = pc.equal(tracks.column("status"), OK)
    coverage = {
        "genre": _coverage(pc.list_flatten(genres), ok.take(pc.list_parent_indices(genres))),
        "split": _coverage(splits.filter(has_split := pc.not_equal(splits, "")), ok.filter(has_split)),
    }
    return {"store": str(store), "planned": tracks.num_rows, "failures": rows, "coverage": coverage}


def _attempted(store: Path, feature_set: str | None) -> Iterator[str]:
    """Ids of tracks that failed in the store itself, or in a feature set (by its hash), one for each time a log tells
    of it; a line cut short by a kill is passed over."""
    for file in sorted((store / "log").glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                told = json.loads(line)
                if told.get("feature_set") == feature_set:
                    yield from told.get("failed_tracks", {})
            except (ValueError, AttributeError):
                continue


def _coverage(names: pa.Array, ok: pa.Array) -> list[dict[str, Any]]:
    """Of each name how many there are and how many are ok."""
    found = pa.table({"name": names, "ok": ok}).group_by("name").aggregate([("ok", "count"), ("ok", "sum")]).to_pylist()
    rows = [
        {"name": one["name"], "planned": one["ok_count"], "ok": one["ok_sum"], "share": one["ok_sum"] / one["ok_count"]}
        for one in found
    ]
    return sorted(rows, key=lambda row: (row["share"], row["planned"], row["name"]))
