"""Define trials on the store: failing operations, flipped bits, concurrent readers, random orders of operations."""

from __future__ import annotations

import contextlib
import functools
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.campaigns import interleavings
from benchmarks.campaigns.faults import Fault, check_fault, faults, life
from benchmarks.campaigns.store_machine import run_sequences
from benchmarks.cluster.gluster import mounted_twice
from benchmarks.machine import ROOT
from benchmarks.worlds.full_store import create_full, fill_pending
from benchmarks.worlds.small_store import FAILED_ROW, create, features, tree
from mgc.cache.errors import StoreCorruptError
from mgc.cache.reading.hdf5_reader import USER_BLOCK
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.hdf5_writer import seal_store
from mgc.cache.upkeep.quarantine import quarantine
from mgc.cache.upkeep.seal import seal_problem
from mgc.cache.upkeep.verify import verify
from mgc.cache.writing.takedowns import drop

KINDS: tuple[Fault, ...] = ("kill", "EIO", "ENOSPC")
FAULT_TRIALS = 31
INTERLEAVING_TRIALS, REPAIR_TRIALS = 307, 23


@functools.cache
def whole() -> tuple[dict[str, bytes | None], int]:
    """Return the store after :func:`life` without faults, and the number of operations."""
    with tempfile.TemporaryDirectory() as folder:
        with faults(Path(folder)) as watch:
            life(Path(folder) / "s.zarr")
        return tree(Path(folder) / "s.zarr"), len(watch.operations)


def n_faults() -> int:
    return whole()[1] * len(KINDS)


def fault(number: int, folder: Path) -> dict[str, Any]:
    """Kill the process, or let the disk fail (EIO, ENOSPC), at every operation of a sequence of commands on a store.

    Readers see the old or the new state only, and the final store is identical to that of an uninterrupted run.
    """
    expected, n_operations = whole()
    count = 0
    for at in range(number, n_operations, FAULT_TRIALS):
        for kind in KINDS:
            check_fault(folder, kind, at, expected)
            shutil.rmtree(folder / "s.zarr")
            count += 1
    return {"operations": count}


Command = Callable[[Path], None]


@functools.cache
def _half(writers: tuple[Command, ...] = interleavings.WRITERS) -> tuple[Path, list[tuple[Command, Command, int]]]:
    """Return a half-extracted store, and every case of :mod:`benchmarks.campaigns.interleavings` for some writers."""
    folder = Path(tempfile.mkdtemp(prefix="mgc-campaign-half-"))
    half = interleavings.create_half(folder / "half.zarr")
    cases = []
    for writer in writers:
        n = interleavings.n_operations(half, folder, writer)
        cases += [(writer, other, at) for other in interleavings.OTHERS for at in range(n)]
    return half, cases


def n_interleavings() -> int:
    return len(_half()[1])


def n_repair_interleavings() -> int:
    return len(_half((interleavings.repair,))[1])


def interleave(
    number: int, folder: Path, writers: tuple[Command, ...] = interleavings.WRITERS, trials: int = INTERLEAVING_TRIALS
) -> dict[str, Any]:
    """Suspend a writer at each of its operations, and meanwhile extract, append, add, retry, repair, drop or delete.

    Afterwards the store is correct, or the writer ends with an error that states what to do. The next extraction
    completes the store.
    """
    half, cases = _half(writers)
    counts = {"interleavings": 0, "of them ended by an error": 0}
    for writer, other, at in cases[number::trials]:
        counts["of them ended by an error"] += bool(interleavings.interleave(half, folder, writer, other, at))
        counts["interleavings"] += 1
    return counts


def interleave_repair(number: int, folder: Path) -> dict[str, Any]:
    """Suspend a repair, after one file was deleted, at each of its operations, and meanwhile run the other commands.

    Afterwards the store is correct, or the repair ends with an error. The next extraction completes the store.
    """
    return interleave(number, folder, (interleavings.repair,), REPAIR_TRIALS)


@functools.cache
def _store() -> Path:
    """Write a store, with t07 taken down but not compacted, and its sealed form, for the life of this process."""
    path = create_full(Path(tempfile.mkdtemp(prefix="mgc-campaign-store-")) / "s.zarr")
    seal_store(path, path.with_suffix(".h5"))
    drop(path, ["t07"], planned=["t07"])
    return path


