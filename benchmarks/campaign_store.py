"""Trials on the store itself: failing operations, flipped bits, readers beside writers, any order of doings."""

from __future__ import annotations

import contextlib
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
from full_store import create_full, fill_pending
from small_store import FAILED_ROW, create, features, tree
from store_machine import run_sequences

from mgc.cache.errors import StoreCorruptError
from mgc.cache.reading.hdf5_reader import USER_BLOCK
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.hdf5_writer import seal_problem, seal_store
from mgc.cache.upkeep.quarantine import quarantine
from mgc.cache.upkeep.verify import verify
from mgc.cache.writing.takedowns import drop

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
    """For the life of this process: t07 is taken down and not compacted yet; beside it the sealed form from before."""
    path = create_full(Path(tempfile.mkdtemp(prefix="mgc-campaign-store-")) / "s.zarr")
    seal_store(path, path.with_suffix(".h5"))
    drop(path, ["t07"], planned=["t07"])
    return path


def flip(number: int, folder: Path, every: int = 1) -> dict[str, Any]:
    """A random bit of every file of a store, one file at a time, and bits all over its sealed form."""
    rng = random.Random(number)
    before = tree(_store())
    found = {"bits flipped": 0, "without effect, in white space of JSON": 0, "takedowns, left to a copy": 0}
    for key in [key for key, data in before.items() if data][number % every :: every]:
        path = Path(shutil.copytree(_store(), folder / "s.zarr"))
        (path / key).write_bytes(_flipped(before[key] or b"", rng))
        damages = verify(path, full=True)
        if not damages and key.endswith("zarr.json"):
            found["without effect, in white space of JSON"] += 1
        else:
            assert [damage.key for damage in damages] == [key], f"{key} is hurt, {damages} was found"
            assert (damages[0].part, damages[0].feature_set) == _place(key), f"{key}: {damages[0]}"
            left = quarantine(path, damages)
            if not left:
                fill_pending(path)
                assert verify(path, full=True) == []
                _compare(before, tree(path), key)
            elif key.startswith("drops/"):  # who was taken down stays hidden: nothing of the store can be read
                found["takedowns, left to a copy"] += 1
                with contextlib.suppress(StoreCorruptError):
                    raise AssertionError(f"{key} is hurt and {FeatureStore.open(path).ok_rows} are shown")
            else:  # only the source can make it again: tests/pipeline/extraction/test_repair.py
                assert key.split("/")[0] in ("tracks", "genres", "genre_embedding", "genre_embedding_other")
        found["bits flipped"] += 1
        shutil.rmtree(path)
    return {**found, "bits of a sealed store": _flip_sealed(folder / "s.h5", rng, every)}


def _flipped(data: bytes, rng: random.Random, at: int | None = None) -> bytes:
    hurt = bytearray(data)
    hurt[rng.randrange(len(hurt)) if at is None else at] ^= 1 << rng.randrange(8)
    return bytes(hurt)


def _place(key: str) -> tuple[int | None, str | None]:
    """Part and feature set that a key speaks of; an older record that no longer counts hurts no part."""
    pieces = key.split("/")
    added = next((name for name in ("other", "tempo") if name in pieces[0] or name in pieces[1:2]), None)
    if pieces[0] == "commits" and "." not in pieces[-1].removesuffix(".json"):
        newer = _store() / key.replace(".json", ".1.json")
        return (None, None) if newer.exists() else (int(pieces[-1].removesuffix(".json")), added)
    if pieces[0] in ("commits", "rows"):
        return int(pieces[-1].split(".")[0]), added
    if pieces[1:2] == ["c"] and not pieces[0].startswith("genre_embedding"):
        return int(pieces[2]), added
    return None, None


def _compare(before: dict[str, bytes | None], after: dict[str, bytes | None], hurt: str) -> None:
    """What was not hurt is as it was; what was made again is too, but that t07 has gone where its part was."""
    part = _place(hurt)[0]
    for key, data in before.items():
        if data and not key.startswith("commits") and (part != 1 or _place(key)[0] != 1):
            assert after[key] == data, f"{key} has changed when {hurt} was repaired"


def _flip_sealed(path: Path, rng: random.Random, every: int) -> int:
    """A bit of every byte of the seal, then one in each of a thousand equal stretches of the file."""
    data = _store().with_suffix(".h5").read_bytes()
    stretch = (len(data) - USER_BLOCK) // 1000
    places = [*range(USER_BLOCK), *(USER_BLOCK + i * stretch + rng.randrange(stretch) for i in range(1000))]
    path.write_bytes(data)
    assert seal_problem(path) is None
    for place in places[::every]:
        path.write_bytes(_flipped(data, rng, place))
        assert seal_problem(path) is not None, f"byte {place} is hurt and nobody noticed"
    return len(places[::every])


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
