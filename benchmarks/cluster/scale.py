"""Measure objects, inodes, bytes and list calls of collections of short clips, and project them to 100 million tracks.

    python -m benchmarks.cluster.scale [--sizes 10000 100000] [--folder F] > benchmarks/cluster/scale.md

The projection takes CPU time and bytes per track from `mgc plan` on generated songs of 30 s with lyrics.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import print_heading
from benchmarks.speed import whole_process
from benchmarks.speed.inputs import RECORDINGS, make_lyrics, write_clips, write_collection
from benchmarks.timing import table
from mgc.cache.reading.store import FeatureStore

CLIP_S, PART_ROWS, SAMPLE = 0.5, 128, 64
PROJECTED = (109_000, 1_000_000, 10_000_000, 100_000_000)
PROJECTED_ROWS = (128, 1024)
CORES = (16, 512)

COUNTED = """
import json, sys
counts = {"list": 0, "open": 0}
def count(event, arguments):
    if event in ("os.scandir", "os.listdir"):
        counts["list"] += 1
    elif event == "open" and str(arguments[0]).startswith(sys.argv[1]):
        counts["open"] += 1
from mgc.cli import app
sys.addaudithook(count)
try:
    app(sys.argv[2:], standalone_mode=False)
except SystemExit:
    pass
print(json.dumps(counts), file=sys.stderr)
"""
"""Run a command of mgc, and count its calls that list folders, and its openings of files of a store."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Measurements of one collection."""

    tracks: int
    run: whole_process.Run
    files: int
    folders: int
    n_bytes: int
    calls: dict[str, dict[str, int]]


def measure(folder: Path, n: int, workers: int) -> Point:
    """Extract `n` short clips with short lyrics, and count what the store consists of and what reading it takes."""
    clips = write_clips(folder / "audios", RECORDINGS, seconds=CLIP_S)
    (folder / "lyrics").mkdir(exist_ok=True)
    for index, lyrics in enumerate(make_lyrics(RECORDINGS)):
        (folder / "lyrics" / f"{index}.txt").write_text(" ".join(lyrics.split()[:8]))
    songs, store = folder / f"{n}.csv", folder / f"{n}.zarr"
    lines = (
        f"{i:07},audios/{clips[i % RECORDINGS].name},artist {i % 997},rock,lyrics/{i % RECORDINGS}.txt\n"
        for i in range(n)
    )
    songs.write_text("id,path,artists,genres,lyrics_path\n" + "".join(lines))
    extract = ["extract", songs, "-o", store, "--clip-s", CLIP_S, "--part-rows", PART_ROWS, "--text-model", "minilm"]
    run = whole_process.run([sys.executable, "-m", "mgc", *extract, "--workers", workers, "--quiet"])
    with FeatureStore.open(store) as opened:
        if len(opened.ok_rows) != n:
            raise SystemExit(f"{store}: {len(opened.ok_rows)} of {n} tracks are ok")
    files = folders = n_bytes = 0
    for place, _, names in os.walk(store):
        folders += 1
        files += len(names)
        n_bytes += sum(Path(place, name).stat().st_size for name in names)
    calls = {
        "resume": counted(store, *extract, "--workers", 0, "--quiet"),
        "store info": counted(store, "store", "info", store, "--json"),
        "store verify": counted(store, "store", "verify", store),
    }
    return Point(tracks=n, run=run, files=files, folders=folders, n_bytes=n_bytes, calls=calls)


def counted(store: Path, *arguments: object) -> dict[str, int]:
    command = [sys.executable, "-c", COUNTED, str(store), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    counts: dict[str, int] = json.loads(done.stderr.splitlines()[-1])
    return counts


def forecast(folder: Path) -> dict[str, float]:
    """Return the forecast for songs of 30 s with lyrics, from `mgc plan` on one worker."""
    songs = folder / "songs.csv"
    songs.write_text("\n".join(write_collection(folder, SAMPLE)) + "\n")
    command = [sys.executable, "-m", "mgc", "plan", songs, "--text-model", "minilm", "--workers", 1, "--sample", SAMPLE]
    done = subprocess.run([*map(str, command), "--json"], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs=2, default=[10_000, 100_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mgc-scale-", dir=options.folder) as scratch:
        folder = Path(scratch)
        points = [measure(folder, n, options.workers) for n in options.sizes]
        (folder / "long").mkdir()
        plan = forecast(folder / "long")
    print_heading("Scale: objects, inodes, bytes, list calls", __file__, ". docs/design/020 draws the conclusions.")
    print_points(points)
    print_projection(points, plan)
    return 0


def print_points(points: list[Point]) -> None:
    header = ["tracks", "parts", "s", "ms of CPU per track", "GB, all processes", "files", "folders", "GB of store"]
    rows = [
        [
            f"{point.tracks:,}",
            f"{-(-point.tracks // PART_ROWS):,}",
            f"{point.run.seconds:.0f}",
            f"{point.run.cpu_s / point.tracks * 1e3:.2f}",
            f"{point.run.tree_bytes / 1e9:.2f}",
            f"{point.files:,}",
            f"{point.folders:,}",
            f"{point.n_bytes / 1e9:.2f}",
        ]
        for point in points
    ]
    print(table(f"Measured: clips of {CLIP_S:g} s with lyrics of 8 words, parts of {PART_ROWS}", header, rows))
    header = ["tracks", "command", "calls that list a folder", "files of the store opened"]
    calls = [
        [f"{point.tracks:,}", f"`mgc {name}`", f"{counts['list']:,}", f"{counts['open']:,}"]
        for point in points
        for name, counts in (("extract` again", point.calls["resume"]), *list(point.calls.items())[1:])
    ]
    print(table("Measured: calls", header, [[row[0], row[1].replace("``", "`"), *row[2:]] for row in calls]))


def print_projection(points: list[Point], plan: dict[str, float]) -> None:
    low, high = points
    parts = (high.tracks - low.tracks) / PART_ROWS
    files, folders = (high.files - low.files) / parts, (high.folders - low.folders) / parts
    track_bytes = plan["n_bytes"] / plan["tracks"]
    header = ["tracks", "rows per part", "parts", "objects", "inodes", "TB", *(f"h on {n} cores" for n in CORES)]
    rows = []
    for n in PROJECTED:
        for part_rows in PROJECTED_ROWS:
            n_parts = -(-n // part_rows)
            hours = [n * plan["track_s"] / 3600 / cores for cores in CORES]
            rows.append(
                [
                    f"{n:,}",
                    part_rows,
                    f"{n_parts:,}",
                    f"{n_parts * files:,.0f}",
                    f"{n_parts * (files + folders):,.0f}",
                    f"{n * track_bytes / 1e12:.2f}",
                    *(f"{value:.1f}" for value in hours),
                ]
            )
    print(table("Projected: clips of 30 s with lyrics, MiniLM", header, rows))
    print(
        f"\nPer part: {files:.2f} objects and {folders:.2f} folders, the difference between the measured collections. "
        f"Per track: {track_bytes / 1e6:.2f} MB and {plan['track_s'] * 1e3:.0f} ms on one core, by `mgc plan` on "
        f"{plan['sampled']} generated songs. Each part is one task of the Dask scheduler, with one message to a worker "
        "and one back. A job array (`--shard`) has no scheduler."
    )


if __name__ == "__main__":
    sys.exit(main())
