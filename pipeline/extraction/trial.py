"""Forecast an extraction: extract a sample of the collection, by the same code, into a temporary store.

Every worker's first part includes its start-up (processes, the encoder's weights); the others show the cost of a track.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.format.plan import default_part_rows
from ...cache.format.records import committed, read_commit
from ...cache.steps import Progress, silent, within
from ..sources.manifest import Source
from .extract import extract
from .forecast import PARTS_A_WORKER, Forecast, _busiest
from .options import ExtractOptions, default_workers
from .reconcile import choose_recipe


def forecast(
    source: Source,
    options: ExtractOptions,
    *,
    sample: int | None = None,
    seed: int = 0,
    on_progress: Progress = silent,
) -> Forecast:
    """Extract some tracks of a collection for a trial and reckon what all of them will take.

    Parameters
    ----------
    options : of the extraction, into a new store. The trial runs on as many workers, or on one per core if that is
        fewer, and on no more than the sample gives enough parts for.
    sample : tracks of the trial, drawn at random; None takes :func:`default_sample`.
    """
    recipe, text = choose_recipe(options, None)
    n, workers = len(source.tracks), default_workers() if options.workers is None else options.workers
    wanted = default_sample(n) if sample is None else max(1, sample)
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:wanted])
    tracks = [source.tracks[i] for i in chosen.tolist()]
    measured = min(workers, default_workers(), max(1, len(tracks) // PARTS_A_WORKER))
    some_rows = max(1, len(tracks) // (PARTS_A_WORKER * max(1, measured)))
    with tempfile.TemporaryDirectory(prefix="mgc-plan-") as scratch:
        store, started = Path(scratch) / "sample.zarr", time.monotonic()
        report = extract(
            Source(root=source.root, tracks=tracks),
            store,
            ExtractOptions(features=options.features, part_rows=some_rows, workers=measured),
            recipe=recipe,
            text=text,
            on_progress=within(on_progress, step="sample", note=""),
        )
        wall_s, (track_s, error_s, busiest) = time.monotonic() - started, _track_seconds(store)
        n_bytes = _stored_bytes(store)
    rows = options.part_rows or default_part_rows(n)
    parts = math.ceil(n / rows)
    start_s = max(0.0, wall_s - busiest * track_s)
    load = min(n, _busiest(parts, workers) * rows)
    middle, low, high = (start_s + load * s for s in (track_s, max(0.0, track_s - 2 * error_s), track_s + 2 * error_s))
    return Forecast(
        tracks=n,
        parts=parts,
        part_rows=rows,
        workers=workers,
        seconds=round(middle, 1),
        low_s=round(low, 1),
        high_s=round(high, 1),
        n_bytes=round(n_bytes / len(tracks) * n),
        track_s=round(track_s, 5),
        start_s=round(start_s, 2),
        sampled=len(tracks),
        failed=report.failed,
        measured_workers=measured,
    )


def default_sample(n_tracks: int) -> int:
    """64 tracks, but of a small collection no more than a tenth: else the trial would cost as much as the work."""
    return min(64, max(PARTS_A_WORKER, n_tracks // 10))


def _track_seconds(store: Path) -> tuple[float, float, int]:
    """Seconds a track on one worker, their standard error, and how many tracks the busiest worker had."""
    by_worker: dict[Any, list[tuple[int, float]]] = defaultdict(list)
    for file in sorted((store / "log").glob("*.jsonl")):
        for line in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            by_worker[line["host"], line["pid"]].append((line["ok"] + line["failed"], line["seconds"]))
    later = [part for parts in by_worker.values() for part in parts[1:]]
    kept = later or [part for parts in by_worker.values() for part in parts]
    track_s = sum(seconds for _, seconds in kept) / sum(rows for rows, _ in kept)
    each = [seconds / rows for rows, seconds in kept]
    error_s = statistics.stdev(each) / len(each) ** 0.5 if len(each) > 1 else track_s / 2
    return track_s, error_s, max(sum(rows for rows, _ in parts) for parts in by_worker.values())


def _stored_bytes(store: Path) -> int:
    """Of all committed parts."""
    records = (read_commit(store, part) for part in committed(store))
    return sum(item["size"] for record in records if record is not None for item in record["objects"])
