"""Failed tracks of a store, their attempts, and the coverage that remains per genre and split."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..durable import names_in, open_regular
from ..errors import StoreCorruptError
from ..format.plan import read_plan
from ..format.schema import OK
from ..reading.store import FeatureStore


@dataclass(frozen=True, kw_only=True)
class FailedTrack:
    """A failed track; `attempts` as far as ``log/`` has them, None without a log, as in the sealed form."""

    id: str
    path: str
    reason: str
    detail: str | None
    attempts: int | None
    genres: list[str]


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Planned tracks of a genre or split, and those with features."""

    name: str
    planned: int
    ok: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Failures:
    """Failed tracks of a store, and its coverage.

    Attributes
    ----------
    coverage : for ``genre`` and ``split``, the coverage of each, lowest share first.
    """

    store: str
    planned: int
    failures: list[FailedTrack]
    coverage: dict[str, list[Coverage]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def failures(store: Path, feature: str | None = None) -> Failures:
    """Return the failed tracks of a store, and its coverage.

    Parameters
    ----------
    feature : name of an added feature set, for the tracks that lack it.

    Raises
    ------
    ConfigError
        If there is no added feature set of that name.
    """
    with FeatureStore.open(store) as opened:
        tracks, files = opened.newest_tracks(feature_set=feature), opened.local_files("log/")
    attempts: Counter[str] | None = None
    if (files / "log").is_dir():
        attempts = Counter(_failed_attempts(files, None))
        if feature is not None:
            attempts = Counter({**attempts, **Counter(_failed_attempts(files, read_plan(files).sha256_of(feature)))})
    columns = ["id", "path", "reason", "detail", "genres"]
    rows = tracks.filter(pc.is_valid(tracks.column("reason"))).select(columns).to_pylist()
    failed = [FailedTrack(**row, attempts=None if attempts is None else attempts[row["id"]]) for row in rows]
    genres, splits = tracks.column("genres").combine_chunks(), tracks.column("split")
    ok = pc.equal(tracks.column("status"), OK)
    has_split = pc.not_equal(splits, "")
    coverage = {
        "genre": _coverage(pc.list_flatten(genres), ok.take(pc.list_parent_indices(genres))),
        "split": _coverage(splits.filter(has_split), ok.filter(has_split)),
    }
    return Failures(store=str(store), planned=tracks.num_rows, failures=failed, coverage=coverage)


def _failed_attempts(store: Path, feature_set: str | None) -> Iterator[str]:
    """Yield ids of tracks that failed in the store itself or in a feature set (by its hash), once per failed attempt.

    Files that are no logs, and lines that a kill has truncated, are skipped.
    """
    for name in sorted(names_in(store / "log", "*.jsonl")):
        lines: list[str] = []
        with contextlib.suppress(FileNotFoundError, StoreCorruptError), open_regular(store / "log" / name) as file:
            lines = file.read().decode(errors="replace").splitlines()
        for line in lines:
            with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
                entry = json.loads(line)
                if entry.get("feature_set") == feature_set:
                    yield from map(str, entry.get("failed_tracks", {}))


def _coverage(names: pa.Array, ok: pa.Array) -> list[Coverage]:
    """Count the tracks of each name, and those of them that are ok; lowest share first."""
    groups = pa.table({"name": names, "ok": ok}).group_by("name").aggregate([("ok", "count"), ("ok", "sum")])
    rows = [
        Coverage(name=row["name"], planned=row["ok_count"], ok=row["ok_sum"], share=row["ok_sum"] / row["ok_count"])
        for row in groups.to_pylist()
    ]
    return sorted(rows, key=lambda row: (row.share, row.planned, row.name))
