"""Collections of other tools as miniatures in their documented layouts, and as their own libraries write them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collections_of_tools import SONGS, check, write_songs
from keywords import load_source

from mgc import api
from mgc.cache.durable import file_sha256
from mgc.cache.errors import ConfigError, ManifestError, MissingExtraError

HUB_SPLITS = ("train", "validation", "test")
GENRES = sorted({name for song in SONGS for name in song["genres"]})


def peer(name: str) -> Any:
    """Import the library that writes a collection; its own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed: pip install 'mgc-music[interop]'")


@pytest.mark.parametrize("name", ["library.db", "cuts.jsonl", "data/train.parquet"])
def test_a_pipe_is_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(ManifestError):
            load_source(source)


# ---------------------------------------------------------------- Hugging Face data sets


def hub_table(tmp_path: Path, **columns: Any) -> pa.Table:
    """Return a table as on the hub: audio in bytes, class labels as numbers, and the features in the metadata."""
    audio = [{"bytes": path.read_bytes(), "path": path.name} for path in write_songs(tmp_path / "wav")]
    features = {
        "audio": {"_type": "Audio"},
        "genres": {"feature": {"names": GENRES, "_type": "ClassLabel"}, "_type": "List"},
        "artist": {"dtype": "string", "_type": "Value"},
        "title": {"dtype": "string", "_type": "Value"},
    }
    table = pa.table(
        {
            "audio": pa.array(audio, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "genres": [[GENRES.index(name) for name in song["genres"]] for song in SONGS],
            "artist": [song["artist"] for song in SONGS],
            "title": [song["title"] for song in SONGS],
            **columns,
        }
    )
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def rows_of(table: pa.Table, split: str) -> pa.Table:
    return table.filter(pa.array([song["split"] == split for song in SONGS]))


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    table = hub_table(tmp_path)
    (tmp_path / "hub" / "data").mkdir(parents=True)
    (tmp_path / "root").mkdir()
    for split in HUB_SPLITS:
        pq.write_table(rows_of(table, split), tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    return tmp_path / "hub"


def test_a_hub_snapshot_extracts_from_its_bytes(hub: Path, tmp_path: Path) -> None:
    read = check(hub, tmp_path / "s.zarr", root=tmp_path / "root")
    assert [track.id for track in read.tracks] == [
        "test/00000000", "train/00000000", "train/00000001", "train/00000002", "validation/00000000"
    ]  # fmt: skip
    unpacked = sorted((tmp_path / "root").rglob("*.wav"))
    assert {file_sha256(path) for path in unpacked} == {file_sha256(path) for path in (tmp_path / "wav").iterdir()}
    times = [path.stat().st_mtime_ns for path in unpacked]
    unpacked[0].unlink()
    steps: list[Any] = []
    api.read_source(hub, root=tmp_path / "root", on_progress=lambda *step: steps.append(step))
    assert steps == [("unpack", 1, 1)]
    assert [path.stat().st_mtime_ns for path in unpacked[1:]] == times[1:]


def test_wrong_roots_of_a_hub_snapshot_are_refused(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"inside the files.*Create an empty folder with 0.0 GB"):
        load_source(hub)
    with pytest.raises(ManifestError, match="holds other files, such as 'song0.wav'"):
        load_source(hub, root=tmp_path / "wav")
    load_source(hub, root=tmp_path / "root")
    pq.write_table(rows_of(hub_table(tmp_path), "train"), hub / "data" / "test-00000-of-00001.parquet")
    with pytest.raises(ManifestError, match="another data set or version"):
        load_source(hub, root=tmp_path / "root")


def test_parquet_without_audio_is_no_hub_snapshot(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"id": ["a"], "audio": ["a.wav"]}), tmp_path / "data" / "train.parquet")
    with pytest.raises(ManifestError, match="no column of audio with bytes|no audio"):
        load_source(tmp_path)
    with pytest.raises(ManifestError, match="this is not a Hugging Face audio data set"):
        load_source(tmp_path, dataset="hugging-face", root=tmp_path)