def flip(number: int, folder: Path, every: int = 1) -> dict[str, Any]:
    """Flip a bit in every file of a store with generations, added feature sets and takedowns, one file at a time.

    The damage is detected, located and repaired. In a sealed store, flips in every byte of the seal and all over the
    file are detected.
    """
    rng = random.Random(number)
    before = tree(_store())
    counts = {"bits flipped": 0, "without effect, in white space of JSON": 0, "takedowns, left to a copy": 0}
    for key in [key for key, data in before.items() if data][number % every :: every]:
        path = Path(shutil.copytree(_store(), folder / "s.zarr"))
        (path / key).write_bytes(_flip_bit(before[key] or b"", rng))
        damages = verify(path, full=True)
        if not damages and key.endswith("zarr.json"):
            counts["without effect, in white space of JSON"] += 1
        else:
            assert [damage.key for damage in damages] == [key], f"{key} is damaged, {damages} was found"
            assert (damages[0].part, damages[0].feature_set) == _part_of(key), f"{key}: {damages[0]}"
            remaining = quarantine(path, damages)
            if not remaining:
                fill_pending(path)
                assert verify(path, full=True) == []
                _compare(before, tree(path), key)
            elif key.startswith("drops/"):  # the store cannot be read, so that tracks that were taken down stay hidden
                counts["takedowns, left to a copy"] += 1
                with contextlib.suppress(StoreCorruptError):
                    raise AssertionError(f"{key} is damaged and {FeatureStore.open(path).ok_rows} are shown")
            else:  # repair needs the source: tests/pipeline/extraction/test_repair.py
                assert key.split("/")[0] in ("tracks", "genres", "genre_embedding", "genre_embedding_other")
        counts["bits flipped"] += 1
        shutil.rmtree(path)
    return {**counts, "bits of a sealed store": _flip_sealed(folder / "s.h5", rng, every)}


def _flip_bit(data: bytes, rng: random.Random, at: int | None = None) -> bytes:
    damaged = bytearray(data)
    damaged[rng.randrange(len(damaged)) if at is None else at] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _part_of(key: str) -> tuple[int | None, str | None]:
    """Return part and feature set of a key; None for a superseded record."""
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


def _compare(before: dict[str, bytes | None], after: dict[str, bytes | None], damaged: str) -> None:
    """Assert that a repair changed only `damaged`, and t07 if its part was built again."""
    part = _part_of(damaged)[0]
    for key, data in before.items():
        if data and not key.startswith("commits") and (part != 1 or _part_of(key)[0] != 1):
            assert after[key] == data, f"{key} has changed when {damaged} was repaired"


def _flip_sealed(path: Path, rng: random.Random, every: int) -> int:
    """Flip a bit in every byte of the seal, and in each of 1000 equal sections of the file."""
    data = _store().with_suffix(".h5").read_bytes()
    size = (len(data) - USER_BLOCK) // 1000
    offsets = [*range(USER_BLOCK), *(USER_BLOCK + i * size + rng.randrange(size) for i in range(1000))]
    path.write_bytes(data)
    assert seal_problem(path) is None
    for offset in offsets[::every]:
        path.write_bytes(_flip_bit(data, rng, offset))
        assert seal_problem(path) is not None, f"byte {offset} is damaged and no error was found"
    return len(offsets[::every])


WRITER = """
import sys, time
from pathlib import Path
from benchmarks.worlds.small_store import commit_part, roll_forward, part_content, read_plan
path, n = Path(sys.argv[1]), int(sys.argv[2])
plan = read_plan(path)
for part in range(plan.n_parts):
    commit_part(path, part, *part_content(plan.part_range(part))); time.sleep(0.02)
roll_forward(path)
"""


def reader_gluster(number: int, folder: Path) -> dict[str, Any]:
    """The same through another mount of a GlusterFS volume than the writer's, with a cache of its own.

    No reader sees a fill value or a partly written row.
    """
    with mounted_twice() as (written, read):
        return reader(number, written, read)


def reader(number: int, folder: Path, read_from: Path | None = None) -> dict[str, Any]:
    """Open and read a store repeatedly while another process writes its 80 parts.

    No reader sees a fill value or a partly written row.
    """
    rng = np.random.default_rng(number)
    written = create(folder / "s.zarr", n_tracks=320)
    path = written if read_from is None else read_from / "s.zarr"
    truth = {row: features(row) for row in range(320)}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(written), "80"], cwd=ROOT)
    reads = opens = 0
    previous: set[int] = set()
    while True:
        finished = writer.poll() is not None
        with FeatureStore.open(path) as store:
            opens += 1
            ok = set(store.ok_rows.tolist())
            assert previous <= ok, "a row has disappeared"
            previous = ok
            for row in rng.permutation(store.ok_rows)[:40].tolist():
                np.testing.assert_array_equal(store.read("mel", [row])[0], truth[row]["mel"])
                np.testing.assert_array_equal(store.read("lyrics", [row])[0], truth[row]["lyrics"])
                assert store.read("lyrics_tokens", [row])[0] == truth[row]["lyrics_tokens"]
                reads += 3
        if finished:
            break
    assert writer.returncode == 0
    assert len(previous) == 320 - 1
    assert FAILED_ROW not in previous
    return {"reads": reads, "openings": opens}


def sequences(number: int, folder: Path) -> dict[str, Any]:
    """Append, retry, repair, drop, compact and verify in random order: the store agrees with a model.

    A trial has 100 sequences of a hypothesis state machine.
    """
    return {"sequences": run_sequences(100, seed=number)}
