"""Define trials with hostile stores and models, whose checksums are valid."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.campaigns.hostile_mutations import (
    link_hashes,
    list_object,
    mutate_chunk,
    mutate_hdf5,
    mutate_json,
    mutate_table,
    mutate_tensors,
)
from benchmarks.machine import ROOT
from benchmarks.worlds.full_store import create_full
from benchmarks.worlds.small_store import tree
from benchmarks.worlds.songs_store import write_songs_store
from mgc import api
from mgc.cache.durable import seal
from mgc.cache.errors import MgcError
from mgc.cache.reading.store import FeatureStore
from mgc.cache.reading.view import StoreView
from mgc.cache.upkeep.compact import compact
from mgc.cache.upkeep.failures import failures
from mgc.cache.upkeep.hdf5_writer import convert, seal_store
from mgc.cache.upkeep.info import describe_store, watch
from mgc.cache.upkeep.quarantine import quarantine
from mgc.cache.upkeep.seal import write_seal
from mgc.cache.upkeep.verify import verify
from mgc.heads.config import TrainConfig
from mgc.heads.runs.checkpoint import find_state
from mgc.heads.runs.published_model import load_run
from mgc.heads.training.train import train

MEMORY_BYTES, TIME_S, TRACED_EVERY = 3 * 2**30, 60, 20
MODEL_FILES = ("config.json", "labels.json", "preprocessor.json", "thresholds.json", "model.safetensors")
"""`MEMORY_BYTES`: additional address space. `TIME_S`: time limit per mutant. Every `TRACED_EVERY`-th mutant is traced
for line coverage."""


@functools.cache
def originals() -> tuple[Path, dict[str, bytes], dict[str, Any]]:
    """Return a folder with ``s.zarr``, ``s.h5`` and ``run``, the files of ``s.zarr``, and its sealed records."""
    folder = Path(tempfile.mkdtemp(prefix="mgc-campaign-hostile-"))
    store = create_full(folder / "s.zarr")
    seal_store(store, folder / "s.h5")
    files = {key: data for key, data in tree(store).items() if data is not None}
    records = {key: json.loads(data) for key, data in files.items() if key.endswith(".json") and "zarr" not in key}
    for record in records.values():
        del record["sha256"]
    with FeatureStore.open(write_songs_store(folder / "songs.zarr")) as opened:
        options = {"encoder": "tiny", "epochs": 1, "device": "cpu", "precision": "fp32", "split": "random"}
        train(opened, folder / "run", TrainConfig(**options))
    return folder, files, records


@functools.cache
def truth() -> dict[tuple[str, int], bytes]:
    """Return the bytes of every feature of every row of the original."""
    with FeatureStore.open(originals()[0] / "s.zarr") as store:
        return {
            (spec.name, row): store.read(spec.name, [row])[0].tobytes()
            for spec in store.arrays
            for row in store.rows_with(spec.name).tolist()
        }


def hostile(number: int, folder: Path, n_mutants: int = 500) -> dict[str, Any]:
    """Mutate records, tables, arrays and metadata of a store in both forms, and of a model; seal and read them.

    Every command reads correct data or ends with an error of mgc. None crashes, hangs, or allocates more memory than
    the data justifies.
    """
    counts: Counter[str] = Counter()
    lines: set[tuple[str, int]] = set()
    truth()
    with _limits():
        for i in range(n_mutants):
            rng = random.Random(number * 1_000_003 + i)
            name = rng.choice(list(KINDS))
            signal.alarm(TIME_S)
            with _traced(lines) if i % TRACED_EVERY == 0 else contextlib.nullcontext():
                try:
                    counts["refused" if KINDS[name](folder, rng) else "read"] += 1
                except BaseException as error:
                    raise AssertionError(f"mutant {i} of trial {number} ({name}): {type(error).__name__}") from error
            signal.alarm(0)
            counts[name] += 1
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    executable = _executable_lines()
    share = f"{len(lines & executable) / len(executable):.0%} of {len(executable)}"
    return {"mutants": n_mutants, **counts, "lines of cache/ that they ran": share}


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Limit address space and time, and skip fsync, within the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, hard))
    before = signal.signal(signal.SIGALRM, _too_slow)
    try:
        with mock.patch("os.fsync"):
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _too_slow(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {TIME_S} s")


def _copy(folder: Path) -> Path:
    """Link all files of the store into a new store; no command changes files in place."""
    store = folder / "s.zarr"
    shutil.copytree(originals()[0] / "s.zarr", store, copy_function=os.link)
    return store


def _put(store: Path, key: str, data: bytes) -> None:
    (store / key).unlink(missing_ok=True)
    (store / key).parent.mkdir(parents=True, exist_ok=True)
    (store / key).write_bytes(data)


def _rewrite(store: Path, records: dict[str, Any], rng: random.Random) -> None:
    """Write all records, each sealed, mostly with updated hashes between them."""
    if rng.random() < 0.8:
        link_hashes(records)
    for key, record in records.items():
        if record != originals()[2][key]:
            _put(store, key, seal(record))


def record(folder: Path, rng: random.Random) -> bool:
    store, records = _copy(folder), copy.deepcopy(originals()[2])
    groups = sorted({key.partition("/")[0] for key in records})
    group = rng.choice(groups)
    mutate_json(records[rng.choice([key for key in sorted(records) if key.startswith(group)])], rng)
    _rewrite(store, records, rng)
    return use_store(store, rng)


def metadata(folder: Path, rng: random.Random) -> bool:
    store, files = _copy(folder), originals()[1]
    for _ in range(rng.choice((1, 1, 3))):
        key = rng.choice(sorted(key for key in files if key.endswith("zarr.json")))
        document = json.loads((store / key).read_bytes())
        mutate_json(document, rng)
        _put(store, key, json.dumps(document).encode())
    if rng.random() < 0.3:  # verify and repair read these records
        key = rng.choice(("plan.json", "generations/0.json", "features/other.json", "features/tempo.json"))
        _put(store, key, b"{}")
    return use_store(store, rng)


def table(folder: Path, rng: random.Random) -> bool:
    return _object(folder, rng, ".parquet", mutate_table, True)


def chunk(folder: Path, rng: random.Random) -> bool:
    return _object(folder, rng, "/0", mutate_chunk, False)


def _object(
    folder: Path, rng: random.Random, end: str, mutate: Callable[[bytes, random.Random], bytes], same: bool
) -> bool:
    store, records = _copy(folder), copy.deepcopy(originals()[2])
    key = rng.choice(sorted(key for key in originals()[1] if key.endswith(end)))
    data = mutate(originals()[1][key], rng)
    list_object(records, key, data)
    _rewrite(store, records, rng)
    _put(store, key, data)
    return use_store(store, rng, same=same)


def file(folder: Path, rng: random.Random) -> bool:
    """Replace a file by a link, a pipe, a folder, another file or nothing, or add one.

    The target of a link must not change.
    """
    store, kind, outside = _copy(folder), rng.randrange(5), folder / "outside"
    (outside / "c").mkdir(parents=True)
    (outside / "c" / "0").write_bytes(b"stays")
    before = tree(outside)
    new = ("rows/9.parquet", "commits/0.2.json", "commits/9.json", "drops/1.json", "generations/2.json", "log/a.jsonl")
    new += ("quarantine/0.0", "quarantine/foreign", "more")
    key = rng.choice((*sorted(originals()[1]), *new))
    (store / key).unlink(missing_ok=True)
    (store / key).parent.mkdir(parents=True, exist_ok=True)
    if kind == 0:
        (store / key).symlink_to(rng.choice((originals()[0] / "s.h5", outside, folder / "nowhere")))
    elif kind == 1:
        os.mkfifo(store / key)
    elif kind == 2:
        (store / key).mkdir()
    elif kind == 3:
        (store / key).write_bytes(rng.choice(list(originals()[1].values())))
    same = kind != 3  # only `verify --full` detects that an object is that of another key
    refused = use_store(store, rng, same=same)
    assert tree(outside) == before, "files outside the store were changed"
    return refused


def sealed(folder: Path, rng: random.Random) -> bool:
    path = Path(shutil.copy(originals()[0] / "s.h5", folder / "s.h5"))
    mutate_hdf5(path, rng)
    write_seal(path)
    refused = [_attempt(lambda: read_all(path, same=False))]
    refused.append(_attempt(lambda: bool(api.store_verify(path))))
    if rng.random() < 0.2:
        refused.append(_attempt(lambda: convert(path, folder / "out.zarr")))
    return any(refused)


def model(folder: Path, rng: random.Random) -> bool:
    run, best = Path(shutil.copytree(originals()[0] / "run", folder / "run")), folder / "run" / "best"
    name = rng.choice((*MODEL_FILES, "state"))
    target = next((run / "last").glob("state-*.json")) if name == "state" else best / name
    if name.endswith("safetensors"):
        target.write_bytes(mutate_tensors(target.read_bytes(), rng))
    else:
        document = json.loads(target.read_bytes())
        del document["sha256"]
        mutate_json(document, rng)
        target.write_bytes(seal(document))
    config = json.loads((best / "config.json").read_bytes())
    del config["sha256"]
    if isinstance(config.get("parts"), dict) and name in config["parts"]:
        config["parts"][name] = hashlib.sha256(target.read_bytes()).hexdigest()
        (best / "config.json").write_bytes(seal(config))
    return any([_attempt(lambda: _use_model(best)), _attempt(lambda: find_state(run))])


def _use_model(best: Path) -> None:
    loaded = load_run(best)
    for choice in ("overall", "per-genre"):
        assert np.isfinite(loaded.thresholds.cuts(choice)).all()
        loaded.thresholds.describe(choice, loaded.genres)
    assert loaded.label_prior.shape == loaded.majority.shape == (len(loaded.genres),)


KINDS: dict[str, Callable[[Path, random.Random], bool]] = {
    "records": record,
    "metadata": metadata,
    "tables": table,
    "chunks": chunk,
    "files": file,
    "HDF5 files": sealed,
    "models": model,
}


def use_store(store: Path, rng: random.Random, *, same: bool = True) -> bool:
    """Run the commands on a store; return whether any of them refused it."""
    refused = [_attempt(lambda: read_all(store, same=same, mapped=rng.random() < 0.7))]
    damages: list[Any] = []
    refused.append(_attempt(lambda: damages.extend(verify(store, full=rng.random() < 0.3))))
    for command in (describe_store, failures, lambda path: next(watch(path))):
        if rng.random() < 0.1:
            refused.append(_attempt(lambda command=command: command(store)))  # type: ignore[misc]
    if rng.random() < 0.1:
        refused.append(_attempt(lambda: convert(store, store.with_name("out.h5"))))
    if rng.random() < 0.1:
        refused.append(_attempt(lambda: quarantine(store, damages)))
        _attempt(lambda: read_all(store, same=same))
    if rng.random() < 0.1:
        refused.append(_attempt(lambda: compact(store)))
    return any(refused) or bool(damages)


def _attempt(action: Callable[[], object]) -> bool:
    try:
        return action() is True
    except MgcError:
        return True


def read_all(path: Path, *, same: bool, mapped: bool = True) -> None:
    """Read everything. With `same`, features must equal those of the original."""
    with FeatureStore.open(path, mapped=mapped) as store:
        view = StoreView(store)
        _ = store.counts(), view.tracks.to_pylist(), view.failures.to_pylist(), view.labels()
        for name in store.added:
            store.counts(name)
        for spec in store.arrays:
            for row in store.rows_with(spec.name).tolist():
                value = store.read(spec.name, [row])[0].tobytes()
                assert not same or truth().get((spec.name, row), value) == value, f"{spec.name} of row {row} is wrong"
        if store.embeds_genres:
            _ = store.genre_embedding
        texts = list(store.texts)
    for text in texts:
        with FeatureStore.open(path, text=text, mapped=mapped) as store:
            store.read("lyrics", store.ok_rows[:2])


@contextlib.contextmanager
def _traced(lines: set[tuple[str, int]]) -> Iterator[None]:
    """Collect the lines of ``cache/`` that this thread runs."""
    prefix = f"{ROOT}/cache/"
    file_of: dict[CodeType, str | None] = {}

    def local(frame: FrameType, event: str, _: object) -> Any:
        lines.add((file_of[frame.f_code] or "", frame.f_lineno))
        return local

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code not in file_of:
            name = os.path.realpath(frame.f_code.co_filename)
            file_of[frame.f_code] = name.removeprefix(prefix) if name.startswith(prefix) else None
        return local(frame, event, argument) if file_of[frame.f_code] is not None else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@functools.cache
def _executable_lines() -> frozenset[tuple[str, int]]:
    """Return file and line of every line of code in functions of ``cache/``."""
    lines = set()
    for path in (ROOT / "cache").rglob("*.py"):
        with io.open_code(str(path)) as text:
            codes = [compile(text.read(), str(path), "exec")]
        while codes:
            code = codes.pop()
            codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
            if code.co_flags & 2:  # a function; other code runs at import
                name = str(path.relative_to(ROOT / "cache"))
                lines |= {(name, line) for _, _, line in code.co_lines() if line}
    return frozenset(lines)
