"""Damage of every kind is detected, reported, quarantined and repaired."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.worlds.full_store import create_full, fill_pending
from benchmarks.worlds.small_store import FAILED_ROW, N_TRACKS, create, features, fill, tree
from mgc.cache.errors import StoreCorruptError, StoreNotFoundError
from mgc.cache.format.plan import read_plan
from mgc.cache.format.records import committed
from mgc.cache.format.tables import plan_table
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep import verify as verify_module
from mgc.cache.upkeep.compact import compact
from mgc.cache.upkeep.quarantine import quarantine
from mgc.cache.upkeep.verify import Damage, verify
from mgc.cache.writing.creation import append_generation
from mgc.cache.writing.takedowns import drop

PART_TRACKS = {0: ("t00", "t01", "t02", "t03"), 1: ("t04", "t05", "t06", "t07"), 2: ("t08", "t09")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A store of two generations: ten tracks in three parts, then one in a fourth."""
    path = create(tmp_path_factory.mktemp("whole") / "s.zarr")
    fill(path)
    late = plan_table([{"id": "t99", "path": "99.mp3", "artists": [], "genres": ["soul"]}])
    append_generation(
        path, read_plan(path), "append", late, new_genres=["soul"], genre_embedding=np.ones((1, 12), np.float32)
    )
    fill(path, [3])
    return path


@pytest.fixture
def store(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "s.zarr"))


def part_of(key: str) -> int | None:
    """Return the part of an object by its key."""
    pieces = key.split("/")
    if pieces[0] in ("commits", "rows") and len(pieces) == 2:
        return int(pieces[1].split(".")[0])
    if pieces[1:2] == ["c"] and len(pieces) > 2 and pieces[0] != "genre_embedding":
        return int(pieces[2])
    return None


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1 << (place % 8)
    file.write_bytes(data)


def mend(store: Path, damages: list[Damage]) -> list[Damage]:
    left = quarantine(store, damages)
    if not left:
        plan = read_plan(store)
        fill(store, sorted(set(range(plan.n_parts)) - committed(store).keys()))
    return left


def test_intact_store_has_no_damage(store):
    before = tree(store)
    progress = []
    assert verify(store, full=True, on_progress=lambda step, done, total, note="": progress.append((done, total))) == []
    assert progress[-1] == (4, 4)
    assert tree(store) == before


