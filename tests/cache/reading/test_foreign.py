"""An untrusted store reads no file outside itself: links, external storage and filters are refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.worlds.full_store import create_full
from benchmarks.worlds.small_store import tree
from mgc import api
from mgc.cache.errors import StoreCorruptError, StoreError
from mgc.cache.format.documents import read_record
from mgc.cache.format.plan import read_plan
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.compact import compact
from mgc.cache.upkeep.failures import failures
from mgc.cache.upkeep.hdf5_writer import convert, seal_store
from mgc.cache.upkeep.quarantine import quarantine
from mgc.cache.upkeep.seal import write_seal
from mgc.cache.upkeep.verify import verify
from mgc.cache.writing.commits import _remove_stale, roll_forward
from mgc.cache.writing.publish import staged_folder

SECRET = b"the private key of the victim"


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``s.zarr`` and ``s.h5``."""
    path = create_full(tmp_path_factory.mktemp("forms") / "s.zarr")
    seal_store(path, path.with_suffix(".h5"))
    return path.parent


@pytest.fixture
def folder(forms: Path, tmp_path: Path) -> Path:
    """Copies of both forms, and a file next to them that is not theirs."""
    shutil.copytree(forms / "s.zarr", tmp_path / "s.zarr")
    shutil.copy(forms / "s.h5", tmp_path / "s.h5")
    (tmp_path / "secret.txt").write_bytes(SECRET)
    return tmp_path


def external(file: h5py.File, name: str, secret: Path) -> None:
    if name in file:
        del file[name]
    file.create_dataset(name, (len(SECRET),), "u1", external=[(str(secret).encode(), 0, len(SECRET))])


def external_status(file: h5py.File, secret: Path) -> None:
    shape = file["status"].shape
    del file["status"]
    file.create_dataset("status", shape, "u1", external=[(str(secret).encode(), 0, shape[0])])


def external_link(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret.with_name("other.h5"), "w") as other:
        other["mel"] = file["mel"][:]
    del file["mel"]
    file["mel"] = h5py.ExternalLink("other.h5", "mel")


def soft_link(file: h5py.File, _: Path) -> None:
    del file["tracks/song"]
    file["tracks/song"] = h5py.SoftLink("/tracks/id")


def virtual(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret.with_name("other.h5"), "w") as other:
        other["mel"] = file["mel"][:]
    layout = h5py.VirtualLayout(file["mel"].shape, file["mel"].dtype)
    layout[:] = h5py.VirtualSource("other.h5", "mel", file["mel"].shape)
    del file["mel"]
    file.create_virtual_dataset("mel", layout)


def filtered(file: h5py.File, _: Path) -> None:
    values = file["flags"][:]
    del file["flags"]
    file.create_dataset("flags", data=values, compression="gzip")


def second_name(file: h5py.File, _: Path) -> None:
    file["records/loop"] = file["records"]


def unstored(file: h5py.File, _: Path) -> None:
    for name, field in file["tracks"].items():
        dtype = field.dtype
        del file[f"tracks/{name}"]
        file.create_dataset(f"tracks/{name}", (2**40,), dtype)


def no_room(file: h5py.File, _: Path) -> None:
    del file["status"]
    file.create_dataset("status", (2**40,), "u1", chunks=(4096,), fletcher32=True)


HDF5: dict[str, tuple[Callable[[h5py.File, Path], None], str]] = {
    "external storage as an undocumented record": (lambda f, s: external(f, "records/log/x", s), "records/log/x"),
    "external storage as a record": (lambda f, s: external(f, "records/drops/7.json", s), "records/drops/7.json"),
    "external storage as an array": (external_status, "status"),
    "external link": (external_link, "mel"),
    "soft link": (soft_link, "tracks/song"),
    "virtual dataset": (virtual, "mel"),
    "filter": (filtered, "flags"),
    "second name": (second_name, "records"),
    "undocumented dataset": (lambda f, s: f.create_dataset("more", data=[1]), "more"),
    "undocumented column": (lambda f, s: f.create_dataset("tracks/more", data=[1]), "tracks/more"),
    "undocumented record": (lambda f, s: f.create_dataset("records/notes.txt", data=[1]), "records/notes.txt"),
    "record outside": (lambda f, s: f["records"].create_group("..").create_dataset("x", data=[1]), "records/../x"),
    "columns that are not stored": (unstored, "tracks/row"),
    "rows that are not there": (no_room, "status"),
}


