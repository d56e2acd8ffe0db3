"""Copies of stores: equal bytes, checked hashes, and interruptions after every file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3_proxy import Proxy

from benchmarks.worlds.full_store import create_full
from benchmarks.worlds.small_store import append_late_track, create, fill
from mgc import api
from mgc.cache.errors import ConfigError, StoreCorruptError, StoreError, StoreNotFoundError
from mgc.cache.format.plan import is_store
from mgc.cache.places import place
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep import copy
from mgc.cache.upkeep.copy import copy_store
from mgc.cache.writing.takedowns import drop


class Killed(BaseException):
    """End of the process in the middle of a copy."""


def contents(store: Path) -> dict[str, bytes]:
    return {
        file.relative_to(store).as_posix(): file.read_bytes()
        for file in store.rglob("*")
        if file.is_file() and file.relative_to(store).parts[0] != "quarantine"
    }


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_full(tmp_path_factory.mktemp("copy") / "full.zarr")


@pytest.fixture
def files_before_kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[str]]:
    """Kill copies to local folders after a number of files; return the list of the files that were written."""
    write = copy.replace_file

    def limit(n: int | None) -> list[str]:
        written: list[str] = []

        def replace(path: Path, data: bytes) -> None:
            if n is not None and len(written) >= n:
                raise Killed
            written.append(str(path))
            write(path, data)

        monkeypatch.setattr(copy, "replace_file", replace)
        monkeypatch.setattr(copy, "in_threads", map)  # in order, so that each n is one state
        return written

    return limit


def test_copy_is_equal_and_whole(full: Path, tmp_path: Path) -> None:
    report = copy_store(full, tmp_path / "copy.zarr")
    assert contents(tmp_path / "copy.zarr") == contents(full)
    assert report.objects == len(contents(full))
    assert report.bytes == sum(map(len, contents(full).values()))
    assert api.store_verify(tmp_path / "copy.zarr", full=True) == []
    again = copy_store(full, tmp_path / "copy.zarr")
    assert (again.objects, again.bytes, again.skipped) == (0, 0, report.objects)


def test_interrupted_copy_is_no_store_and_is_continued(
    full: Path, tmp_path: Path, files_before_kill: Callable[[int | None], list[str]]
) -> None:
    n_files, target = len(contents(full)), tmp_path / "copy.zarr"
    for n in range(n_files):
        shutil.rmtree(target, ignore_errors=True)
        first = files_before_kill(n)
        with pytest.raises(Killed):
            copy_store(full, target)
        assert len(first) == n
        assert not is_store(target)
        with pytest.raises(StoreNotFoundError):
            FeatureStore.open(target)
        second = files_before_kill(None)
        copy_store(full, target)
        assert contents(target) == contents(full)
        twice = set(first) & set(second)
        assert len(twice) <= 12, "only the files of one part are written twice"
        assert len(first) + len(second) - len(twice) == n_files


def test_older_copy_is_updated(tmp_path: Path, files_before_kill: Callable[[int | None], list[str]]) -> None:
    source = create(tmp_path / "a.zarr")
    fill(source)
    copy_store(source, tmp_path / "b.zarr")
    append_late_track(source)
    drop(source, ["t02"], planned=["t02"])
    n_files = copy_store(source, tmp_path / "c.zarr").objects
    for n in range(n_files):
        target = tmp_path / f"{n}.zarr"
        shutil.copytree(tmp_path / "b.zarr", target)
        files_before_kill(n)
        try:
            copy_store(source, target)
        except Killed:
            FeatureStore.open(target).close()  # the old store, or the new one
            files_before_kill(None)
            copy_store(source, target)
        assert contents(target) == contents(source)
        shutil.rmtree(target)


def test_damaged_source_is_refused(full: Path, tmp_path: Path) -> None:
    source = shutil.copytree(full, tmp_path / "source.zarr")
    (shard,) = source.glob("mel/c/1/0/0")
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(
        StoreCorruptError, match=r"mel/c/1/0/0: its sha256 differs from its record\. Run `mgc store verify"
    ):
        copy_store(source, tmp_path / "copy.zarr")
    assert not is_store(tmp_path / "copy.zarr")
    shard.unlink()
    with pytest.raises(StoreCorruptError, match="mel/c/1/0/0: missing, but a record lists it"):
        copy_store(source, tmp_path / "copy.zarr")


def test_other_targets_are_refused(full: Path, tmp_path: Path) -> None:
    other = shutil.copytree(full, tmp_path / "other.zarr")
    (other / "commits" / "77.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds 1 file that the source does not have, such as 'commits/77\.json'"):
        copy_store(full, other)
    (other / "plan.json").write_text("{}")
    with pytest.raises(ConfigError, match="another store"):
        copy_store(full, other)
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "song.mp3").touch()
    with pytest.raises(ConfigError, match=r"such as 'song\.mp3'"):
        copy_store(full, tmp_path / "music")
    for target in (full, full / "x", full.parent):
        with pytest.raises(ConfigError, match="the same place as|inside of it"):
            copy_store(full, target)
    with pytest.raises(ConfigError, match="copies Zarr stores"):
        copy_store(full, tmp_path / "x.h5")


def test_copies_through_an_object_store_are_equal(proxy: Proxy, full: Path, tmp_path: Path) -> None:
    first, second = place("s3://music/a.zarr"), place("s3://music/deep/b.zarr")
    report = copy_store(full, first)
    assert len(proxy.of("PUT")) == report.objects
    copy_store(first, second)
    copy_store(second, tmp_path / "back.zarr")
    assert contents(tmp_path / "back.zarr") == contents(full)
    proxy.requests.clear()
    assert copy_store(full, first).objects == 0
    assert proxy.of("PUT") == []


def test_copy_to_an_object_store_is_continued(proxy: Proxy, full: Path, tmp_path: Path) -> None:
    """The answer to one request is lost, after the server has written the object."""
    n_files = len(contents(full))
    for n in (0, 7, n_files // 2, n_files - 2):
        url = place(f"s3://music/{n}.zarr")
        proxy.requests.clear()
        proxy.fault = lambda request, n=n: 400 if request.method == "PUT" and len(proxy.of("PUT")) > n else None
        with pytest.raises(StoreError, match=str(url)):
            copy_store(full, url)
        with pytest.raises(StoreNotFoundError, match="not a feature store"):
            FeatureStore.open(url)
        proxy.fault = None
        copy_store(full, url)
        copy_store(url, tmp_path / f"{n}.zarr")
        assert contents(tmp_path / f"{n}.zarr") == contents(full)


def test_command(full: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    done = call("store", "copy", full, tmp_path / "copy.zarr")
    assert (done.code, done.out.partition(": ")[2].partition(" written")[0]) == (0, f"{len(contents(full))} files")
    again = call("store", "copy", full, tmp_path / "copy.zarr", "--json")
    assert (again.json["objects"], again.json["skipped"]) == (0, len(contents(full)))
