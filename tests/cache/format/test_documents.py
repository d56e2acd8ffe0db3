"""Untrusted records of a store: invalid content is refused, with the key in the message, before it is used."""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from benchmarks.worlds.full_store import create_full
from benchmarks.worlds.small_store import RECIPE, TEXT, tree
from mgc.cache.durable import fingerprint, seal, unseal
from mgc.cache.errors import MgcError, StoreCorruptError, StoreFormatError
from mgc.cache.format.documents import is_record_key, read_record, record_problem
from mgc.cache.format.plan import read_plan
from mgc.cache.format.records import commit_key
from mgc.cache.format.tables import plan_table
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.info import watch
from mgc.cache.upkeep.verify import verify
from mgc.cache.writing.creation import create_store
from mgc.cache.writing.publish import staged_folder, sweep

GOLDEN = Path(__file__).parents[1] / "golden" / "golden.zarr"
KEYS = ["plan.json", "generations/0.json", "generations/1.json", "features/other.json", "features/tempo.json"]
KEYS += ["commits/0.json", "commits/0.1.json", "commits/other/0.json", "drops/0.json"]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_full(tmp_path_factory.mktemp("full") / "s.zarr")


def test_every_record_of_this_version_and_of_the_golden_store_is_accepted(full: Path) -> None:
    for store in (full, GOLDEN):
        keys = [key for key, data in tree(store).items() if data and key.endswith(".json") and "zarr" not in key]
        assert len(keys) > 8
        for key in keys:
            assert is_record_key(key)
            read_record(store, key)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value of a document, but for those of any form that a recipe may have."""
    if path[-1:] in (("parameters",), ("clip",)):
        return
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from leaves(item, (*path, key))


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    document = copy.deepcopy(document)
    parent: Any = document
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    if "objects" in document:
        document["digest"] = fingerprint(document["objects"])
    return document


@pytest.mark.parametrize("key", KEYS)
def test_value_of_a_wrong_type_is_refused_with_its_key(full: Path, key: str) -> None:
    document = read_record(full, key)
    for path in leaves(document):
        if path == ("digest",):
            continue
        before = document
        for step in path:
            before = before[step]
        for value in (None, True, 1.5, -1, 2**80, "\x00", [], {}, [[]], {"a": 1}):
            fits = isinstance(value, type(before)) or (isinstance(before, float) and type(value) is int)
            if not fits and not (path == ("previous",) and value is None):
                wrong = record_problem(key, changed(document, path, value))
                assert wrong is not None, (path, value)
                assert next(step for step in path if isinstance(step, str)) in wrong


@pytest.mark.parametrize("key", KEYS)
def test_keys_that_are_missing_or_not_documented_are_refused_by_name(full: Path, key: str) -> None:
    document = read_record(full, key)
    for path in [(), *leaves(document)]:
        inner: Any = document
        for step in path:
            inner = inner[step]
        free = {"fingerprints", "library_versions", "reasons", "genre_names", "parameters", "clip"}
        if isinstance(inner, dict) and not free & set(path):
            assert "'smuggled' is not a documented key" in (record_problem(key, changed_in(document, path)) or "")
    for name in document:
        rest = {other: value for other, value in document.items() if other != name}
        if name != "feature_set" or key.startswith("features"):
            assert f"{name} is missing" in (record_problem(key, rest) or "")


def changed_in(document: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    return changed(document, (*path, "smuggled"), 1)


def rewrite(store: Path, key: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a record, and seal it again; those that hold its hash do not change."""
    document = unseal(store / key)
    change(document)
    if "objects" in document:
        document["digest"] = fingerprint(document["objects"])
    (store / key).unlink()
    (store / key).write_bytes(seal(document))


HOSTILE: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("plan.json", lambda d: d.update(part_rows=2**40), "part_rows is 1099511627776"),
    ("plan.json", lambda d: d["recipe"]["mel"].update(clip_s=10**400), "clip_s is 1000"),
    ("plan.json", lambda d: d["recipe"]["lyrics"].update(hidden_size=2**16), "bytes per part|belongs"),
    ("plan.json", lambda d: d["recipe"].pop("lyrics"), "embeds genres without a text encoder"),
    ("plan.json", lambda d: d["fingerprints"].pop("mel"), "fingerprints do not match"),
    ("plan.json", lambda d: d.update(more=1), "'more' is not a documented key"),
    ("generations/0.json", lambda d: d.update(n_tracks=10**8), "rows instead of 100000000|belongs"),
    ("generations/0.json", lambda d: d.update(first_row=4), "other rows"),
    ("generations/1.json", lambda d: d.update(first_genre=0), "other rows"),
    ("generations/1.json", lambda d: d.update(kind="first"), "another number or kind"),
    ("generations/1.json", lambda d: d["objects"].pop(), "other objects"),
    ("generations/1.json", lambda d: d["objects"][0].update(key="x" * 300), "key is 'xxx"),
    ("features/other.json", lambda d: d.update(feature_set="tempo"), "another name"),
    ("features/other.json", lambda d: d.update(n_genres=10**8), "other genres"),
    ("features/other.json", lambda d: d["recipe"].update(max_tokens=65_535, hidden_size=65_536), "bytes per part"),
    ("features/tempo.json", lambda d: d["recipe"].update(shape=[2**60]), "bytes per part"),
    ("features/tempo.json", lambda d: d["recipe"].update(dims=["mel_band"]), "dimension 'mel_band'"),
    ("features/tempo.json", lambda d: d["recipe"].update(dtype="O"), "dtype"),
    ("features/tempo.json", lambda d: d["recipe"].update(dims=["a", "b"]), "do not match"),
    ("drops/0.json", lambda d: d.update(ids="t02"), "ids is 't02'"),
    ("drops/0.json", lambda d: d.update(ids=[1]), r"ids\[0\] is 1"),
]


