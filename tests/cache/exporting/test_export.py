"""Export of a store: the files as other programs read them, resuming after a kill, refusals."""

from __future__ import annotations

import gzip
import io
import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import exported
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from mgc import api
from mgc.cache.durable import file_sha256
from mgc.cache.errors import ConfigError, StoreError
from mgc.cache.exporting import features, job
from mgc.cache.reading.view import StoreView, open_store

FORMATS = ("npy", "parquet", "lhotse", "webdataset")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported.write_store(tmp_path_factory.mktemp("export") / "s.zarr")


@pytest.fixture(scope="module")
def view(store: Path) -> Iterator[StoreView]:
    with open_store(store) as view:
        yield view


@pytest.fixture(scope="module")
def expected(view: StoreView) -> list[dict[str, Any]]:
    return exported.expected(view)


@pytest.fixture(scope="module")
def folders(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One export per format, in several blocks and files."""
    folder = tmp_path_factory.mktemp("exports")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        for name in FORMATS:
            api.store_export(store, folder / name, name)
    return {name: folder / name for name in FORMATS}


def make_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(features, "BLOCK_BYTES", 50_000)
    patch.setattr(job, "FILE_BYTES", 60_000)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_npy_files_equal_the_store_and_map_into_memory(
    folders: dict[str, Path], view: StoreView, expected: list[dict[str, Any]]
) -> None:
    folder = folders["npy"]
    index = json.loads((folder / "index.json").read_text())
    tracks = view.tracks
    assert index["ids"] == tracks.column("id").to_pylist()
    assert index["splits"] == tracks.column("split").to_pylist()
    assert index["source_sha256"] == tracks.column("source_sha256").to_pylist()
    named = [[index["genres"][i] for i in row] for row in index["labels"]]
    assert named == tracks.column("genres").to_pylist()
    assert index["recipe"] == view.store.recipe.to_dict()
    assert set(index["features"]) == set(expected[0])
    for name, about in index["features"].items():
        values = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        assert values.dtype == np.dtype(about["dtype"])
        offsets = folder / f"{name}_offsets.npy"
        if offsets.exists():
            starts = np.load(offsets)
            rows = [values[starts[i] : starts[i + 1]] for i in range(len(view))]
        else:
            rows = list(values)
        for i, (row, track) in enumerate(zip(rows, expected, strict=True)):
            if track[name] is None:
                assert about["missing"] == [i]
                assert not row.any()
            else:
                exported.assert_same(row, track[name])
    embedding = np.load(folder / "genre_embedding.npy")
    for name, row in zip(index["genres"], embedding, strict=True):
        exported.assert_same(row, view.store.genre_embedding[view.store.genres.index(name)])


def test_parquet_files_equal_the_store_per_split(
    folders: dict[str, Path], view: StoreView, expected: list[dict[str, Any]]
) -> None:
    position = {name: i for i, name in enumerate(view.tracks.column("id").to_pylist())}
    files = sorted((folders["parquet"] / "data").iterdir())
    assert len(files) > 4, "the tracks of a split are divided into files"
    seen = []
    for file in files:
        table = pq.read_table(file)
        for row in range(table.num_rows):
            i = position[table["id"][row].as_py()]
            seen.append(i)
            assert file.name.startswith(f"{table['split'][row].as_py() or 'unsplit'}-")
            for name, values in expected[i].items():
                cell = table[name][row]
                assert cell.is_valid == (values is not None)
                if values is not None:
                    exported.assert_same(
                        np.asarray(cell.as_py(), np.asarray(values).dtype).reshape(values.shape), values
                    )
    assert sorted(seen) == list(range(len(view)))
    assert str(table.schema.field("mel").type).count("fixed_size_list") == 2
    assert table.schema.field("mel").metadata[b"unit"] == b"dB re 1.0"
    own = view.tracks.select(["id", "artists", "genres", "seconds", "source_sha256"]).to_pylist()
    read = pq.read_table(folders["parquet"] / "data", columns=["id", "artists", "genres", "seconds", "source_sha256"])
    assert sorted(read.to_pylist(), key=lambda row: row["id"]) == own


def test_the_card_and_croissant_list_the_files_of_each_split(store: Path, tmp_path: Path) -> None:
    api.store_export(store, tmp_path / "out", "parquet", features=["tempo"], licence="cc-by-4.0")
    header = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert header["license"] == "cc-by-4.0"
    (config,) = header["configs"]
    assert [entry["split"] for entry in config["data_files"]] == ["train", "validation", "test", "unsplit"]
    for entry in config["data_files"]:
        assert list((tmp_path / "out").glob(entry["path"]))
    croissant = json.loads((tmp_path / "out" / "croissant.json").read_text())
    assert croissant["license"] == "cc-by-4.0"
    fields = {field["name"]: field for field in croissant["recordSet"][0]["field"]}
    assert fields["genres"]["repeated"]
    assert fields["tempo"]["dataType"] == "sc:Float"
    assert [entry["includes"] for entry in croissant["distribution"]] == [e["path"] for e in config["data_files"]]


def test_tar_shards_hold_one_sample_per_track(
    folders: dict[str, Path], view: StoreView, expected: list[dict[str, Any]]
) -> None:
    tracks, seen = view.tracks.to_pylist(), []
    for file in sorted(folders["webdataset"].glob("*.tar")):
        with tarfile.open(file) as tar:
            members = {member.name: member for member in tar.getmembers()}
            assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members.values()} == {(0, 0, 0, "", 0o644)}
            for name in (name for name in members if name.endswith(".json")):
                i = int(name[:8])
                seen.append(i)
                sample = json.load(tar.extractfile(name))
                assert sample["id"] == tracks[i]["id"]
                assert sample["genres"] == tracks[i]["genres"]
                assert file.name.startswith(f"{tracks[i]['split'] or 'unsplit'}-")
                assert sample.get("split") == tracks[i]["split"]
                for feature, values in expected[i].items():
                    member = f"{name[:8]}.{feature}.npy"
                    assert (member in members) == (values is not None)
                    if values is not None:
                        exported.assert_same(np.load(io.BytesIO(tar.extractfile(member).read())), values)
    assert sorted(seen) == list(range(len(view)))


def test_lhotse_cuts_point_to_arrays_of_each_track(
    folders: dict[str, Path], view: StoreView, expected: list[dict[str, Any]]
) -> None:
    tracks, seen = view.tracks.to_pylist(), []
    for split in ("train", "validation", "test", "unsplit"):
        manifest = gzip.decompress((folders["lhotse"] / f"cuts_{split}.jsonl.gz").read_bytes())
        for line in manifest.splitlines():
            cut = json.loads(line)
            i = next(i for i, track in enumerate(tracks) if track["id"] == cut["id"])
            seen.append(i)
            assert (tracks[i]["split"] or "unsplit") == split
            assert cut["recording"]["sources"][0]["source"] == tracks[i]["path"]
            assert cut["supervisions"][0]["custom"]["genres"] == tracks[i]["genres"]
            for name, values in expected[i].items():
                about = cut["features"] if name == "mel" else cut["custom"].get(name)
                if isinstance(about, dict):
                    stored = np.load(folders["lhotse"] / about["storage_path"] / about["storage_key"])
                    if name == "mel":
                        values = values[:, : expected[i]["mel_frames"]].T
                        assert [about["num_frames"], about["num_features"]] == list(values.shape)
                    else:
                        assert about["shape"] == list(values.shape)
                    exported.assert_same(stored, values)
                else:
                    assert about == values
    assert sorted(seen) == list(range(len(view)))


@pytest.mark.parametrize("name", FORMATS)
def test_the_record_lists_every_file_with_its_hash(folders: dict[str, Path], name: str) -> None:
    document = json.loads((folders[name] / job.EXPORT_FILE).read_text())
    listed = {file["key"]: file["sha256"] for file in document["files"]}
    assert listed.keys() | {job.EXPORT_FILE} == content(folders[name]).keys()
    assert all(file_sha256(folders[name] / key) == digest for key, digest in listed.items())


@pytest.mark.parametrize(("name", "period"), [("npy", 5), ("parquet", 33), ("lhotse", 33), ("webdataset", 33)])
def test_an_export_stopped_again_and_again_gives_identical_bytes(
    folders: dict[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, period: int
) -> None:
    make_small(monkeypatch)
    whole, read, reads = content(folders[name]), features.Feature.read, []

    class Stop(BaseException):
        pass

    def stop_at_times(self: features.Feature, positions: np.ndarray) -> np.ndarray:
        reads.append((self.name, *positions.tolist()))
        if len(reads) % period == 0:
            raise Stop
        return read(self, positions)

    monkeypatch.setattr(features.Feature, "read", stop_at_times)
    stops = 0
    while True:
        try:
            result = api.store_export(store, tmp_path / "out", name)
            break
        except Stop:
            stops += 1
    assert stops >= 3
    assert content(tmp_path / "out") == whole
    assert result.written < result.files, "finished files are not written again"
    if name == "npy":  # at most the block that was being written and the one before are read again
        assert len(reads) <= len(set(reads)) + 2 * stops
    n_reads = len(reads)
    assert api.store_export(store, tmp_path / "out", name).written == 0
    assert len(reads) == n_reads


KILLED = """
import os, signal, sys
from pathlib import Path
from mgc.cache.exporting import features, job
from mgc.cache.exporting.export import export_view
from mgc.cache.reading.view import open_store
features.BLOCK_BYTES, job.FILE_BYTES = 50_000, 60_000
left, fsync = int(sys.argv[4]), os.fsync
def count(handle):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)
os.fsync = count
export_view(open_store(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""


@pytest.mark.parametrize(("name", "n_fsyncs"), [("npy", 5), ("lhotse", 40)])
def test_an_export_continues_after_sigkill(
    folders: dict[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, n_fsyncs: int
) -> None:
    arguments = [str(store), str(tmp_path / "out"), name, str(n_fsyncs)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any(".partial" in key for key in content(tmp_path / "out")), "the kill left a draft"
    make_small(monkeypatch)
    api.store_export(store, tmp_path / "out", name)
    assert content(tmp_path / "out") == content(folders[name])


def test_a_selection_and_named_features_export_alone(store: Path, tmp_path: Path) -> None:
    result = api.store_export(store, tmp_path / "out", "npy", split="test", features=["lyrics", "levels"])
    assert result.features == ["lyrics", "lyrics_tokens", "levels", "levels_length"]
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert set(index["splits"]) == {"test"}
    assert result.tracks == len(index["ids"]) == len(np.load(tmp_path / "out" / "lyrics_tokens.npy"))


def test_a_sealed_store_exports_the_same_files(store: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    from mgc.cache.upkeep.hdf5_writer import seal_store

    seal_store(store, tmp_path / "s.h5")
    api.store_export(tmp_path / "s.h5", tmp_path / "npy", "npy")
    assert content(tmp_path / "npy") == content(folders["npy"])


def test_a_lost_or_shortened_file_is_written_again(
    store: Path, tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch)
    api.store_export(store, tmp_path / "out", "npy")
    api.store_export(store, tmp_path / "lhotse", "lhotse")
    next((tmp_path / "lhotse").rglob("*.levels.npy")).unlink()
    assert api.store_export(store, tmp_path / "lhotse", "lhotse").written == 1
    assert content(tmp_path / "lhotse") == content(folders["lhotse"])
    (tmp_path / "out" / "tempo.npy").unlink()
    with (tmp_path / "out" / "mel.npy").open("r+b") as file:
        file.truncate(99)
    assert api.store_export(store, tmp_path / "out", "npy").written == 2
    assert content(tmp_path / "out") == content(folders["npy"])


def test_wrong_folders_and_names_are_refused(store: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    def refused(match: str, kind: type[Exception] = ConfigError, **changes: Any) -> None:
        call: dict[str, Any] = {"path": store, "output": tmp_path / "new", "to": "npy", **changes}
        with pytest.raises(kind, match=match):
            api.store_export(**call)
        assert not (tmp_path / "new").exists()

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    refused(r"holds other files, such as 'notes.txt'", output=tmp_path / "other")
    refused("an export of other tracks", output=folders["npy"], split="test")
    refused("an export of other tracks", output=folders["npy"], to="parquet")
    refused("inside the store", output=store / "mel")
    refused("not a folder", output=tmp_path / "other" / "notes.txt")
    refused(r"no feature 'mle'; did you mean 'mel'\?", features=["mle"])
    refused("--licence goes with --to parquet", licence="mit")
    refused("did you mean", split="tset")
    refused("s3://", output=Path("s3://bucket/x"))
    (folders["parquet"].parent / "bad").mkdir()
    (folders["parquet"].parent / "bad" / job.EXPORT_FILE).write_text("{}")
    refused("not that of an export", output=folders["parquet"].parent / "bad")
    refused("not a feature store", StoreError, path=tmp_path)


def test_two_exports_into_one_folder_are_refused(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Callable[..., Any] = features.Feature.read

    def second(self: features.Feature, positions: np.ndarray) -> Any:
        with pytest.raises(ConfigError, match="another export is writing"):
            api.store_export(store, tmp_path / "out", "npy", features=["tempo"])
        return read(self, positions)

    monkeypatch.setattr(features.Feature, "read", second)
    api.store_export(store, tmp_path / "out", "npy", features=["tempo"])
