"""Define trials that kill an extraction, its workers, or fill its disk."""

from __future__ import annotations

import functools
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.campaigns.processes import full_disk_error, kill_group, output, run_first, small_disk
from benchmarks.campaigns.processes import start as start_mgc
from benchmarks.cluster.gluster import mounted_twice
from benchmarks.worlds.small_store import tree

N_SONGS, PART_ROWS = 24, 4
OPTIONS = ("--features", "mel", "--clip-s", "1", "--part-rows", str(PART_ROWS), "--json")
FAULTY_WORKER = """
import os
if os.environ.get("MGC_CAMPAIGN_FAULTS"):
    from pathlib import Path
    import mgc.pipeline.extraction.builder as builder
    real, scratch = builder.local_file, Path(os.environ["MGC_CAMPAIGN_FAULTS"])
    def faulty(root, path, *limit):
        for kind in ("exit", "segfault"):
            try:
                (scratch / f"{kind}-{path}").rename(scratch / f"fired-{kind}-{path}")
            except FileNotFoundError:
                continue
            os._exit(7) if kind == "exit" else os.kill(os.getpid(), 11)
        return real(root, path, *limit)
    builder.local_file = faulty
"""
"""Start-up code of workers: a worker dies at a track with a marker file in a folder, and renames the marker."""


@functools.cache
def songs() -> Path:
    """Write a folder of short tones and its manifest, for the life of this process."""
    folder = Path(tempfile.mkdtemp(prefix="mgc-campaign-songs-"))
    lines = []
    for i in range(N_SONGS):
        t = np.arange(22_050) / 22_050
        soundfile.write(folder / f"{i}.flac", (0.2 * np.sin(2 * np.pi * (200 + 30 * i) * t)).astype(np.float32), 22_050)
        lines.append(json.dumps({"id": f"t{i:02}", "path": f"{i}.flac", "genres": ["rock"], "artists": [f"a{i}"]}))
    (folder / "songs.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@functools.cache
def clean() -> tuple[dict[str, bytes | None], float]:
    """Return the store of an uninterrupted run, and its duration in s."""
    path = songs() / "clean.zarr"
    started = time.monotonic()
    finish(path)
    return tree(path), time.monotonic() - started


def start(path: Path, workers: int, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start or resume an extraction."""
    return start_mgc("extract", songs() / "songs.jsonl", "-o", path, *OPTIONS, "--workers", workers, env=env)


def finish(path: Path, workers: int = 0, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Complete the extraction and return the report."""
    report: dict[str, Any] = json.loads(output(start(path, workers, env)))
    assert report["planned"] == report["ok"] == N_SONGS
    return report


def kill(number: int, folder: Path) -> dict[str, Any]:
    """Kill one or two extractions (--workers 0) at random times by SIGKILL, up to six times, then finish.

    The final store is byte-identical to that of an uninterrupted run.
    """
    stores, two = [folder / "s.zarr"] * (1 + number % 2), number % 2 == 1
    kills = _kill_at_random(number, stores)
    return {"kills": kills, "by two at once": kills if two else 0, "tracks lost": 0}


def kill_gluster(number: int, folder: Path) -> dict[str, Any]:
    """Kill two extractions (--workers 0), each through its own mount of a GlusterFS volume, up to six times.

    The final store is byte-identical to that of an uninterrupted run on a local file system, through both mounts.
    """
    with mounted_twice() as mounts:
        stores = [mount / "s.zarr" for mount in mounts]
        kills = _kill_at_random(number, stores)
        assert tree(stores[1]) == clean()[0]
    return {"kills": kills, "tracks lost": 0}


def _kill_at_random(number: int, stores: Sequence[Path]) -> int:
    """Kill an extraction per path of a store at the same random time, six times; finish, compare, count the kills."""
    rng = random.Random(number)
    expected, seconds = clean()
    kills = 0
    for _ in range(6):
        running = [start(store, workers=0) for store in stores]
        time.sleep(rng.uniform(0.3, 1.0) * seconds * len(stores) ** 0.5)
        kills += sum([kill_group(process) for process in running])
    finish(stores[0])
    assert tree(stores[0]) == expected
    return kills


def kill_dask(number: int, folder: Path) -> dict[str, Any]:
    """Kill the whole process tree of an extraction with Dask: nanny, workers and decoders.

    The final store is byte-identical to that of an uninterrupted run.
    """
    rng = random.Random(number)
    expected, _ = clean()
    path, kills = folder / "s.zarr", 0
    for _ in range(3):
        process = start(path, workers=2)
        time.sleep(rng.uniform(1.0, 5.0))
        kills += kill_group(process)
    finish(path, workers=2)
    assert tree(path) == expected
    return {"kills": kills, "tracks lost": 0}


def worker(number: int, folder: Path) -> dict[str, Any]:
    """End Dask workers within a part (exit, segfault), at four random tracks, once each.

    The store is byte-identical to that of an uninterrupted run.
    """
    rng = random.Random(number)
    expected, _ = clean()
    env = run_first(folder / "site", FAULTY_WORKER) | {"MGC_CAMPAIGN_FAULTS": str(folder)}
    for i, part in enumerate(
        rng.sample(range(N_SONGS // PART_ROWS), 4)
    ):  # different parts, so that none exceeds its attempts
        song = part * PART_ROWS + rng.randrange(PART_ROWS)
        (folder / f"{('exit', 'segfault')[i % 2]}-{song}.flac").touch()
    report = finish(folder / "s.zarr", workers=2, env=env)
    fired = len(list(folder.glob("fired-*")))
    assert fired == 4
    assert report["failed"] == 0
    assert tree(folder / "s.zarr") == expected
    return {"workers killed": fired}


def disk_full(number: int, folder: Path) -> dict[str, Any]:
    """Fill a small tmpfs at a random point of an extraction: the command ends with an error that names the cause.

    After space is freed, the store is byte-identical to that of an uninterrupted run.
    """
    rng = random.Random(number)
    expected, _ = clean()
    need_kib = sum(len(data) for data in expected.values() if data) // 1024 + 4 * len(expected)
    disk = folder / "small"
    with small_disk(disk, rng.randint(200, need_kib)) as make_room:
        error = full_disk_error(start(disk / "s.zarr", workers=0), timeout_s=120)
        make_room()
        finish(disk / "s.zarr")
        assert tree(disk / "s.zarr") == expected
        assert sorted(entry.name for entry in disk.iterdir()) == ["s.zarr"], "a file is left next to the store"
    return {"times full": int(error is not None)}