def test_flipped_bit_in_every_file_is_reported_and_repaired(whole, tmp_path):
    before = tree(whole)
    keys = [key for key, data in before.items() if data]
    assert len(keys) > 40
    for number, key in enumerate(keys):
        store = Path(shutil.copytree(whole, tmp_path / "s"))
        flip(store / key, (len(before[key]) * 7 * (number + 1) // 11) % len(before[key]))
        damages = verify(store, full=True)
        damaged = [damage for damage in damages if damage.key == key]
        if key.endswith("zarr.json") and not damaged:
            assert not damages, "a flipped bit in JSON white space may be harmless"
        else:
            assert damaged, f"{key}: not found"
            assert damaged[0].part == part_of(key), key
            if damaged[0].part is not None:
                assert damaged[0].tracks == PART_TRACKS.get(damaged[0].part, ("t99",))
            left = mend(store, damages)
            if key.split("/")[0] in ("tracks", "genres", "genre_embedding") and not key.endswith("zarr.json"):
                assert [damage.key for damage in left] == [key]  # only the source can restore it
            else:
                assert left == [], key
                assert verify(store, full=True) == []
                after = FeatureStore.open(store)
                rows = after.ok_rows
                np.testing.assert_array_equal(after.read("mel", rows), FeatureStore.open(whole).read("mel", rows))
                assert len(rows) == N_TRACKS
        shutil.rmtree(store)


@pytest.mark.parametrize("key", ["mel/c/1/0/0", "status/c/1", "rows/1.parquet", "lyrics/c/1/0/0"])
@pytest.mark.parametrize("harm", ["missing", "cut"])
def test_missing_and_cut_objects_are_found_without_reading_them(store, key, harm):
    if harm == "missing":
        (store / key).unlink()
    else:
        (store / key).write_bytes((store / key).read_bytes()[:-1])
    (damage,) = verify(store)
    assert (damage.key, damage.part, damage.tracks) == (key, 1, PART_TRACKS[1])
    assert damage.kind == ("missing" if harm == "missing" else "altered")
    assert damage.array == (None if key.startswith("rows") else key.split("/")[0])
    others = {key_: data for key_, data in tree(store).items() if part_of(key_) in (0, 2, 3)}
    assert mend(store, [damage]) == []
    assert verify(store, full=True) == []
    assert {key_: data for key_, data in tree(store).items() if part_of(key_) in (0, 2, 3)} == others
    assert (store / "commits" / "1.1.json").exists()
    assert not (store / "commits" / "1.json").exists(), "a name is not used twice"


def test_lost_commit_record_differs_from_foreign_object(store):
    (store / "commits" / "2.json").unlink()
    (store / "mel" / "c" / "77").mkdir()
    (store / "mel" / "c" / "77" / "x").write_bytes(b"?")
    (store / "notes.txt").write_text("mine")
    (store / ".DS_Store").write_text("a file manager's")
    damages = verify(store)
    assert [(damage.kind, damage.key, damage.part) for damage in damages] == [
        ("foreign", "notes.txt", None),
        ("foreign", "mel/c/77/x", None),
        ("lost record", "commits/2.json", 2),
    ]
    assert damages[2].tracks == PART_TRACKS[2]
    assert mend(store, damages) == []
    assert verify(store, full=True) == []
    assert (store / "quarantine" / "foreign" / "notes.txt").read_text() == "mine"


def test_a_record_of_another_store_is_refused(store, tmp_path):
    other = create(tmp_path / "other.zarr")
    (store / "commits" / "0.json").write_bytes((store / "commits" / "3.json").read_bytes())
    (damage,) = verify(store)
    assert (damage.part, damage.detail) == (0, "it belongs to another plan or part")
    (store / "generations" / "1.json").write_bytes((other / "generations" / "0.json").read_bytes())
    assert any(damage.key == "generations/1.json" for damage in verify(store))


def test_record_of_a_part_beyond_the_plan_is_quarantined(store):
    (store / "commits" / "99.json").write_bytes((store / "commits" / "0.json").read_bytes())
    (damage,) = verify(store)
    assert (damage.kind, damage.key, damage.part) == ("foreign", "commits/99.json", None)
    assert mend(store, [damage]) == []
    assert verify(store, full=True) == []


def test_values_that_contradict_the_record_are_found(store):
    """Bytes as recorded, but with NaN, as by a faulty writer."""
    from benchmarks.worlds.small_store import part_content
    from mgc.cache.writing.commits import commit_part

    arrays, outcomes = part_content(range(4, 8))
    arrays["mel"][2, 5, 7] = np.nan
    commit_part(store, 1, arrays, outcomes, new_version=True)
    assert verify(store) == []
    (damage,) = verify(store, full=True)
    assert (damage.kind, damage.array, damage.part, damage.tracks) == ("values", "mel", 1, ("t06",))
    assert FAILED_ROW == 5
    assert np.isfinite(features(6)["mel"]).all()


def test_other_files_are_reported_as_no_store(tmp_path):
    with pytest.raises(StoreNotFoundError, match=r"no plan.json, no zarr.json"):
        verify(tmp_path)


def test_a_takedown_of_all_tracks_of_a_part_leaves_no_byte_of_them(store):
    """Arrays with only fill values have no object; the older object must be removed."""
    objects = [store / "mel/c/2/0/0", store / "lyrics/c/2/0/0", store / "lyrics_tokens/c/2"]
    assert all(file.exists() for file in objects)
    drop(store, ["t08", "t09"], planned=["t08", "t09"])
    assert compact(store) == 1
    assert not any(file.exists() for file in objects)
    assert verify(store, full=True) == []


def test_part_quarantined_after_a_takedown_is_pending(store):
    """The first record still exists but is not valid; a regression of the campaign of sequences."""
    drop(store, ["t08"], planned=["t08"])
    compact(store)
    table = store / "rows/2.parquet"
    table.write_bytes(table.read_bytes()[:-1])
    assert quarantine(store, verify(store, full=True)) == []
    assert 2 not in committed(store)
    assert verify(store, full=True) == []


def test_compaction_removes_drafts_of_a_killed_takedown(store):
    drop(store, ["t08"], planned=["t08"])
    left = store / "drops" / ".0123.partial"
    left.write_bytes(b"half")
    compact(store)
    assert not left.exists()
    assert (store / "drops/0.json").exists()


@pytest.fixture(scope="module")
def full_store(tmp_path_factory) -> Path:
    """A store with an added text encoder, appended genres and a takedown."""
    return create_full(tmp_path_factory.mktemp("full") / "s.zarr")


@pytest.mark.parametrize(
    "key",
    [
        "features/other.json",
        "features/other.1.json",
        "features/tempo.json",
        "genre_embedding_other/c/2/0",
        "commits/other/0.1.json",
        "commits/0.json",
        "drops/0.json",
    ],
)
def test_flipped_bit_in_an_added_feature_set_is_reported_and_repaired(full_store, tmp_path, key):
    store, before = Path(shutil.copytree(full_store, tmp_path / "s.zarr")), tree(full_store)
    flip(store / key, len(before[key]) // 2)
    damages = verify(store, full=True)
    assert [damage.key for damage in damages] == [key]
    assert damages[0].feature_set == ("other" if key.startswith("commits/other") else None)
    assert damages[0].part == (0 if key.startswith("commits/other") else None)
    left = quarantine(store, damages)
    if key.startswith(("drops", "genre_embedding")):
        assert left == damages, "takedowns and encoder hashes can be restored from a copy only"
        return
    fill_pending(store)
    assert verify(store, full=True) == []
    after = tree(store)
    assert {key_ for key_, data in before.items() if data and after.get(key_) != data} <= {
        "commits/other/0.1.json",
        key,
    }
    if key != "commits/0.json":
        assert key.startswith("commits") or after[key] == before[key]


def test_folder_in_place_of_a_file_is_reported_and_repaired(full_store, tmp_path):
    """A file cannot replace a folder that is not empty; each such folder is quarantined."""
    keys = {
        (key.partition("/")[0], key.endswith(".json")): key for key, data in sorted(tree(full_store).items()) if data
    }
    for key in keys.values():
        store, left = Path(shutil.copytree(full_store, tmp_path / "s.zarr")), []
        times = 1 if key.startswith("commits/") else 2  # a part's next record has another name
        for _ in range(times):
            (store / key).unlink()
            (store / key).mkdir()
            (store / key / "note").touch()
            damages = verify(store)
            assert key in {damage.key for damage in damages}
            left = quarantine(store, damages)
            if left:
                assert {damage.key for damage in left} == {key}
                assert key.startswith(("drops/", "tracks", "genres", "genre_embedding")), "the source has this object"
                break
            fill_pending(store)
            assert verify(store, full=True) == []
        if not left:
            assert len(list((store / "quarantine").rglob("note*"))) == times
            np.testing.assert_array_equal(*(FeatureStore.open(path).ok_rows for path in (full_store, store)))
        shutil.rmtree(store)


def test_record_removed_during_verify_is_no_error(full_store, tmp_path, monkeypatch):
    """A command may remove a feature set meanwhile."""
    path = shutil.copytree(full_store, tmp_path / "s.zarr")
    real = verify_module.read_record

    def read_then_remove(store, key):
        record = real(store, key)
        if key == "features/tempo.json":
            (store / key).unlink()
        return record

    monkeypatch.setattr(verify_module, "read_record", read_then_remove)
    assert verify(path) == []


def test_a_takedown_that_cannot_be_read_hides_the_whole_store(full_store, tmp_path):
    store = Path(shutil.copytree(full_store, tmp_path / "s.zarr"))
    flip(store / "drops/0.json", 20)
    with pytest.raises(StoreCorruptError, match=r"drops/0\.json"):
        FeatureStore.open(store)


def test_hidden_files_are_ignored(store):
    """A git repository and files of a file manager, in the store and its folders."""
    others = [".git/HEAD", ".git/objects/ab/cd", ".Trash-0/files/x", "mel/.hidden/x", "rows/.nfs001", ".DS_Store"]
    for name in (*others, "quarantine/foreign/.git/HEAD"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text("theirs")
    assert verify(store, full=True) == []
    (store / "stray.txt").write_text("x")
    assert quarantine(store, verify(store)) == []
    compact(store)
    assert not (store / "stray.txt").exists()
    assert {(store / name).read_text() for name in (*others, "quarantine/foreign/.git/HEAD")} == {"theirs"}
