"""The page about a store: it tells what a second way of counting finds, in either form, and stays out of the store."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import small_store

from mgc.cache.errors import ConfigError
from mgc.cache.forms import convert
from mgc.cache.meanings import FLAG_MEANINGS, REASON_MEANINGS
from mgc.cache.schema import Flag, Reason
from mgc.cache.store import FeatureStore
from mgc.heads.report_store import write_store_report


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight of ten tracks are there, one of them failed, the others are flagged SHORT."""
    path = small_store.create(tmp_path_factory.mktemp("growing") / "growing.zarr")
    small_store.fill(path, [0, 1])
    return path


def _text(page: Path) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page.read_text(encoding="utf-8")).split())


def test_every_flag_and_reason_has_a_meaning() -> None:
    assert FLAG_MEANINGS.keys() == set(Flag)
    assert REASON_MEANINGS.keys() == set(Reason)


def test_a_growing_store_is_told_as_one(growing: Path) -> None:
    with FeatureStore.open(growing) as store:
        counted = Counter(store.tracks.column("status").to_pylist())
        flagged = sum(bool(flags & Flag.SHORT) for flags in store.tracks.column("flags").to_pylist())
    assert counted == {0: 2, 1: 7, 2: 1}
    told = _text(write_store_report(growing))
    assert "features of 7 of 10 planned tracks. It is not finished: 2 are not extracted yet" in told
    assert f"EMPTY 1 {' '.join(REASON_MEANINGS[Reason.EMPTY])} t05: no samples" in told
    assert f"SHORT {flagged} " in told
    assert FLAG_MEANINGS[Flag.SHORT] in told


def test_both_forms_give_the_same_page_but_for_name_and_size(songs_store: Path, tmp_path: Path) -> None:
    sealed = tmp_path / "songs.h5"
    convert(songs_store, sealed)
    pages = {}
    for path in (songs_store, sealed):
        out = write_store_report(path, tmp_path / f"{path.suffix}.html")
        with FeatureStore.open(path) as store:
            n_bytes = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
            assert len(store.ok_rows) == 23
        pages[path] = out.read_text(encoding="utf-8").replace(path.name, "STORE").replace(f">{n_bytes}<", ">BYTES<")
    assert pages[songs_store] == pages[sealed]


def test_the_page_lies_beside_the_store_and_never_in_it(growing: Path) -> None:
    before = small_store.tree(growing)
    out = write_store_report(growing)
    assert out == growing.parent / "growing.zarr.report.html"
    for inside in (growing / "page.html", growing / "log/deep/page.html", growing):
        with pytest.raises(ConfigError, match="is a feature store; write the page somewhere else"):
            write_store_report(growing, inside)
    assert small_store.tree(growing) == before