def test_rows_without_bytes_and_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    audio = pa.array([{"bytes": None, "path": "a.wav"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"audio": audio}), tmp_path / "train.parquet")
    with pytest.raises(ManifestError, match="has no bytes"):
        load_source(tmp_path, root=tmp_path / "root")
    content = bytearray((tmp_path / "train.parquet").read_bytes())
    content[4:60] = b"\xff" * 56
    (tmp_path / "train.parquet").write_bytes(content)
    shutil.rmtree(tmp_path / "root")
    (tmp_path / "root").mkdir()
    with pytest.raises(ManifestError, match=r"train.parquet: damaged"):
        load_source(tmp_path, root=tmp_path / "root")
    (tmp_path / "validation.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(ManifestError, match=r"validation.parquet: not readable"):
        load_source(tmp_path, root=tmp_path / "root")


def test_a_saved_data_set_extracts_from_its_arrow_files(tmp_path: Path) -> None:
    table = hub_table(tmp_path)
    folder = tmp_path / "saved"
    for split in HUB_SPLITS:
        (folder / split).mkdir(parents=True)
        with pa.OSFile(str(folder / split / "data-00000-of-00001.arrow"), "wb") as file:
            rows = rows_of(table, split)
            with pa.ipc.new_stream(file, rows.schema) as stream:
                stream.write_table(rows)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
        (folder / split / "state.json").write_text(json.dumps(state))
        (folder / split / "dataset_info.json").write_text("{}")
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "test"]}))
    (tmp_path / "root").mkdir()
    check(folder, tmp_path / "s.zarr", root=tmp_path / "root")