@pytest.mark.parametrize("kind", HDF5)
def test_hdf5_with_foreign_contents_is_refused(folder: Path, kind: str) -> None:
    change, name = HDF5[kind]
    with h5py.File(folder / "s.h5", "r+") as file:
        change(file, folder / "secret.txt")
    write_seal(folder / "s.h5")
    with pytest.raises(StoreCorruptError, match=name):
        FeatureStore.open(folder / "s.h5")
    damages = api.store_verify(folder / "s.h5")
    assert any(name in (damage.key, *damage.detail.split(": ")) for damage in damages), damages
    if not kind.endswith(("column", "stored")) and kind != "undocumented dataset":  # the rest convert does not read
        with pytest.raises(StoreError, match=name):
            convert(folder / "s.h5", folder / "out.zarr")
        assert not (folder / "out.zarr").exists()


@pytest.mark.parametrize("error", [KeyError, TypeError, MemoryError, OSError])
def test_verify_reports_errors_of_hdf5(folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def stumble(_: h5py.File) -> None:
        raise error("no such object")

    monkeypatch.setattr("mgc.cache.upkeep.seal.foreign_contents", stumble)
    damages = api.store_verify(folder / "s.h5")
    assert [damage.kind for damage in damages] == ["values"]
    assert "no such object" in damages[0].detail


def test_resealed_file_is_read(folder: Path) -> None:
    write_seal(folder / "s.h5")
    assert api.store_verify(folder / "s.h5") == []
    convert(folder / "s.h5", folder / "out.zarr")
    assert tree(folder / "out.zarr").keys() >= {"plan.json", "commits/other/0.json"}


RECORDS = ["plan.json", "generations/0.json", "commits/other/0.json", "drops/0.json", "drops/x.parquet", "features/x"]
RECORDS += ["rows/1.parquet", "rows/tempo/0.parquet", "tracks/0.parquet", "genres/1.parquet", "log"]
ARRAYS = ["mel/c/1/0/0", "status/c/0", "lyrics_pooled/c/0/0", "genre_embedding/c/0/0", "mel/zarr.json"]


@pytest.mark.parametrize("name", [*RECORDS, "commits", "drops", "mel"])
def test_links_of_a_folder_are_refused_by_name(folder: Path, name: str) -> None:
    """What they lead to is the very same content: links are refused for where they may lead."""
    store, moved = folder / "s.zarr", folder / "moved"
    path = store / name
    if path.exists():
        path.rename(moved)
    else:
        (folder / "secret.txt").rename(moved)
    path.symlink_to(moved)
    with pytest.raises(StoreCorruptError, match=rf"s.zarr/{name}: a symbolic link.*cp -rL"):
        FeatureStore.open(store)
    try:
        assert any(
            damage.key.startswith(name) and "symbolic link" in damage.detail for damage in api.store_verify(store)
        )
    except StoreError as error:
        assert f"{name}: a symbolic link" in str(error)  # noqa: PT017
    with pytest.raises(StoreError, match=rf"{name}.*symbolic link"):
        convert(store, folder / "out.h5")
    assert not (folder / "out.h5").exists()


@pytest.mark.parametrize("name", ARRAYS)
def test_links_of_arrays_are_refused_by_every_reader(folder: Path, name: str) -> None:
    store = folder / "s.zarr"
    (store / name).rename(folder / "moved")
    (store / name).symlink_to(folder / "moved")
    assert [damage.key for damage in api.store_verify(store)] == [name]
    with pytest.raises(StoreError, match=rf"{name}.*symbolic link"):
        convert(store, folder / "out.h5")
    for mapped in (True, False):
        with FeatureStore.open(store, mapped=mapped) as opened:
            if name.endswith("zarr.json"):  # which readers do not need
                opened.read("mel", opened.ok_rows)
            else:
                with pytest.raises(StoreCorruptError, match=rf"{name}: a symbolic link"):
                    _ = [opened.read(spec.name, opened.ok_rows) for spec in opened.arrays], opened.genre_embedding


@pytest.fixture
def elsewhere(folder: Path) -> Path:
    """A folder outside the store, with a file that stays."""
    (folder / "elsewhere" / "c/1/0").mkdir(parents=True)
    (folder / "elsewhere" / "c/1/0/0").write_bytes(SECRET)
    return folder / "elsewhere"


def test_compaction_removes_nothing_behind_a_link(folder: Path, elsewhere: Path) -> None:
    store, before = folder / "s.zarr", tree(elsewhere)
    (store / "quarantine").mkdir()
    (store / "quarantine" / "9.0").symlink_to(elsewhere)
    with pytest.raises(StoreCorruptError, match=r"quarantine/9\.0: a symbolic link"):
        compact(store)
    assert tree(elsewhere) == before


@pytest.mark.parametrize("name", ["mel", "mel/c"])
def test_no_older_object_behind_a_link_is_removed(folder: Path, elsewhere: Path, name: str) -> None:
    """A part that is built again without any mel has no such object, and that of its older record is removed."""
    store, before = folder / "s.zarr", tree(elsewhere)
    shutil.rmtree(store / name)
    (store / name).symlink_to(elsewhere / name.removeprefix("mel").strip("/"))
    with pytest.raises(StoreCorruptError, match=f"{name}: a symbolic link"):
        _remove_stale(store, 1, read_plan(store), None, [])
    assert tree(elsewhere) == before


@pytest.mark.parametrize("name", ["elsewhere", "nowhere"])
def test_repair_quarantines_a_link_and_compaction_removes_only_the_link(
    folder: Path, elsewhere: Path, name: str
) -> None:
    store, before = folder / "s.zarr", tree(elsewhere)
    (store / "more").symlink_to(folder / name)
    assert [damage.key for damage in verify(store)] == ["more"]
    assert quarantine(store, verify(store)) == []
    assert verify(store) == []
    compact(store)
    assert list((store / "quarantine/foreign").iterdir()) == []
    assert tree(elsewhere) == before


@pytest.mark.parametrize("name", ["quarantine/foreign", "mel"])
def test_repair_writes_nothing_behind_a_link(folder: Path, elsewhere: Path, name: str) -> None:
    store, before = folder / "s.zarr", tree(elsewhere)
    (store / "notes.txt").touch()
    (store / "quarantine").mkdir()
    if (store / name).exists():
        (store / name).rename(folder / "moved")
    (store / name).symlink_to(elsewhere)
    try:
        assert quarantine(store, verify(store)) == []
        assert verify(store) == []
    except StoreCorruptError as error:
        assert f"{name}: a symbolic link" in str(error)  # noqa: PT017
    assert tree(elsewhere) == before


def test_no_file_behind_a_link_in_staging_is_installed(folder: Path, elsewhere: Path) -> None:
    store, key = folder / "s.zarr", "commits/1.json"
    staged = staged_folder(store, key, read_record(store, key))
    staged.mkdir(parents=True)
    (staged / "mel").symlink_to(elsewhere)
    (store / "mel/c/1/0/0").unlink()
    with pytest.raises(StoreCorruptError, match="mel: a symbolic link"):
        roll_forward(store)
    assert not (store / "mel/c/1/0/0").exists()
    assert (elsewhere / "c/1/0/0").stat().st_nlink == 1


def test_a_snapshot_of_links_can_be_copied_and_then_read(folder: Path) -> None:
    """As the Hugging Face cache lays out what it has downloaded."""
    snapshot = folder / "snapshot"
    for name, content in tree(folder / "s.zarr").items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            (snapshot / name).symlink_to(folder / "s.zarr" / name)
    with pytest.raises(StoreCorruptError, match="Hugging Face cache"):
        FeatureStore.open(snapshot)
    shutil.copytree(snapshot, folder / "copy")  # follows links, as cp -rL
    assert len(FeatureStore.open(folder / "copy").ok_rows) == 9
    (folder / "link.zarr").symlink_to(folder / "s.zarr")
    assert len(FeatureStore.open(folder / "link.zarr").ok_rows) == 9, "a link to a whole store leads nowhere else"


@pytest.mark.parametrize("name", ["commits/0.json", "rows/0.parquet", "drops/1.json", "mel/c/0/0/0", "status/c/0"])
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    store = folder / "s.zarr"
    (store / name).unlink(missing_ok=True)
    os.mkfifo(store / name)
    assert name in [damage.key for damage in api.store_verify(store, full=True)]
    with pytest.raises(StoreCorruptError, match=name):
        read_all(store)


def test_failures_skip_invalid_log_files(folder: Path) -> None:
    log = folder / "s.zarr" / "log"
    os.mkfifo(log / "a.jsonl")
    (log / "b.jsonl").mkdir()
    lines = [
        "1",
        '{"failed_tracks": 5}',
        '{"failed_tracks": [[1]]}',
        '{"failed_tracks": {"t02": "EMPTY"}}',
        "[" * 10**5,
    ]
    (log / "c.jsonl").write_text("\n".join(lines))
    assert {track.id: track.attempts for track in failures(folder / "s.zarr").failures}["t02"] == 1


def read_all(store: Path) -> None:
    with FeatureStore.open(store) as opened:
        for spec in opened.arrays:
            opened.read(spec.name, opened.ok_rows)


def test_reader_ignores_an_altered_zarr_json(folder: Path) -> None:
    store, expected = folder / "s.zarr", FeatureStore.open(folder / "s.zarr", mapped=False)
    columns = [spec.name for spec in expected.arrays]
    values = [expected.read(name, expected.ok_rows) for name in columns]
    for file in store.rglob("zarr.json"):
        file.write_text(file.read_text().replace("float16", "int16").replace("float32", "int32"))
    assert "altered" in {damage.kind for damage in api.store_verify(store)}
    for mapped in (True, False):
        altered = FeatureStore.open(store, mapped=mapped)
        for name, value in zip(columns, values, strict=True):
            np.testing.assert_array_equal(altered.read(name, altered.ok_rows), value)
