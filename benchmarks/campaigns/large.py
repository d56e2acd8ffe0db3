"""Measure the cost per step of a collection with ten million tracks without tensors, and check that it is linear.

The code of `mgc extract` makes the plan from a Parquet manifest, with parts of the default size. This script writes the
commits, because 80 000 parts at some tens of ms each would take an hour. It checks that they equal those of an
extraction, byte for byte. The extraction builds and commits 200 parts, evenly distributed over the store.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mgc.cache.durable import seal
from mgc.cache.format.layout import object_key
from mgc.cache.format.plan import Plan, read_plan
from mgc.cache.format.records import commit_key, outcomes_key
from mgc.cache.format.schema import OK
from mgc.cache.format.tables import OUTCOME_SCHEMA, table_bytes
from mgc.cache.writing.publish import with_objects, write_objects

SIZES = (1_000_000, 10_000_000)
LEFT_PARTS, MOST_TIMES = 200, 2.0
CHILD = """
import json, resource, sys, time
from pathlib import Path
steps = {}
def measured(name, act):
    cpu, wall = time.process_time(), time.perf_counter()
    result = act()
    steps[name] = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall,
                   "GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    return result
"""
PLAN = """
from mgc.cache.format.recipe import Recipe
from mgc.pipeline.extraction.extract import extract
from mgc.pipeline.extraction.options import ExtractOptions
from mgc.pipeline.sources.datasets import load_source
from mgc.pipeline.sources.options import SourceOptions
manifest, store = Path(sys.argv[1]), Path(sys.argv[2])
source = measured("read the manifest", lambda: load_source(manifest, SourceOptions(root=manifest.parent)))
for name, shard in {"plan": (1, 10**9), "build some parts": None, "resume": None}.items():
    options, recipe = ExtractOptions(shard=shard, workers=0), Recipe(mel=None, lyrics=None)
    report = measured(name, lambda: extract(source, store, options, recipe=recipe, text=None))
    steps[name]["parts"] = report.parts_built
    print(json.dumps(steps), flush=True)
    sys.stdin.readline()
"""
READ = """
from mgc.cache.upkeep.failures import failures
from mgc.cache.upkeep.info import describe_store, watch
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.verify import verify
store = Path(sys.argv[1])
assert measured("info --watch, its first look", lambda: next(watch(store))).complete
assert measured("open and count", lambda: FeatureStore.open(store).counts()).pending == 0
assert measured("info", lambda: describe_store(store)).pending == 0
assert measured("failures", lambda: failures(store)).failures == []
assert measured("verify", lambda: verify(store)) == []
print(json.dumps(steps))
"""


def large(number: int, folder: Path, sizes: tuple[int, int] = SIZES, most_times: float = MOST_TIMES) -> dict[str, Any]:
    """Make a manifest with 10 million rows, its plan and its commits, without tensors.

    The time per row of each step is at most twice that with 1 million rows.
    """
    small, big = sizes
    before, after = (_collection(folder, n_rows) for n_rows in sizes)
    costs = {}
    for name, step in after.items():
        times = step["cpu_s"] / big / (before[name]["cpu_s"] / small)
        costs[name] = (
            f"{step['cpu_s']:.0f} s CPU time, {step['wall_s']:.0f} s wall time, peak memory so far {step['GiB']:.1f} "
            f"GiB, {times:.2f} times the time per row with {small:,} rows"
        )
        print(f"large, {big:,} rows: {name}: {costs[name]}", file=sys.stderr, flush=True)
        assert times <= most_times, f"{name}: {costs[name]}"
    return {"plans": 1, "rows": big, **costs}


def _collection(folder: Path, n_rows: int) -> dict[str, dict[str, float]]:
    """Return per step: CPU time and wall time in s, and the peak memory of its process so far in GiB."""
    manifest, store = folder / "songs.parquet", folder / "s.zarr"
    write_manifest(manifest, n_rows)
    extraction = _start(PLAN, manifest, store)
    assert _steps_of(extraction)["plan"]["parts"] == 1
    plan = read_plan(store)
    _forge(store, plan, 0, folder / "forged")
    for key in ("commits/0.json", "rows/0.parquet", "status/c/0"):
        assert (folder / "forged" / key).read_bytes() == (store / key).read_bytes(), f"{key} is not what is written"
    left = range(1, plan.n_parts, max(2, plan.n_parts // LEFT_PARTS))
    for part in range(1, plan.n_parts):
        if part not in left:
            _forge(store, plan, part, store)
    _continue(extraction)
    assert _steps_of(extraction)["build some parts"]["parts"] == len(left)
    _continue(extraction)
    steps = _steps_of(extraction)
    assert steps["resume"].pop("parts") == 0
    del steps["plan"]["parts"]
    part_s = (steps.pop("build some parts")["cpu_s"] - steps["resume"]["cpu_s"]) / len(left)
    print(f"large, {n_rows:,} rows: {part_s:.3f} s per part built next to {plan.n_parts:,} others", file=sys.stderr)
    extraction.communicate()
    reading = _start(READ, store)
    steps |= _steps_of(reading)
    reading.communicate()
    shutil.rmtree(store)
    shutil.rmtree(folder / "forged")
    return steps


def _start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command, pipe = [sys.executable, "-c", CHILD + code, *map(str, arguments)], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _continue(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def _steps_of(child: subprocess.Popen[str]) -> dict[str, Any]:
    """Read the measurements of a child process."""
    assert child.stdout is not None
    assert child.stderr is not None
    line = child.stdout.readline()
    assert line, child.stderr.read()[-2000:]
    steps: dict[str, Any] = json.loads(line)
    return steps


def write_manifest(path: Path, n_rows: int) -> None:
    """Write rows with unordered ids, some artists and genres, 100 000 rows at a time."""
    writer = None
    for start in range(0, n_rows, 100_000):
        rows = range(start, min(start + 100_000, n_rows))
        table = pa.table(
            {
                "id": [f"track{row * 7919 % n_rows:09}" for row in rows],
                "path": [f"{row % 1000:03}/track{row:09}.mp3" for row in rows],
                "artist": [f"artist {row % 200_000}" for row in rows],
                "song": [f"song number {row}" for row in rows],
                "genres": [[f"genre {row % 50}", f"genre {row * 7 % 50}"] for row in rows],
                "language": ["en"] * len(rows),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def _forge(store: Path, plan: Plan, part: int, to: Path) -> None:
    """Write the objects of a part in which every track is ok, with the status of part 0."""
    rows = plan.part_range(part)
    content = {
        "part": part,
        "n": 0,
        "generation": plan.generation_of(part).sha256,
        "counts": {"ok": len(rows), "failed": 0},
        "reasons": {},
    }
    objects = {outcomes_key(part): table_bytes(_outcomes(rows))}
    for spec in plan.arrays():
        if (source := store / object_key(spec, 0)).exists():
            objects[object_key(spec, part)] = source.read_bytes()
    (to / "commits").mkdir(parents=True, exist_ok=True)
    (to / commit_key(part)).write_bytes(seal(with_objects(content, write_objects(to, objects.items()))))


def _outcomes(rows: range) -> pa.Table:
    columns = {
        "row": pa.array(rows, pa.int64()),
        "status": pa.array(np.full(len(rows), OK, np.uint8)),
        "flags": pa.array(np.zeros(len(rows), np.uint32)),
    }
    return pa.table([columns.get(f.name, pa.nulls(len(rows), f.type)) for f in OUTCOME_SCHEMA], schema=OUTCOME_SCHEMA)
