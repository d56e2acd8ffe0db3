"""Stores in an object store: equal content, few requests, a bounded cache, and errors that state what to do."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3_proxy import Proxy, Request

import mgc
from benchmarks.worlds.full_store import create_full
from mgc import api
from mgc.cache import object_folder
from mgc.cache.errors import ConfigError, StoreCorruptError, StoreError, StoreNotFoundError
from mgc.cache.places import ObjectPath, place
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.copy import copy_store
from mgc.cache.upkeep.failures import failures
from mgc.cache.upkeep.info import describe_store

SHARD = "mel/c/0/0/0"


def damage(url: ObjectPath, key: str, change: Callable[[bytes], bytes]) -> None:
    folder = object_folder.ObjectFolder(url)
    folder.put(key, change(folder.get(key)))


def flipped(position: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def assert_equal(one: FeatureStore, other: FeatureStore) -> None:
    assert one.tracks.equals(other.tracks)
    assert one.fingerprints == other.fingerprints
    assert one.counts() == other.counts()
    if one.embeds_genres:
        np.testing.assert_array_equal(one.genre_embedding, other.genre_embedding)
    for spec in one.arrays:
        rows = one.rows_with(spec.name)
        np.testing.assert_array_equal(one.read(spec.name, rows), other.read(spec.name, rows))
        for row in rows[::3].tolist():
            np.testing.assert_array_equal(one.read(spec.name, [row]), other.read(spec.name, [row]))


def test_content_equals_that_of_the_local_store(proxy: Proxy, tmp_path: Path) -> None:
    """The store has several generations, added feature sets, and a track that was taken down."""
    local, url = create_full(tmp_path / "full.zarr"), place("s3://music/full.zarr")
    copy_store(local, url)
    for text in (None, "other"):
        with FeatureStore.open(local, text=text) as one, FeatureStore.open(url, text=text) as other:
            assert_equal(one, other)
            assert one.requiring(["tempo"]).counts() == other.requiring(["tempo"]).counts()
    with FeatureStore.open(url) as other:
        np.testing.assert_array_equal(
            FeatureStore.open(local).read("lyrics", [1, 3, 7], length=40), other.read("lyrics", [1, 3, 7], length=40)
        )


def test_one_clip_takes_two_small_ranged_requests(proxy: Proxy, remote_songs: ObjectPath, songs_store: Path) -> None:
    store = FeatureStore.open(remote_songs)
    proxy.requests.clear()
    np.testing.assert_array_equal(store.read("mel", [3]), FeatureStore.open(songs_store).read("mel", [3]))
    read = proxy.of("GET", SHARD)
    assert [request.range is not None for request in read] == [True, True], "index and clip"
    assert sum(len(request.body) for request in read) < (songs_store / SHARD).stat().st_size / 4
    proxy.requests.clear()
    store.read("mel", [5])
    assert len(proxy.requests) == 1, "the index is kept"


def test_opening_reads_no_array(proxy: Proxy, remote_songs: ObjectPath) -> None:
    FeatureStore.open(remote_songs)
    assert proxy.of("GET")
    assert [request.path for request in proxy.of("GET") if "/c/" in request.path or "commits" in request.path] == []


def test_shards_are_downloaded_once_and_kept(
    proxy: Proxy, remote_songs: ObjectPath, songs_store: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    local = mgc.open(songs_store)["mel"][:]
    np.testing.assert_array_equal(mgc.open(remote_songs)["mel"][:], local)
    assert f"downloaded shards are kept in {tmp_path / 'cache' / 'shards'}, at most" in caplog.text
    assert [request.range for request in proxy.of("GET", SHARD)] == [None]
    proxy.requests.clear()
    again = mgc.open(remote_songs)
    for _ in range(3):
        for batch in again.batches("mel", 4, seed=1):
            np.testing.assert_array_equal(batch["mel"], local[batch["position"]])
    assert [request.path for request in proxy.requests if "/mel/" in request.path] == []


def test_random_single_reads_end_in_whole_shards(proxy: Proxy, remote_songs: ObjectPath, songs_store: Path) -> None:
    """Training from a shuffled order must not read each clip by itself in every epoch."""
    view, local = mgc.open(remote_songs), mgc.open(songs_store)
    for epoch in range(3):
        for batch in view.batches("mel", 1, seed=1, epoch=epoch):
            np.testing.assert_array_equal(batch["mel"], local["mel"][batch["position"]])
    shards = {path.as_posix() for path in songs_store.glob("mel/c/*/0/0")}
    whole = [request for request in proxy.of("GET", "/0/0") if "/mel/" in request.path and request.range is None]
    assert len(whole) == len(shards)
    assert len([request for request in proxy.requests if "/mel/" in request.path]) < 3 * len(view)


def test_cache_stays_below_its_limit(
    proxy: Proxy, remote_songs: ObjectPath, songs_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = (songs_store / SHARD).stat().st_size + 1000
    local = mgc.open(songs_store)
    for text in (f"{limit / 1e9:.9f}", "0"):
        monkeypatch.setenv("MGC_CACHE_GB", text)
        for name in ("mel", "lyrics", "mel"):
            np.testing.assert_array_equal(mgc.open(remote_songs)[name][:], local[name][:])
            files = list((tmp_path / "cache" / "shards").iterdir())
            assert sum(file.stat().st_size for file in files) <= limit
            assert text == "0" or files
    monkeypatch.setenv("MGC_CACHE_GB", "much")
    with pytest.raises(ConfigError, match=r"MGC_CACHE_GB='much': not a size in GB"):
        mgc.open(remote_songs)


@pytest.mark.parametrize("position", [100, -10])
def test_damaged_file_in_the_cache_is_downloaded_again(
    proxy: Proxy, remote_songs: ObjectPath, songs_store: Path, tmp_path: Path, position: int
) -> None:
    mgc.open(remote_songs)["mel"][:]
    for file in (tmp_path / "cache" / "shards").iterdir():
        data = bytearray(file.read_bytes())
        data[position] ^= 1
        file.write_bytes(data)
    np.testing.assert_array_equal(mgc.open(remote_songs)["mel"][:], mgc.open(songs_store)["mel"][:])


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-3],
    "index": flipped(-10),
    "values": lambda data: bytes(byte ^ 1 for byte in data[:-1000]) + data[-1000:],
}


@pytest.mark.parametrize("rows", [[3], list(range(16))], ids=["ranged", "whole"])
@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_object_is_found(proxy: Proxy, remote_songs: ObjectPath, rows: list[int], name: str) -> None:
    damage(remote_songs, SHARD, DAMAGES[name])
    store = FeatureStore.open(remote_songs)
    with pytest.raises(StoreCorruptError, match=f"{remote_songs}/{SHARD}"):
        store.read("mel", rows)
    assert [item.key for item in api.store_verify(remote_songs, full=True)] == [SHARD]


def test_missing_objects_and_altered_records_are_found(proxy: Proxy, tmp_path: Path, songs_store: Path) -> None:
    for key, error in (("rows/0.parquet", "rows/0.parquet"), ("generations/0.json", "generations/0.json")):
        url = place(f"s3://music/{key.replace('/', '-')}")
        copy_store(songs_store, url)
        damage(url, key, lambda data: data[: len(data) // 2])
        with pytest.raises(StoreCorruptError, match=f"{url}/{error}"):
            FeatureStore.open(url)
        assert any(item.key == key for item in api.store_verify(url))


def test_errors_of_the_server_are_retried(proxy: Proxy, remote_songs: ObjectPath, songs_store: Path) -> None:
    seen: set[tuple[str, str | None]] = set()

    def once(request: Request) -> int | None:
        key = (request.path, request.range)
        if key in seen:
            return None
        seen.add(key)
        return 503

    proxy.fault = once
    np.testing.assert_array_equal(mgc.open(remote_songs)["mel"][:], mgc.open(songs_store)["mel"][:])
    assert len(seen) > 5


def test_truncated_answers_are_no_values(proxy: Proxy, remote_songs: ObjectPath) -> None:
    store = FeatureStore.open(remote_songs)
    proxy.fault = lambda request: request.body[: len(request.body) // 2] if SHARD in request.path else None
    for rows in ([1], list(store.ok_rows[:15])):
        with pytest.raises(StoreError, match=str(remote_songs)):
            store.read("mel", rows)


@pytest.mark.parametrize(
    ("url", "status", "expected"),
    [
        (
            "s3://no-such-bucket/songs.zarr",
            None,
            "s3://no-such-bucket: no such bucket. Check its name, AWS_ENDPOINT_URL",
        ),
        ("s3://music/other.zarr", None, "s3://music/other.zarr: not a feature store (no plan.json). Check the URL"),
        ("s3://music/songs.zarr", 403, "s3://music/songs.zarr: access denied. Check AWS_ACCESS_KEY_ID"),
        ("s3://music/songs.zarr", 400, "s3://music/songs.zarr: the object store does not answer as expected"),
        ("s3://music/songs.zarr", 503, "s3://music/songs.zarr: the object store does not answer as expected"),
    ],
)
def test_errors_are_one_line_without_credentials(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, url: str, status: int | None, expected: str
) -> None:
    monkeypatch.setattr(object_folder, "_RETRIES", 1)
    proxy.fault = None if status is None else lambda _: status
    with pytest.raises(StoreError) as raised:
        mgc.open(url)
    message = str(raised.value)
    assert message.startswith(expected)
    assert not any(text in message for text in ("\n", "of-a-test", "http"))
    assert isinstance(raised.value, StoreNotFoundError) == (status is None)


def test_server_that_does_not_answer(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_folder, "_RETRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"does not answer as expected .*\. Check the network and AWS_ENDPOINT_URL"):
        mgc.open("s3://music/songs.zarr")


def test_keys_that_are_no_paths_are_refused(proxy: Proxy, remote_songs: ObjectPath) -> None:
    """A key becomes a local file, so it must not lead out of its folder."""
    folder = object_folder.ObjectFolder(remote_songs)
    folder.put("plan.json/x", b"")
    with pytest.raises(StoreCorruptError, match="its keys are not those of a store"):
        mgc.open(remote_songs)


def test_reports_of_the_commands_equal_those_of_the_local_store(
    proxy: Proxy, songs_store: Path, tmp_path: Path
) -> None:
    songs_store, remote_songs = shutil.copytree(songs_store, tmp_path / "songs.zarr"), place("s3://music/logged.zarr")
    (songs_store / "log" / "host.jsonl").write_text('{"part": 1, "failed_tracks": {"song23": "NOT_AUDIO"}}\n')
    copy_store(songs_store, remote_songs)

    def without_place(document: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in document.items() if key != "store"}

    assert without_place(describe_store(remote_songs).to_dict()) == without_place(describe_store(songs_store).to_dict())
    assert without_place(failures(remote_songs).to_dict()) == without_place(failures(songs_store).to_dict())
    assert api.store_verify(remote_songs) == [] == api.store_verify(remote_songs, full=True)
    api.store_select(remote_songs, tmp_path / "jazz.zarr", genre="jazz")
    api.store_select(songs_store, tmp_path / "same.zarr", genre="jazz")
    one, other = FeatureStore.open(tmp_path / "jazz.zarr"), FeatureStore.open(tmp_path / "same.zarr")
    assert_equal(one, other)


def test_dask_xarray_torch_and_pickles(proxy: Proxy, remote_songs: ObjectPath, songs_store: Path) -> None:
    view, local = mgc.open(str(remote_songs)), mgc.open(songs_store)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(view))["mel"][2], local["mel"][2])
    torch_view = mgc.to_torch(view, "mel")
    np.testing.assert_array_equal(torch_view[4]["mel"].numpy(), local["mel"][4])
    np.testing.assert_array_equal(mgc.to_dask(view["mel"]).compute(), local["mel"][:])
    assert mgc.to_xarray(view)["labels"].equals(mgc.to_xarray(local)["labels"])


def test_forked_process_is_refused_and_does_not_hang(proxy: Proxy, remote_songs: ObjectPath) -> None:
    from torch.utils.data import DataLoader

    loader = DataLoader(mgc.to_torch(mgc.open(remote_songs), "mel"), num_workers=1, multiprocessing_context="fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python about a fork with threads
        with pytest.raises(ConfigError, match="a forked process cannot read an object store"):
            next(iter(loader))


def test_training_gives_the_same_weights_as_from_disk(
    proxy: Proxy, remote_songs: ObjectPath, songs_store: Path, tmp_path: Path
) -> None:
    weights = []
    for name, store in (("local", songs_store), ("remote", remote_songs)):
        api.train(store, tmp_path / name, settings=["epochs=1", "placement=mapped"])
        weights.append((tmp_path / name / "best" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    scores = [api.predict(tmp_path / "local", [store]).predictions for store in (songs_store, remote_songs)]
    assert scores[0] == scores[1]
    metrics = [json.dumps(api.evaluate(tmp_path / "local", store).to_dict()) for store in (songs_store, remote_songs)]
    assert metrics[0] == metrics[1]
    for file in (file for file in (tmp_path / "remote").rglob("*") if file.is_file()):
        assert b"of-a-test" not in file.read_bytes(), file


def test_commands(proxy: Proxy, remote_songs: ObjectPath, call: Callable[..., Any]) -> None:
    info = call("store", "info", remote_songs, "--json")
    assert info.json["store"] == "s3://music/my collection/songs.zarr"
    assert call("store", "verify", remote_songs).out == f"{remote_songs}: no damage found\n"
    damage(remote_songs, SHARD, lambda data: data[:-1])
    report = call("store", "verify", remote_songs, "--json")
    assert report.code == 4
    assert [item["key"] for item in json.loads(report.out)["damages"]] == [SHARD]
    advice = call("store", "verify", remote_songs).out
    assert "Repair a local copy, then copy it again with `mgc store copy`; or extract to a new URL." in advice
    assert os.sep + "tmp" not in advice