def test_data_sets_of_the_library_extract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = peer("datasets")
    datasets.disable_progress_bars()
    table = hub_table(tmp_path)
    splits = {split: datasets.Dataset(datasets.table.InMemoryTable(rows_of(table, split))) for split in HUB_SPLITS}
    assert isinstance(splits["train"].features["audio"], datasets.Audio)
    for root in ("root", "other"):
        (tmp_path / root).mkdir()
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    check(tmp_path / "saved", tmp_path / "s.zarr", root=tmp_path / "root")
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for split, rows in splits.items():
        rows.to_parquet(str(tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet"))
    check(tmp_path / "hub", tmp_path / "t.zarr", root=tmp_path / "other")


# ---------------------------------------------------------------- beets


def beets_library(path: Path, audio: list[Path], *, base: Path | None = None) -> Path:
    """Write a library with the columns of the documented schema that describe a track; `base` makes paths relative."""
    with sqlite3.connect(path) as library:
        library.execute("CREATE TABLE albums (id INTEGER PRIMARY KEY)")
        library.execute(
            "CREATE TABLE items (id INTEGER PRIMARY KEY, path BLOB, artist TEXT, artists TEXT, title TEXT, genre TEXT, "
            "genres TEXT, language TEXT, lyrics TEXT)"
        )
        library.execute(
            "CREATE TABLE item_attributes (id INTEGER PRIMARY KEY, entity_id INTEGER, key TEXT, value TEXT)"
        )
        for i, (song, file) in enumerate(zip(SONGS, audio, strict=True), start=1):
            name = str(file if base is None else file.relative_to(base)).encode()
            row = (i, name, song["artist"], "", song["title"], "", "\\␀".join(song["genres"]), "eng", "la la")
            library.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            attribute = (i, "split", song["split"])
            library.execute("INSERT INTO item_attributes (entity_id, key, value) VALUES (?, ?, ?)", attribute)
    library.close()
    return path


def test_a_beets_library_extracts_and_stays_as_it_is(tmp_path: Path) -> None:
    library = beets_library(tmp_path / "library.db", write_songs(tmp_path / "music" / "album"))
    before = file_sha256(library), sorted(path.name for path in tmp_path.iterdir())
    read = check(library, tmp_path / "s.zarr")
    assert file_sha256(library) == before[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before[1], "s.zarr"])
    assert [(track.id, track.language, track.lyrics) for track in read.tracks][:1] == [("song0.wav", "en", "la la")]
    assert read.root == tmp_path / "music" / "album"
    rooted = load_source(library, root=tmp_path / "music")
    assert rooted.tracks[0].id == "album/song0.wav"


def test_a_beets_library_with_relative_paths_starts_from_the_root(tmp_path: Path) -> None:
    music = tmp_path / "music"
    library = beets_library(tmp_path / "library.db", write_songs(music / "album"), base=music)
    read = check(library, tmp_path / "s.zarr", root=music)
    assert read.tracks[0].id == "album/song0.wav"
    assert any("none of 5 audio files" in note for note in load_source(library).notes)


def test_old_beets_genres_are_one_text_that_a_delimiter_splits(tmp_path: Path) -> None:
    library = beets_library(tmp_path / "library.db", write_songs(tmp_path))
    with sqlite3.connect(library) as connection:
        connection.execute("UPDATE items SET genres = NULL, genre = 'jazz, blues'")
    connection.close()
    with pytest.raises(ManifestError, match="--genre-delimiter"):
        load_source(library)
    assert load_source(library, genre_delimiter=",").tracks[0].genres == ("jazz", "blues")


def test_other_and_damaged_databases_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE items (id INTEGER)")
    connection.close()
    with pytest.raises(ManifestError, match="not a beets library|a source is a folder or a table"):
        load_source(other)
    with pytest.raises(ManifestError, match="this is not a beets library"):
        load_source(other, dataset="beets")
    library = beets_library(tmp_path / "library.db", write_songs(tmp_path))
    content = bytearray(library.read_bytes())
    content[5000:] = b"\xff" * len(content[5000:])
    library.write_bytes(content)
    with pytest.raises(ManifestError, match="not readable as a library of beets"):
        load_source(library)


def test_a_library_of_beets_itself_extracts(tmp_path: Path) -> None:
    peer("beets")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from beets import library as beets_lib

        audio = write_songs(tmp_path / "music" / "album")
        library = beets_lib.Library(str(tmp_path / "library.db"), str(tmp_path / "music"))
        for song, path in zip(SONGS, audio, strict=True):
            item = beets_lib.Item(
                path=str(path).encode(), title=song["title"], artist=song["artist"], genres=song["genres"]
            )
            item["split"] = song["split"]
            library.add(item)
        library._close()
    check(tmp_path / "library.db", tmp_path / "s.zarr", root=tmp_path / "music")


# ---------------------------------------------------------------- lhotse


def lhotse_recording(song: dict[str, Any], path: str) -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": path}
    return {
        "id": song["name"],
        "sources": [source],
        "sampling_rate": 22_050,
        "num_samples": 12_000,
        "duration": 12_000 / 22_050,
        "channel_ids": [0],
    }


def lhotse_supervision(song: dict[str, Any], **custom: Any) -> dict[str, Any]:
    return {
        "id": song["name"],
        "recording_id": song["name"],
        "start": 0.0,
        "duration": 0.5,
        "channel": 0,
        "speaker": song["artist"],
        "custom": {"genres": song["genres"], "title": song["title"], **custom},
    }


def lines(*documents: dict[str, Any]) -> str:
    return "".join(json.dumps(document) + "\n" for document in documents)


def test_lhotse_recordings_and_supervisions_extract(tmp_path: Path) -> None:
    write_songs(tmp_path / "wav")
    recordings = lines(*(lhotse_recording(song, f"wav/{song['name']}.wav") for song in SONGS))
    (tmp_path / "recordings.jsonl").write_text(recordings)
    supervisions = lines(*(lhotse_supervision(song, split=song["split"]) for song in SONGS))
    (tmp_path / "supervisions.jsonl.gz").write_bytes(gzip.compress(supervisions.encode()))
    read = check(tmp_path, tmp_path / "s.zarr")
    assert [track.id for track in read.tracks] == [song["name"] for song in SONGS]


def test_lhotse_cuts_of_several_splits_extract(tmp_path: Path) -> None:
    write_songs(tmp_path / "wav")
    for split in ("train", "dev", "test"):
        own = [song for song in SONGS if song["split"] == {"dev": "validation"}.get(split, split)]
        cuts = [
            {
                "id": f"{song['name']}-{n}",
                "start": 0.2 * n,
                "duration": 0.2,
                "channel": 0,
                "type": "MonoCut",
                "recording": lhotse_recording(song, str(tmp_path / "wav" / f"{song['name']}.wav")),
                "supervisions": [lhotse_supervision(song | {"genres": song["genres"][n : n + 1]})],
            }
            for song in own
            for n in range(2)
        ]
        (tmp_path / f"cuts_{split}.jsonl").write_text(lines(*cuts))
    read = check(tmp_path, tmp_path / "s.zarr")
    assert "5 cuts of later parts of recordings: the whole recordings are read" in read.notes


def test_wrong_lhotse_manifests_are_refused_with_the_line(tmp_path: Path) -> None:
    recording = lhotse_recording(SONGS[0], "a.wav")
    manifest = tmp_path / "recordings.jsonl"
    for document, fault in (
        ({**recording, "sources": [{"type": "command", "source": "cat x", "channels": [0]}]}, "of type 'command'"),
        ({"id": "a"}, r"line 1: no recording with an id and sources"),
        ({**recording, "supervisions": [{"custom": [1]}]}, r"line 1: not an entry of a lhotse manifest"),
        ({**recording, "supervisions": 3}, r"line 1: not an entry of a lhotse manifest"),
        ({**recording, "supervisions": [{"custom": {"genres": [3]}}]}, r"line 1: column 'genres' must hold a list"),
    ):
        manifest.write_text(lines(document))
        with pytest.raises(ManifestError, match=fault):
            load_source(tmp_path)
    manifest.write_text("{")
    with pytest.raises(ManifestError, match=r"recordings.jsonl: not readable"):
        load_source(tmp_path)
    manifest.unlink()
    (tmp_path / "recordings.jsonl.gz").write_bytes(b"\x1f\x8b cut")
    with pytest.raises(ManifestError, match="not readable"):
        load_source(tmp_path)


def test_manifests_of_lhotse_itself_extract(tmp_path: Path) -> None:
    lhotse = peer("lhotse")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cuts = []
        for song, path in zip(SONGS, write_songs(tmp_path / "wav"), strict=True):
            recording = lhotse.Recording.from_file(path, recording_id=song["name"])
            cut = recording.to_cut()
            cut.supervisions = [
                lhotse.SupervisionSegment(
                    id=song["name"], recording_id=song["name"], start=0, duration=recording.duration,
                    speaker=song["artist"],
                    custom={"genres": song["genres"], "title": song["title"], "split": song["split"]},
                )
            ]  # fmt: skip
            cuts.append(cut)
        lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    check(tmp_path / "cuts.jsonl.gz", tmp_path / "s.zarr")


def test_an_export_to_lhotse_reads_back_as_a_source(tmp_path: Path) -> None:
    library = beets_library(tmp_path / "library.db", write_songs(tmp_path / "wav"))
    api.extract(load_source(library), tmp_path / "s.zarr", features=("mel",), workers=0, clip_s=0.5)
    api.store_export(tmp_path / "s.zarr", tmp_path / "out", "lhotse")
    check(tmp_path / "out", tmp_path / "t.zarr", root=tmp_path / "wav")


# ---------------------------------------------------------------- mirdata


def fake_mirdata(folder: Path) -> types.ModuleType:
    """A stand-in for mirdata with one loader, of the documented interface."""

    class Dataset:
        def __init__(self, data_home: str) -> None:
            self.data_home = Path(data_home)

        def load_tracks(self) -> dict[str, Any]:
            tracks = {
                song["name"]: types.SimpleNamespace(
                    audio_path=str(self.data_home / "audio" / f"{song['name']}.wav"),
                    genre=song["genres"], artist=song["artist"], title=song["title"],
                )
                for song in SONGS
            }  # fmt: skip
            return tracks | {"annotations only": types.SimpleNamespace(audio_path=None, genre="rock")}

        def get_track_splits(self) -> dict[str, list[str]]:
            return {split: [song["name"] for song in SONGS if song["split"] == split] for split in HUB_SPLITS}

    module = types.ModuleType("mirdata")
    module.list_datasets = lambda: ["five_songs"]
    module.initialize = lambda name, data_home: Dataset(data_home)
    return module


def test_a_mirdata_loader_extracts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mirdata", fake_mirdata(tmp_path))
    write_songs(tmp_path / "five_songs" / "audio")
    read = check(tmp_path / "five_songs", tmp_path / "s.zarr", dataset="mirdata")
    assert "1 track without an audio file left out" in read.notes
    (tmp_path / "five_songs").rename(tmp_path / "songs")
    assert load_source(tmp_path / "songs", dataset="mirdata:five_songs").tracks == read.tracks
    with pytest.raises(ManifestError, match=r"mirdata has no loader 'songs'; .*five_songs.* --dataset mirdata:NAME"):
        load_source(tmp_path / "songs", dataset="mirdata")
    with pytest.raises(ConfigError, match="known are"):
        load_source(tmp_path / "songs", dataset="fma:five_songs")


def test_a_missing_mirdata_is_reported_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mirdata", None)
    with pytest.raises(MissingExtraError, match=r"mgc-music\[mirdata\]"):
        load_source(tmp_path, dataset="mirdata")


def test_a_loader_of_mirdata_itself_extracts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the loader of GTZAN with an index of five songs; its genre is part of the id, and it has no artists."""
    mirdata = peer("mirdata")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mirdata.core
    index: dict[str, Any] = {"version": "1.0", "tracks": {}}
    for i, (song, path) in enumerate(zip(SONGS, write_songs(tmp_path / "wav"), strict=True)):
        genre = song["genres"][0].replace(" ", "")
        target = tmp_path / "gtzan_genre" / "genres" / genre / f"{genre}.0000{i}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        name = f"{genre}.0000{i}"
        index["tracks"][name] = {
            "audio": [f"genres/{genre}/{name}.wav", "0"], "beats": [None, None], "tempo": [None, None]
        }  # fmt: skip
    (tmp_path / "index.json").write_text(json.dumps(index))
    monkeypatch.setattr(mirdata.core.Index, "get_path", lambda self: str(tmp_path / "index.json"))
    read = load_source(tmp_path / "gtzan_genre", dataset="mirdata")
    assert [track.genres[0] for track in read.tracks] == ["hip-hop", "jazz", "jazz", "rock", "rock"]
    report = api.extract(read, tmp_path / "s.zarr", features=("mel",), workers=0, clip_s=0.5)
    assert (report.ok, report.failed) == (5, 0)
