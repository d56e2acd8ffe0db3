"""What failed, how often it was tried, and what that leaves of each genre and split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from .schema import OK
from .store import FeatureStore


def failures(store: Path) -> dict[str, Any]:
    """The failed tracks of a store, and its coverage.

    Returns
    -------
    dict
        ``failures``: id, path, reason, detail, attempts and genres of each; attempts as far as ``log/`` tells, None
        where there is no log, as in the sealed form. ``coverage``: by ``genre`` and by ``split`` the planned tracks and
        those with features, the worst first, so that a rare genre that was lost is seen.
    """
    with FeatureStore.open(store) as opened:
        tracks = opened.tracks.filter(pa.array(opened.newest))
    rows = tracks.select(["id", "path", "reason", "detail", "genres", "split", "status"]).to_pylist()
    attempts = Counter(_attempted(store)) if (store / "log").is_dir() else None
    failed = [
        {
            **{name: row[name] for name in ("id", "path", "reason", "detail")},
            "attempts": None if attempts is None else attempts[row["id"]],
            "genres": row["genres"],
        }
        for row in rows
        if row["reason"] is not None
    ]
    coverage = {
        "genre": _coverage((genre, row["status"]) for row in rows for genre in row["genres"]),
        "split": _coverage((row["split"], row["status"]) for row in rows if row["split"]),
    }
    return {"store": str(store), "planned": len(rows), "failures": failed, "coverage": coverage}


def _attempted(store: Path) -> Iterator[str]:
    """Ids of failed tracks, one for each time a log tells of it; a line cut short by a kill is passed over."""
    for file in sorted((store / "log").glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                yield from json.loads(line).get("failed_tracks", {})
            except (ValueError, AttributeError):
                continue


def _coverage(pairs: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    planned: Counter[str] = Counter()
    ok: Counter[str] = Counter()
    for name, status in pairs:
        planned[name] += 1
        ok[name] += status == OK
    rows = [{"name": name, "planned": n, "ok": ok[name], "share": ok[name] / n} for name, n in planned.items()]
    return sorted(rows, key=lambda row: (row["share"], row["planned"], row["name"]))
