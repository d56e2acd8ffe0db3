"""Suspend a writer at any of its operations, as by SIGSTOP or a paused machine, while another command runs.

Both run in one process: an audit hook runs the other command within the call of the writer, at its n-th operation on
the store, including reads. Claims do not block the other command, as after a suspension of two minutes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from benchmarks.campaigns.faults import faults
from benchmarks.worlds.full_store import OTHER, TEMPO, content
from benchmarks.worlds.small_store import append_late_track, create, features, fill, tree
from mgc.cache.errors import ConfigError, MgcError
from mgc.cache.format.plan import read_plan, unfinished_removals
from mgc.cache.format.records import committed
from mgc.cache.format.schema import OK
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.compact import compact as compact_store
from mgc.cache.upkeep.hdf5_writer import convert as convert_store
from mgc.cache.upkeep.quarantine import quarantine
from mgc.cache.upkeep.verify import verify as verify_store
from mgc.cache.writing.commits import commit_part, roll_forward
from mgc.cache.writing.creation import add_feature_set
from mgc.cache.writing.feature_removal import remove_feature_set
from mgc.cache.writing.takedowns import drop

N_TRACKS = 6


def create_half(path: Path) -> Path:
    """Write a store with a pending part, an added feature set with a pending part, and a takedown before compaction."""
    create(path, N_TRACKS)
    fill(path, [0])
    add_feature_set(path, read_plan(path), "tempo", TEMPO)
    commit_part(path, 0, *content(path, read_plan(path), 0, "tempo"), feature_set="tempo")
    drop(path, ["t02"], planned=["t02"])
    return path


def extract(path: Path) -> None:
    """Build the pending parts, from the plan at the start."""
    roll_forward(path)
    plan = read_plan(path)
    for feature_set in (None, *plan.added):
        for part in sorted(set(range(plan.n_parts)) - committed(path, feature_set).keys()):
            arrays, outcomes = content(path, plan, part, feature_set)
            commit_part(path, part, arrays, outcomes, feature_set=feature_set, plan=plan)
    roll_forward(path)


def append(path: Path) -> None:
    """Append a track with a new genre, and build its part."""
    if len(read_plan(path).generations) == 1:
        append_late_track(path)
    extract(path)


def add(path: Path) -> None:
    """Add a feature set of another text encoder, which also embeds genres."""
    plan = read_plan(path)
    done = plan.added["other"].n_genres if "other" in plan.added else 0
    if done < plan.n_genres:
        embedding = np.full((plan.n_genres - done, OTHER.hidden_size), 2, np.float32)
        add_feature_set(path, plan, "other", OTHER, embedding)
    extract(path)


def retry(path: Path) -> None:
    """Build a committed part of an added feature set again, like a retry of failed tracks."""
    plan = read_plan(path)
    if "tempo" not in plan.added:
        return
    arrays, outcomes = content(path, plan, 0, "tempo")
    commit_part(path, 0, arrays, outcomes, feature_set="tempo", plan=plan, new_version=True)
    roll_forward(path)


def compact(path: Path) -> None:
    compact_store(path)


def drop_tracks(path: Path) -> None:
    drop(path, ["t04"], planned=["t04"])


def drop_tempo(path: Path) -> None:
    if "tempo" in read_plan(path).added:
        remove_feature_set(path, "tempo")


def drop_and_add_tempo(path: Path) -> None:
    """Remove a feature set, and add another one with the same name."""
    drop_tempo(path)
    add_feature_set(path, read_plan(path), "tempo", replace(TEMPO, version="2"))


def repair(path: Path) -> None:
    """Remove an object of the newest part and quarantine the part; if that is refused, restore the object."""
    key, backup = path / "mel/c" / str(max(committed(path), default=0)) / "0/0", path.with_suffix(".backup")
    if key.exists():
        key.replace(backup)
    try:
        quarantine(path, verify_store(path))
    except ConfigError:
        backup.replace(key)
        raise
    finally:
        backup.unlink(missing_ok=True)


def verify(path: Path) -> None:
    verify_store(path, full=True)


def convert(path: Path) -> None:
    """Seal the store into a file next to it; an unfinished store is refused."""
    convert_store(path, path.with_suffix(".h5"))


def delete(path: Path) -> None:
    shutil.rmtree(path)


WRITERS: tuple[Callable[[Path], None], ...] = (
    *(extract, append, add, retry, compact),
    *(drop_tracks, drop_tempo, drop_and_add_tempo, convert),
)
OTHERS: tuple[Callable[[Path], None], ...] = (
    *(extract, append, add, retry, compact, repair, verify, convert),
    *(drop_tracks, drop_tempo, drop_and_add_tempo, delete),
)


def n_operations(half: Path, folder: Path, writer: Callable[[Path], None]) -> int:
    """Return the number of operations of an uninterrupted writer."""
    path = _copy(half, folder, writer)
    with faults(path, reads=True) as watch:
        writer(path)
    _check_all(path)
    return len(watch.operations)


def _copy(half: Path, folder: Path, writer: Callable[[Path], None]) -> Path:
    """Copy the initial store of a writer: half extracted, or finished for `convert`."""
    path = Path(shutil.copytree(half, folder / "s.zarr"))
    if writer is convert:
        extract(path)
        compact(path)
    return path


def interleave(
    half: Path, folder: Path, writer: Callable[[Path], None], other: Callable[[Path], None], at: int
) -> list[str]:
    """Suspend a writer at an operation while another command runs; return the errors of both.

    Afterwards the store, and a sealed file if there is one, must be correct, and the next extraction completes them.
    """
    path = _copy(half, folder, writer)
    errors: list[str] = []

    def run(command: Callable[[Path], None]) -> None:
        try:
            command(path)
        except MgcError as error:
            errors.append(f"{command.__name__}: {type(error).__name__}: {error}".replace(str(path), "s.zarr"))
        except FileNotFoundError:  # an error for users if the store was deleted
            if path.exists():
                raise

    with faults(path, lambda: run(other), at, reads=True) as watch:
        run(writer)
    assert watch.fired, f"{writer.__name__} has no operation {at}"
    if other is delete:
        assert not path.exists(), "a deleted store was created again"
    _check_all(path)
    return errors


def _check_all(path: Path) -> None:
    """Check a store and its sealed file, before and after the next extraction; remove both.

    States that were checked before, byte for byte, are skipped: most interleavings end in one of a few hundred.
    """
    sealed = path.with_suffix(".h5")
    for _ in range(2):
        if path.exists():
            _check_state(path)
            shutil.rmtree(path)
        if sealed.exists():
            convert_store(sealed, path)
            sealed.unlink()


def _check_state(path: Path) -> None:
    state = sha256(repr(tree(path)).encode()).digest()
    if state in _checked:
        return
    check(path)
    extract(path)
    check(path, complete=True)
    _checked.add(state)


_checked: set[bytes] = set()


def check(path: Path, *, complete: bool = False) -> None:
    """Assert that a store is intact, and that every row with status ok is as written."""
    roll_forward(path)
    damages = verify_store(path, full=complete)
    assert damages == [], damages
    assert unfinished_removals(path) == []
    plan = read_plan(path)
    with FeatureStore.open(path) as store:
        for row in store.ok_rows.tolist():
            np.testing.assert_array_equal(store.read("mel", [row])[0], features(row)["mel"])
        for name in plan.added:
            _check_added(path, store, name)
    if complete:
        assert committed(path).keys() == set(range(plan.n_parts))
        assert not (path / "staging").exists(), sorted(p.name for p in (path / "staging").iterdir())


def _check_added(path: Path, store: FeatureStore, name: str) -> None:
    plan, outcomes = read_plan(path), store.added_outcomes(name)
    ok = {row["row"] for row in outcomes.to_pylist() if row["status"] == OK} & set(store.ok_rows.tolist())
    for part in range(plan.n_parts):
        arrays, _ = content(path, plan, part, name)
        for i, row in enumerate(plan.part_range(part)):
            if row in ok and name in arrays:
                np.testing.assert_array_equal(store.read(name, [row])[0], arrays[name][i])
