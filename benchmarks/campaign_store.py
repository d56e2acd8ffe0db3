"""Trials on the store itself: failing operations, flipped bits, readers beside writers, any order of doings."""

from __future__ import annotations

import functools
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from faults import Fault, faults, life, one_fault
from small_store import FAILED_ROW, create, features, fill, tree
from store_machine import run_sequences

from mgc.cache.commits import committed
from mgc.cache.store import FeatureStore
from mgc.cache.verify import put_aside, verify

KINDS: tuple[Fault, ...] = ("kill", "EIO", "ENOSPC")
FAULT_TRIALS = 31


@functools.cache
def whole() -> tuple[dict[str, bytes | None], int]:
    """A life without faults: the store in the end, and how many operations it took."""
    with tempfile.TemporaryDirectory() as folder:
        with faults(Path(folder)) as watch:
            life(Path(folder) / "s.zarr")
        return tree(Path(folder) / "s.zarr"), len(watch.seen)


def n_faults() -> int:
    return whole()[1] * len(KINDS)


def fault(number: int, folder: Path) -> dict[str, Any]:
    """The three kinds at every 31st operation from one on; :data:`FAULT_TRIALS` trials see them all."""
    expected, n_operations = whole()
    count = 0
    for at in range(number, n_operations, FAULT_TRIALS):
        for kind in KINDS:
            one_fault(folder, kind, at, expected, tree)
            shutil.rmtree(folder / "s.zarr")
            count += 1
    return {"operations": count}


@functools.cache
def _store() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mgc-campaign-store-"))
    fill(create(folder / "s.zarr"))
    return folder / "s.zarr"


def flip(number: int, folder: Path) -> dict[str, Any]:
    """A random bit of every file of a store, one file at a time."""
    rng = random.Random(number)
    before = tree(_store())
    count = spared = 0
    for key in [key for key, data in before.items() if data]:
        path = Path(shutil.copytree(_store(), folder / "s.zarr"))
        data = bytearray(before[key] or b"")
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (path / key).write_bytes(data)
        found = [damage for damage in verify(path, full=True) if damage.key == key]
        if key.endswith("zarr.json") and not found:
            spared += 1  # the JSON says the same: white space
        else:
            assert found, f"{key} is hurt and nobody noticed"
            pieces = key.split("/")
            if pieces[0] in ("commits", "rows"):
                assert found[0].part == int(pieces[1].split(".")[0])
            elif pieces[1:2] == ["c"] and pieces[0] != "genre_embedding":
                assert found[0].part == int(pieces[2])
            left = put_aside(path, found)
            if left:  # only the source can make it again: tests/pipeline/test_repair.py
                assert key.split("/")[0] in ("tracks", "genres", "genre_embedding")
            else:
                fill(path, sorted({0, 1, 2} - committed(path).keys()))
                assert verify(path, full=True) == []
        count += 1
        shutil.rmtree(path)
    return {"bits flipped": count, "without effect, in white space of JSON": spared}


WRITER = """
import sys, time; from pathlib import Path; from small_store import *; import small_store
path, n = Path(sys.argv[1]), int(sys.argv[2])
plan = read_plan(path)
for part in range(plan.n_parts):
    commit_part(path, part, *part_content(plan.part_range(part))); time.sleep(0.02)
finish(path)
"""


def reader(number: int, folder: Path) -> dict[str, Any]:
    """A store of 80 parts is written by a process; this one opens it again and again and compares what it reads."""
    rng = np.random.default_rng(number)
    path = create(folder / "s.zarr", n_tracks=320)
    truth = {row: features(row) for row in range(320)}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), "80"], cwd=Path(__file__).parent)
    reads = opens = 0
    seen: set[int] = set()
    while True:
        ended = writer.poll() is not None
        with FeatureStore.open(path) as store:
            opens += 1
            ok = set(store.ok_rows.tolist())
            assert seen <= ok, "a row that was there is gone"
            seen = ok
            for row in rng.permutation(store.ok_rows)[:40].tolist():
                np.testing.assert_array_equal(store.read("mel", [row])[0], truth[row]["mel"])
                np.testing.assert_array_equal(store.read("lyrics", [row])[0], truth[row]["lyrics"])
                assert store.read("lyrics_tokens", [row])[0] == truth[row]["lyrics_tokens"]
                reads += 3
        if ended:
            break
    assert writer.returncode == 0
    assert len(seen) == 320 - 1
    assert FAILED_ROW not in seen
    return {"reads": reads, "openings": opens}


def sequences(number: int, folder: Path) -> dict[str, Any]:
    """100 sequences of a hypothesis state machine."""
    return {"sequences": run_sequences(100, seed=number)}
