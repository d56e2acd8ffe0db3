"""Trials in which processes die, or the disk is full: the real command, the real store."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.worlds.small_store import tree

N_SONGS, PART_ROWS = 24, 4
OPTIONS = ("--features", "mel", "--clip-s", "1", "--part-rows", str(PART_ROWS), "--json")
FAULTY_WORKER = """
import os
if os.environ.get("MGC_CAMPAIGN_FAULTS"):
    from pathlib import Path
    import mgc.pipeline.extraction.builder as builder
    real, scratch = builder.resolve_inside, Path(os.environ["MGC_CAMPAIGN_FAULTS"])
    def faulty(root, path):
        for kind in ("exit", "segfault"):
            try:
                (scratch / f"{kind}-{path}").rename(scratch / f"fired-{kind}-{path}")
            except FileNotFoundError:
                continue
            os._exit(7) if kind == "exit" else os.kill(os.getpid(), 11)
        return real(root, path)
    builder.resolve_inside = faulty
"""
"""A sitecustomize: a worker dies at a track for which a token lies in a folder, and takes the token away."""


@functools.cache
def songs() -> Path:
    """A folder of short tones, and its manifest; for the life of this process."""
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
    """The store that an undisturbed run makes, and how long it takes."""
    path = songs() / "clean.zarr"
    started = time.monotonic()
    finish(path)
    return tree(path), time.monotonic() - started


def start(path: Path, *more: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """An extraction, leader of its own process group."""
    command = [sys.executable, "-m", "mgc", "extract", str(songs() / "songs.jsonl"), "-o", str(path), *OPTIONS, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                            env={**os.environ, **(env or {})})  # fmt: skip


def finish(path: Path, *more: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    process = start(path, *(more or ("--workers", "0")), env=env)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()[-2000:]
    report: dict[str, Any] = json.loads(out)
    assert report["planned"] == report["ok"] == N_SONGS
    return report


def kill_group(process: subprocess.Popen[bytes]) -> bool:
    """SIGKILL to a process and all its children; False if it had ended by itself."""
    alive = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


def kill(number: int, folder: Path) -> dict[str, Any]:
    """Up to six kills of one store, by one extraction or two at once; then it is finished and compared."""
    rng = random.Random(number)
    expected, seconds = clean()
    path, kills, at_once = folder / "s.zarr", 0, 1 + number % 2
    for _ in range(6):
        running = [start(path, "--workers", "0") for _ in range(at_once)]
        time.sleep(rng.uniform(0.3, 1.0) * seconds * at_once**0.5)
        kills += sum([kill_group(process) for process in running])
    finish(path)
    assert tree(path) == expected
    return {"kills": kills, "by two at once": kills if at_once == 2 else 0, "tracks lost": 0}


def kill_dask(number: int, folder: Path) -> dict[str, Any]:
    """The same through Dask: nanny, workers and decoders die with it."""
    rng = random.Random(number)
    expected, _ = clean()
    path, kills = folder / "s.zarr", 0
    for _ in range(3):
        process = start(path, "--workers", "2")
        time.sleep(rng.uniform(1.0, 5.0))
        kills += kill_group(process)
    finish(path, "--workers", "2")
    assert tree(path) == expected
    return {"kills": kills, "tracks lost": 0}


def worker(number: int, folder: Path) -> dict[str, Any]:
    """Workers of a Dask run die at four random tracks, each once."""
    rng = random.Random(number)
    expected, _ = clean()
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(FAULTY_WORKER)
    for i, song in enumerate(rng.sample(range(N_SONGS // PART_ROWS), 4)):  # parts, so that no part dies too often
        name = f"{sorted(range(N_SONGS))[song * PART_ROWS + rng.randrange(PART_ROWS)]}.flac"
        (folder / f"{('exit', 'segfault')[i % 2]}-{name}").touch()
    search_path = os.pathsep.join([str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    report = finish(folder / "s.zarr", "--workers", "2", env={"PYTHONPATH": search_path,
                                                              "MGC_CAMPAIGN_FAULTS": str(folder)})  # fmt: skip
    fired = len(list(folder.glob("fired-*")))
    assert fired == 4
    assert report["failed"] == 0
    assert tree(folder / "s.zarr") == expected
    return {"workers killed": fired}


@contextlib.contextmanager
def small_disk(place: Path, kib: int) -> Iterator[Callable[[], None]]:
    """A file system of so many KiB at `place`; call what it yields to make room."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", place], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=256m", place], check=True) and None
    finally:
        subprocess.run(["umount", place], check=True)
        shutil.rmtree(place)


def disk_full(number: int, folder: Path) -> dict[str, Any]:
    """A file system with room for a random share of the store; then with room for all."""
    rng = random.Random(number)
    expected, _ = clean()
    need_kib = sum(len(data) for data in expected.values() if data) // 1024 + 4 * len(expected)
    place = folder / "small"
    with small_disk(place, rng.randint(200, need_kib)) as make_room:
        process = start(place / "s.zarr", "--workers", "0")
        _, err = process.communicate(timeout=120)
        full = process.returncode != 0
        if full:
            assert process.returncode == 2, err.decode()[-2000:]
            assert b"No space left on device" in err, err.decode()[-2000:]
        make_room()
        finish(place / "s.zarr")
        assert tree(place / "s.zarr") == expected
        assert sorted(entry.name for entry in place.iterdir()) == ["s.zarr"], "nothing is left beside the store"
    return {"times full": int(full)}
