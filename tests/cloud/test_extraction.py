"""Extraction to an object store: the objects of a local store, several writers, kills and faults."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import zarr
from s3_proxy import Proxy, Request

from benchmarks.worlds.full_store import TEMPO, content, continue_full
from benchmarks.worlds.small_store import create, fill, part_content
from mgc import api
from mgc.cache import claims
from mgc.cache.errors import ConfigError, RecipeMismatchError, StoreNotFoundError
from mgc.cache.format.plan import read_plan
from mgc.cache.format.records import read_outcomes, read_part
from mgc.cache.object_folder import ObjectFolder
from mgc.cache.places import ObjectPath, place
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.info import watch
from mgc.cache.writing import remote
from mgc.cache.writing.commits import commit_part, roll_forward
from mgc.cache.writing.creation import add_feature_set
from mgc.cache.writing.remote import Replica, writable_folder

URL = "s3://music/a b/songs.zarr"
Objects = dict[str, bytes]


class Killed(BaseException):
    """End of the process in the middle of an extraction."""


def objects(store: Path | str, below: str | None = None) -> Objects:
    """Return all objects of a store without its log, or those of one folder."""
    location = place(store)
    if isinstance(location, ObjectPath):
        folder = ObjectFolder(location)
        found = {key: folder.get(key) for key in folder.listing(below)}
    else:
        found = {
            file.relative_to(location).as_posix(): file.read_bytes() for file in location.rglob("*") if file.is_file()
        }
    return {key: data for key, data in found.items() if not key.startswith("log/")}


@pytest.fixture(autouse=True)
def forget_replicas() -> Iterator[None]:
    """Start each test as a new process does."""
    yield
    remote._replicas.clear()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """The objects of a local store."""
    store = tmp_path_factory.mktemp("full") / "full.zarr"
    continue_full(store)
    return objects(store)


def second_process(url: str) -> Path:
    """Return the folder of another replica, as another process has it."""
    replica = Replica(place(url))
    replica.pull_plan()
    replica.pull()
    remote._replicas[replica.folder] = replica
    return replica.folder


def test_objects_equal_those_of_a_local_store(proxy: Proxy, full: Objects) -> None:
    continue_full(writable_folder(place(URL)))
    assert objects(URL) == full
    assert api.store_verify(Path(URL), full=True) == []
    n = len(proxy.requests)
    remote._replicas.clear()
    continue_full(writable_folder(place(URL)))
    assert objects(URL) == full
    assert [request for request in proxy.requests[n:] if request.method != "GET"] == [], "nothing to do"


def test_failed_rows_of_a_feature_set_can_be_read_for_a_retry(proxy: Proxy, tmp_path: Path) -> None:
    local, store = tmp_path / "local.zarr", writable_folder(place(URL))
    for folder in (local, store):
        create(folder)
        add_feature_set(folder, read_plan(folder), "tempo", TEMPO)
        fill(folder, [1])
        plan = read_plan(folder)
        commit_part(folder, 1, *content(folder, plan, 1, "tempo"), feature_set="tempo")
    copy = second_process(URL)
    remote._replicas[copy].pull_part(1, "tempo", with_objects=True)
    (arrays, outcomes), (expected, base) = (read_part(each, read_plan(each), 1, "tempo") for each in (copy, local))
    assert outcomes == base
    np.testing.assert_array_equal(arrays["tempo"], expected["tempo"])
    assert read_outcomes(copy, read_plan(copy), 1).num_rows == 4, "the outcomes of the store itself"


def test_kills_lose_nothing(proxy: Proxy, full: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process is killed before its n-th write. The campaign of benchmarks/ kills at random instants."""
    limit, n = 0, 0

    def killing(method: Callable[..., Any]) -> Callable[..., Any]:
        def write(self: ObjectFolder, *args: Any) -> Any:
            nonlocal n
            n += 1
            if n > limit:
                raise Killed
            return method(self, *args)

        return write

    for name in ("put", "create", "copy", "delete"):
        monkeypatch.setattr(ObjectFolder, name, killing(getattr(ObjectFolder, name)))
    records: Objects = {}
    for _ in range(50):
        remote._replicas.clear()
        n = 0
        try:
            continue_full(writable_folder(place(URL)))
            break
        except Killed:
            limit = 41
        found = objects(URL, "commits")
        assert {key: found.get(key) for key in records} == records, "a record never changes"
        records = found
        if records:
            FeatureStore.open(place(URL)).close()
    assert objects(URL) == full


