"""Time reads of random batches of 16 mels: mgc, zarr-python, h5py, one .npy per track, DataLoader, np.take.

Warm: all files are in the page cache. Cold: they are evicted (POSIX_FADV_DONTNEED) before each run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import zarr

from benchmarks.speed import rivals
from benchmarks.timing import in_turn, spread, table
from mgc.cache.format.plan import read_plan
from mgc.cache.format.recipe import MelRecipe, Recipe
from mgc.cache.format.schema import OK
from mgc.cache.format.tables import OUTCOME_SCHEMA, plan_table
from mgc.cache.reading.store import FeatureStore
from mgc.cache.writing.commits import commit_part, roll_forward
from mgc.cache.writing.creation import create_store

BATCH, PART_ROWS = 16, 128
TAKE, OURS = "np.take on a memory map (limit)", "mgc FeatureStore.read"
SLOW_SHARE = 16
"""Slow implementations read 1/16 of the batches."""


class Forms:
    """The same random mels as a store, a flat file, an HDF5 file and one .npy per track."""

    def __init__(self, folder: Path, n: int) -> None:
        self.n, self.folder = n, folder
        self.store, self.flat, self.h5, self.npy = (folder / name for name in ("s.zarr", "flat.npy", "m.h5", "npy"))
        recipe = Recipe(mel=MelRecipe(), lyrics=None)
        shape = (MelRecipe().n_mels, MelRecipe().n_frames)
        self.n_bytes = n * int(np.prod(shape)) * 2
        planned = plan_table([{"id": f"{i:07}", "path": f"{i}.mp3", "artists": [], "genres": []} for i in range(n)])
        create_store(self.store, tracks=planned, recipe=recipe, part_rows=PART_ROWS, genres=[], genre_embedding=None)
        plan, rng = read_plan(self.store), np.random.default_rng(0)
        flat = np.lib.format.open_memmap(self.flat, mode="w+", dtype=np.float16, shape=(n, *shape))
        self.npy.mkdir()
        with h5py.File(self.h5, "w") as file:
            data = file.create_dataset("mel", (n, *shape), "f2", chunks=(1, *shape))
            for part in range(plan.n_parts):
                rows = plan.part_range(part)
                mel = rng.normal(-40, 15, (len(rows), *shape)).astype(np.float16)
                flat[rows.start : rows.stop] = data[rows.start : rows.stop] = mel
                for i, row in enumerate(rows):
                    np.save(self.npy / f"{row}.npy", mel[i])
                arrays = {
                    "mel": mel,
                    "mel_frames": np.full(len(rows), shape[1], np.uint16),
                    "status": np.full(len(rows), OK, np.uint8),
                    "flags": np.zeros(len(rows), np.uint32),
                }
                outcomes = pa.Table.from_pylist(
                    [{"row": row, "status": OK, "flags": 0, "seconds": 30.0} for row in rows], schema=OUTCOME_SCHEMA
                )
                commit_part(self.store, part, arrays, outcomes)
        flat.flush()
        roll_forward(self.store)

    def forget(self, *paths: Path) -> None:
        """Evict files from the page cache."""
        for path in paths or (self.folder,):
            for file in path.rglob("*") if path.is_dir() else (path,):
                if file.is_file():
                    descriptor = os.open(file, os.O_RDONLY)
                    os.fsync(descriptor)
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                    os.close(descriptor)


def run(folder: Path, gigabytes: float, rounds: int) -> str:
    n = max(PART_ROWS * 2, round(gigabytes * 1e9 / (128 * 1292 * 2) / PART_ROWS) * PART_ROWS)
    forms = Forms(folder, n)
    rng = np.random.default_rng(1)
    batches = list(rng.permutation(n)[: n // BATCH * BATCH].reshape(-1, BATCH))
    return _warm(forms, batches, rounds) + "\n" + _cold(forms, batches, rounds)


def _readers(forms: Forms) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    array, store = zarr.open_group(forms.store, mode="r")["mel"], FeatureStore.open(forms.store)
    flat = np.load(forms.flat, mmap_mode="r")
    data = h5py.File(forms.h5, "r")["mel"]
    readers: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        TAKE: lambda rows: rivals.memory_map(flat, rows),
        OURS: lambda rows: store.read("mel", rows),
        "zarr-python, oindex": lambda rows: rivals.zarr_oindex(array, rows),
        "zarr-python, single rows": lambda rows: rivals.zarr_one_by_one(array, rows),
        "h5py, one chunk per clip": lambda rows: rivals.h5py_one_by_one(data, rows),
        "one .npy per track": lambda rows: rivals.npy_files(forms.npy, rows),
    }
    try:
        import tensorstore
    except ImportError:
        return readers
    opened = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(forms.store / "mel")}}, read=True
    ).result()
    readers["tensorstore"] = lambda rows: rivals.tensorstore_rows(opened, rows)
    return readers


def _warm(forms: Forms, batches: list[np.ndarray], rounds: int) -> str:
    readers = _readers(forms)
    some = batches[: max(2, len(batches) // SLOW_SHARE)]
    counts = {name: len(batches) if name in (TAKE, OURS) else len(some) for name in readers}
    functions: dict[str, Callable[[], Any]] = {
        name: lambda read=read, k=counts[name]: _checksums(map(read, batches[:k]), len(some))
        for name, read in readers.items()
    }
    loader = "DataLoader over .npy, 2 workers"
    counts[loader] = len(batches)
    functions[loader] = lambda: _checksums(rivals.dataloader_batches(forms.npy, forms.n, batches, 2), len(some))
    times = in_turn(functions, rounds=rounds, agree=_agree)
    rate = {name: [counts[name] * BATCH / s for s in seconds] for name, seconds in times.seconds.items()}
    share = {name: [a / b for a, b in zip(rate[name], rate[TAKE], strict=True)] for name in rate}
    gain = {name: [a / b for a, b in zip(rate[OURS], rate[name], strict=True)] for name in rate}
    rows = [
        [name, spread(rate[name], 1, 0), spread(share[name], 1, 3), "-" if name == OURS else spread(gain[name], 1, 1)]
        for name in functions
    ]
    title = f"Random reads, warm: batches of {BATCH} mels from {forms.n_bytes / 1e9:.2f} GB"
    return table(title, ["", "clips/s", "share of np.take", "speed-up of mgc"], rows)


def _cold(forms: Forms, batches: list[np.ndarray], rounds: int) -> str:
    """Time reads of other clips in each round, with the store opened again, so that nothing is cached."""
    some = batches[: max(4, len(batches) // 2)]
    shards = sorted((forms.store / "mel").rglob("c/*"))

    def plain() -> list[float]:
        """Read each clip with one pread from the flat file, which is the limit."""
        size, header = 128 * 1292 * 2, forms.flat.stat().st_size - forms.n_bytes
        descriptor = os.open(forms.flat, os.O_RDONLY)
        try:
            batches = ([os.pread(descriptor, size, header + int(row) * size) for row in rows] for rows in some)
            clips = (np.stack([np.frombuffer(clip, np.float16).reshape(128, 1292) for clip in b]) for b in batches)
            return _checksums(clips, len(some))
        finally:
            os.close(descriptor)

    def read_store() -> list[float]:
        with FeatureStore.open(forms.store) as store:
            return _checksums((store.read("mel", rows) for rows in some), len(some))

    def mapped() -> list[float]:
        flat = np.load(forms.flat, mmap_mode="r")
        return _checksums((rivals.memory_map(flat, rows) for rows in some), len(some))

    functions = {
        "plain reads of the same bytes (limit)": plain,
        OURS: read_store,
        TAKE.removesuffix(" (limit)"): mapped,
    }
    times = in_turn(functions, rounds=rounds, agree=_agree, before_each=lambda: forms.forget(forms.flat, *shards))
    limit = next(iter(functions))
    rows = []
    for name, seconds in times.seconds.items():
        rate = [len(some) * BATCH / s for s in seconds]
        rows.append([name, spread(rate, 1, 0), "-" if name == limit else times.ratio(name, limit)])
    title = (
        f"Random reads, cold: {len(some)} batches of {BATCH} mels from {forms.n_bytes / 1e9:.2f} GB, store opened again"
    )
    return table(title, ["", "clips/s", "times as long as plain reads"], rows)


def _checksums(batches: Any, n: int) -> list[float]:
    """Return a checksum of each of the first `n` batches; reading its values is part of the time."""
    return [float(batch[:, 0, :64].astype(np.float32).sum()) for batch in batches][:n]


def _agree(reference: list[float], other: list[float]) -> str | None:
    return None if reference[: len(other)] == other[: len(reference)] else "other values"