@pytest.mark.parametrize(("key", "change", "message"), HOSTILE)
def test_a_sealed_record_that_contradicts_the_format_is_refused(
    full: Path, tmp_path: Path, key: str, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    store = Path(shutil.copytree(full, tmp_path / "s.zarr"))
    rewrite(store, key, change)
    with pytest.raises(StoreCorruptError, match=message):
        FeatureStore.open(store)
    with contextlib.suppress(StoreCorruptError):  # where neither plan.json nor zarr.json has a plan
        assert key in [damage.key for damage in verify(store, full=True)]


def test_feature_set_with_a_used_name_is_refused(full: Path, tmp_path: Path) -> None:
    for name in ("mel", "rows", "staging"):
        store = Path(shutil.copytree(full, tmp_path / name))
        (store / "features/tempo.json").rename(store / f"features/{name}.json")
        rewrite(store, f"features/{name}.json", lambda d, name=name: d.update(feature_set=name))
        with pytest.raises(StoreCorruptError, match="arrays or folders of that name already"):
            read_plan(store)


def test_another_format_version_is_reported(full: Path, tmp_path: Path) -> None:
    """Before its keys are looked at: a later version may have others."""
    store = Path(shutil.copytree(full, tmp_path / "s.zarr"))
    rewrite(store, "plan.json", lambda d: d.update(format_version=2, more=1))
    with pytest.raises(StoreFormatError, match="store format 2"):
        FeatureStore.open(store)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"sha256": "\\ud800"}', '{"a": "\\ud800", "sha256": 1}', "[]", "1", "\xff"]
)
def test_invalid_json_is_a_damaged_record(full: Path, tmp_path: Path, text: str) -> None:
    store = Path(shutil.copytree(full, tmp_path / "s.zarr"))
    for key in ("plan.json", "commits/1.json", "drops/0.json", "zarr.json"):
        (store / key).unlink()
        (store / key).write_bytes(text.encode("latin-1"))
        if key != "zarr.json":
            with pytest.raises(StoreCorruptError):
                read_record(store, key)
    with pytest.raises(MgcError):
        verify(store)


def test_record_with_a_high_number_needs_no_more_memory(full: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(full, tmp_path / "s.zarr"))
    key = commit_key(1, 99_991)
    rewrite(store, "commits/1.json", lambda d: d.update(n=99_991))
    (store / "commits/1.json").rename(store / key)
    (store / "quarantine" / "1.99990").mkdir(parents=True)
    staged_folder(store, key, read_record(store, key)).mkdir(parents=True)
    with (
        mock.patch("mgc.cache.writing.publish.sweep", wraps=sweep) as swept,
        mock.patch("mgc.cache.upkeep.verify.commit_key", wraps=commit_key) as keys,
    ):
        assert verify(store, full=True) == []
    assert swept.call_count + keys.call_count < 100
    assert not (store / "staging").exists()
    assert FeatureStore.open(store).ok_rows.tolist() == FeatureStore.open(full).ok_rows.tolist()


def test_huge_track_count_allocates_no_memory(full: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(full, tmp_path / "s.zarr"))
    rewrite(store, "generations/1.json", lambda d: d.update(n_tracks=999_999_999))
    assert next(watch(store)).parts > 10**8
    with pytest.raises(StoreCorruptError, match="1 rows instead of 999999999"):
        FeatureStore.open(store)


def test_genres_of_one_name_are_refused(tmp_path: Path) -> None:
    tracks = plan_table([{"id": "t", "path": "t.mp3", "artists": ["a"], "genres": ["rock"]}])
    genres, embedding = ["rock", "rock"], np.zeros((2, TEXT.hidden_size), np.float32)
    create_store(
        tmp_path / "s.zarr", tracks=tracks, recipe=RECIPE, part_rows=1, genres=genres, genre_embedding=embedding
    )
    with pytest.raises(StoreCorruptError, match="table of genres has a duplicate name"):
        FeatureStore.open(tmp_path / "s.zarr")