def test_lost_answers_of_commits(proxy: Proxy, tmp_path: Path) -> None:
    """The server has written a record, but answers with an error; the repetition is refused."""
    answered: set[str] = set()

    def fault(request: Request) -> int | None:
        is_first = request.method == "PUT" and request.path not in answered and "/staging/" not in request.path
        answered.add(request.path)
        return 503 if is_first and re.search(r"/plan.json|/commits/|/generations/", request.path) else None

    proxy.fault = fault
    for store in (writable_folder(place(URL)), tmp_path / "local.zarr"):
        create(store)
        fill(store, [0])
    assert {"/music/a%20b/songs.zarr/plan.json", "/music/a%20b/songs.zarr/commits/0.json"} <= answered
    assert objects(URL) == objects(tmp_path / "local.zarr")


def test_two_writers(proxy: Proxy, full: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that another one overtakes before each of its commits takes the record of the other."""
    first, create_object = writable_folder(place(URL)), ObjectFolder.create
    overtaking = False

    def overtaken(self: ObjectFolder, key: str, data: bytes) -> bool:
        nonlocal overtaking
        if not overtaking:
            overtaking = True
            continue_full(second_process(URL))
            overtaking = False
        return create_object(self, key, data)

    monkeypatch.setattr(ObjectFolder, "create", overtaken)
    continue_full(first)
    assert objects(URL) == full


def test_first_commit_wins_and_a_late_writer_leaves_nothing(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    store = writable_folder(place(URL))
    create(store)
    arrays, outcomes = part_content(read_plan(store).part_range(0))
    late = second_process(URL)
    won = commit_part(store, 0, arrays, outcomes)
    before = objects(URL)
    other = {**arrays, "lyrics_pooled": arrays["lyrics_pooled"] + 1}
    assert commit_part(late, 0, other, outcomes) == won
    monkeypatch.setattr(Replica, "_fetch_record", lambda self, key, n=[]: n.append(key) or None if not n else won)
    assert commit_part(late, 0, other, outcomes) == won
    assert objects(URL) == before


def test_service_that_ignores_conditions_is_refused(proxy: Proxy, tmp_path: Path) -> None:
    proxy.dropped_header = "if-none-match"
    with pytest.raises(ConfigError, match=r"a b/songs.zarr: this service ignores conditional writes"):
        api.extract(tones(tmp_path, 1), Path(URL), features=("mel",))
    assert objects(URL) == {}


def test_other_contents_and_other_recipes_are_refused(proxy: Proxy, tmp_path: Path) -> None:
    ObjectFolder(place(URL)).put("photo.jpg", b"")
    with pytest.raises(ConfigError, match=r"songs.zarr: not empty and not a feature store \(photo.jpg\)"):
        api.extract(tones(tmp_path, 1), Path(URL), features=("mel",))
    with pytest.raises(ConfigError, match="songs.h5: a sealed store is a local file"):
        api.extract(tones(tmp_path, 1), Path("s3://music/songs.h5"), features=("mel",))
    other = "s3://music/other.zarr"
    api.extract(tones(tmp_path, 1), Path(other), features=("mel",), clip_s=1.0)
    with pytest.raises(RecipeMismatchError, match="the store differs from this command: s3://music/other.zarr"):
        api.extract(tones(tmp_path, 1), Path(other), features=("mel",), clip_s=2.0)
    begun = ObjectFolder(place("s3://music/begun.zarr"))
    begun.put("plan.json", ObjectFolder(place(other)).get("plan.json"))
    with pytest.raises(StoreNotFoundError, match="repeat an interrupted `mgc extract`"):
        FeatureStore.open(begun.url)
    with pytest.raises(RecipeMismatchError, match="with another recipe or part size has begun here"):
        api.extract(tones(tmp_path, 1), begun.url, features=("mel",), clip_s=2.0)
    assert api.extract(tones(tmp_path, 1), begun.url, features=("mel",), clip_s=1.0).ok == 1


def test_claims_are_judged_by_the_clock_of_the_service(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Replica(place(URL)), Replica(place(URL))
    with first.hold("commits+0~claim") as held:
        assert (held, first.n_claims()) == (True, 1)
        with second.hold("commits+0~claim") as other:
            assert not other, "this process lives"
        claim = json.loads(first.objects.get("staging/commits+0~claim"))
        first.objects.put("staging/commits+0~claim", json.dumps({**claim, "host": "elsewhere"}).encode())
        with second.hold("commits+0~claim") as other:
            assert not other, "its process is not visible, and it is new"
        monkeypatch.setattr(claims, "STALE_S", -1.0)
        with second.hold("commits+0~claim") as other:
            assert other, "it is too old"
        assert objects(URL) == {}


def test_reader_sees_only_installed_parts(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    store = writable_folder(place(URL))
    create(store)
    fill(store, [0])
    with monkeypatch.context() as patched:
        patched.setattr(Replica, "install", lambda self, key, record: None)
        patched.setattr(Replica, "sweep", lambda self, key: None)
        fill(store, [1])
    opened = FeatureStore.open(place(URL))
    assert set(opened.ok_rows) == {0, 1, 2, 3}
    assert next(watch(Path(URL))).parts_done == 2
    with pytest.raises(StoreNotFoundError, match="s3://music/none.zarr: not a feature store"):
        next(watch(Path("s3://music/none.zarr")))
    assert api.store_verify(Path(URL), full=True) == []
    roll_forward(store)
    assert set(FeatureStore.open(place(URL)).ok_rows) == {0, 1, 2, 3, 4, 6, 7}


def tones(folder: Path, n: int) -> Any:
    """Write a table and `n` clips of a second; return the source."""
    lines = ["id,path,genres,artist"]
    for i in range(n):
        t = np.arange(22_050) / 22_050
        soundfile.write(folder / f"{i}.wav", (0.2 * np.sin(2 * np.pi * (200 + 50 * i) * t)).astype(np.float32), 22_050)
        lines.append(f"t{i},{i}.wav,rock,a{i}")
    (folder / "songs.csv").write_text("\n".join(lines) + "\n")
    return api.read_source(folder / "songs.csv").source


def test_extraction_of_songs(proxy: Proxy, tmp_path: Path, call: Callable[..., Any]) -> None:
    """All forms of `mgc extract`: a job array, workers, resume, an added feature set; the store equals a local one."""
    tones(tmp_path, 9)
    table, local, url = tmp_path / "songs.csv", tmp_path / "local.zarr", "s3://music/songs.zarr"
    flags = ["--features", "mel", "--clip-s", "1", "--part-rows", "2"]
    assert call("extract", table, "-o", local, *flags).code == 0
    assert call("extract", table, "-o", local, "--add", "pooled_mel", "--workers", "0").code == 0
    for shard in ("1/2", "2/2"):
        remote._replicas.clear()
        assert call("extract", table, "-o", url, *flags, "--shard", shard, "--workers", "0").code == 0
    done = call("extract", table, "-o", url, *flags, "--json")
    assert (done.json["store"], done.json["ok"], done.json["parts_built"]) == (url, 9, 0)
    assert call("extract", table, "-o", url, "--add", "pooled_mel", "--workers", "2").code == 0
    assert objects(url) == objects(local)
    assert "9 of 9 tracks" in call("store", "info", url, "--watch").out
    log = ObjectFolder(place(url))
    assert sum(log.get(key).count(b'"built": true') for key in log.listing("log")) == 10
    for key in log.listing():
        assert b"of-a-test" not in log.get(key), key
    import obstore.store
    import xarray

    opened = zarr.storage.ObjectStore(obstore.store.from_url(url, client_options={"allow_http": True}), read_only=True)
    np.testing.assert_array_equal(
        zarr.open_group(opened, mode="r")["mel"][:], zarr.open_group(local, mode="r")["mel"][:]
    )
    assert xarray.open_zarr(opened)["mel"].equals(xarray.open_zarr(local)["mel"])
