"""Forecast an extraction: extract a sample of the collection into a temporary store, with the same code.

The first part of each worker includes its start-up (process, encoder weights); the later parts give the time per track.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.format.records import committed, read_commit
from ...cache.format.schema import default_part_rows
from ...cache.steps import Progress, silent, within
from ..sources.manifest import Source
from .extract import extract
from .forecast import Forecast, parts_per_worker
from .options import ExtractOptions, default_workers
from .reconcile import choose_recipe

SAMPLE_PARTS = 4
"""Parts of a sample per worker; more than 2, so that most parts do not include a start-up."""


def forecast(
    source: Source,
    options: ExtractOptions,
    *,
    sample: int | None = None,
    on_progress: Progress = silent,
) -> Forecast:
    """Extract a random sample of a collection, and predict duration and size of the whole extraction.

    Parameters
    ----------
    options : of the extraction into a new store. The sample is extracted with the same number of workers, but with at
        most one worker per core and :data:`SAMPLE_PARTS` parts per worker.
    sample : number of sampled tracks; None takes :func:`default_sample`.
    """
    recipe, text = choose_recipe(options, None)
    n, workers = len(source.tracks), default_workers() if options.workers is None else options.workers
    n_sampled = min(n, default_sample(n) if sample is None else max(1, sample))
    rows = np.sort(np.random.default_rng(0).permutation(n)[:n_sampled]).tolist()
    measured = min(workers, default_workers(), max(1, n_sampled // SAMPLE_PARTS))
    sample_rows = max(1, n_sampled // (SAMPLE_PARTS * max(1, measured)))
    with tempfile.TemporaryDirectory(prefix="mgc-plan-") as scratch:
        store, started = Path(scratch) / "sample.zarr", time.monotonic()
        report = extract(
            dataclasses.replace(source, tracks=[source.tracks[row] for row in rows]),
            store,
            ExtractOptions(features=options.features, part_rows=sample_rows, workers=measured),
            recipe=recipe,
            text=text,
            on_progress=within(on_progress, step="sample", note=""),
        )
        wall_s, log = time.monotonic() - started, _log(store)
        records = (read_commit(store, part) for part in committed(store))
        sampled_bytes = sum(item["size"] for record in records if record is not None for item in record["objects"])
    track_s, error_s, busiest = _track_seconds(log)
    part_rows = options.part_rows or default_part_rows(n, recipe)
    parts = math.ceil(n / part_rows)
    start_s = max(0.0, wall_s - busiest * track_s)
    load = min(n, parts_per_worker(parts, workers) * part_rows)
    return Forecast(
        tracks=n,
        parts=parts,
        part_rows=part_rows,
        workers=workers,
        seconds=round(start_s + load * track_s, 1),
        low_s=round(start_s + load * max(0.0, track_s - 2 * error_s), 1),
        high_s=round(start_s + load * (track_s + 2 * error_s), 1),
        n_bytes=round(sampled_bytes / n_sampled * n),
        track_s=round(track_s, 5),
        start_s=round(start_s, 2),
        sampled=n_sampled,
        failed=report.failed,
        memory_bytes=max(line["memory_bytes"] for line in log),
        measured_workers=measured,
    )


def _log(store: Path) -> list[dict[str, Any]]:
    """Return the events of all parts."""
    files = sorted((store / "log").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def default_sample(n_tracks: int) -> int:
    """Return 64, or a tenth of a small collection: a larger sample would cost as much as the extraction."""
    return min(64, max(SAMPLE_PARTS, n_tracks // 10))


def _track_seconds(log: list[dict[str, Any]]) -> tuple[float, float, int]:
    """Return seconds per track on one worker, their standard error, and the tracks of the busiest worker."""
    by_worker: dict[Any, list[tuple[int, float]]] = defaultdict(list)
    for line in log:
        by_worker[line["host"], line["pid"]].append((line["ok"] + line["failed"], line["seconds"]))
    later = [part for parts in by_worker.values() for part in parts[1:]]
    kept = later or [part for parts in by_worker.values() for part in parts]
    track_s = sum(seconds for _, seconds in kept) / sum(rows for rows, _ in kept)
    rates = [seconds / rows for rows, seconds in kept]
    error_s = statistics.stdev(rates) / len(rates) ** 0.5 if len(rates) > 1 else track_s / 2
    return track_s, error_s, max(sum(rows for rows, _ in parts) for parts in by_worker.values())
