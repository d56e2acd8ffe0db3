"""Public data sets in their distributed layouts, as miniatures of their public descriptions."""

from __future__ import annotations

import ast
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from keywords import load_source
from source_files import put

from mgc.cache.errors import ConfigError, ManifestError
from mgc.pipeline.sources.datasets import DATASETS

JAMENDO_HEADER = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"
JAMENDO_ROWS = {
    "train": [("track_0000241", "artist_000005", "41/241.mp3", "genre---rock\tgenre---punkrock")],
    "validation": [("track_0000773", "artist_000104", "73/773.mp3", "genre---electronic")],
    "test": [("track_0000214", "artist_000014", "14/214.mp3", "genre---60s\tinstrument---piano\tgenre---jazz")],
}


# ---------------------------------------------------------------- MTG-Jamendo


def jamendo_labels(folder: Path) -> None:
    for split, rows in JAMENDO_ROWS.items():
        lines = [f"{track}\t{artist}\talbum_000033\t{path}\t340.1\t{tags}\r\n" for track, artist, path, tags in rows]
        put(folder / f"autotagging_genre-{split}.tsv", JAMENDO_HEADER.replace("\n", "\r\n") + "".join(lines))


def jamendo_audio(folder: Path, ending: str = ".mp3") -> None:
    for rows in JAMENDO_ROWS.values():
        for _, _, path, _ in rows:
            put(folder / path.replace(".mp3", ending))


def test_jamendo_keeps_its_splits_artists_and_genre_tags(tmp_path: Path) -> None:
    jamendo_labels(tmp_path)
    jamendo_audio(tmp_path)
    source = load_source(tmp_path)
    assert source.root == tmp_path
    assert [(t.id, t.split, t.artists, t.genres, t.path) for t in source.tracks] == [
        ("track_0000214", "test", ("artist_000014",), ("60s", "jazz"), "14/214.mp3"),
        ("track_0000241", "train", ("artist_000005",), ("rock", "punkrock"), "41/241.mp3"),
        ("track_0000773", "validation", ("artist_000104",), ("electronic",), "73/773.mp3"),
    ]
    assert "read as MTG-Jamendo, genre subset" in source.notes


@pytest.mark.parametrize("ending", [".mp3", ".low.mp3"])
def test_jamendo_from_a_clone_with_its_audio_elsewhere(tmp_path: Path, ending: str) -> None:
    clone, audio = tmp_path / "mtg-jamendo-dataset", tmp_path / "audio"
    jamendo_labels(clone / "data" / "splits" / "split-0")
    jamendo_audio(audio, ending)
    source = load_source(clone, root=audio)
    assert [t.path for t in source.tracks] == [f"14/214{ending}", f"41/241{ending}", f"73/773{ending}"]
    assert all((source.root / track.path).is_file() for track in source.tracks)
    shutil.move(audio, clone / "audio")
    assert load_source(clone).root == clone / "audio"
    shutil.move(clone / "data" / "splits" / "split-0", clone / "data" / "splits" / "split-3")
    assert load_source(clone / "data" / "splits" / "split-3", root=clone / "audio").tracks == source.tracks


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train", None, r"there is no autotagging_genre-train\.tsv; .* the three files"),
        (
            "test",
            "TRACK_ID\tPATH\n",
            r"test\.tsv, line 1: the header is 'TRACK_ID PATH'\. Expected 'TRACK_ID ARTIST_ID",
        ),
        ("test", "", r"test\.tsv, line 1: the header is ''\. Expected"),
        ("test", JAMENDO_HEADER + "track_1\ta\tb\t1/1.mp3\t3.0\n", r"test\.tsv, line 2: 5 cells.*'genre---rock'"),
        ("test", JAMENDO_HEADER + "track_1\ta\tb\t\t3.0\tgenre---x\n", r"line 2: PATH is empty\. .*'14/214\.mp3'"),
        ("test", JAMENDO_HEADER + "track_0000241\ta\tb\t1/1.mp3\t3\tx\n", r"train\.tsv, line 2.*test\.tsv, line 2"),
    ],
)
def test_jamendo_label_files_that_are_missing_or_wrong(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    jamendo_labels(tmp_path)
    file = tmp_path / f"autotagging_genre-{name}.tsv"
    file.unlink() if content is None else put(file, content)
    with pytest.raises(ManifestError, match=message):
        load_source(tmp_path)


def test_the_real_jamendo_label_files(real_data: Path, tmp_path: Path) -> None:
    source = load_source(real_data / "mtg_jamendo", root=tmp_path)
    files = {split: real_data / "mtg_jamendo" / f"autotagging_genre-{split}.tsv" for split in JAMENDO_ROWS}
    rows = {split: file.read_text().splitlines()[1:] for split, file in files.items()}
    assert Counter(track.split for track in source.tracks) == {split: len(lines) for split, lines in rows.items()}
    assert len(source.tracks) == 55_094
    tags = Counter(
        tag.removeprefix("genre---") for lines in rows.values() for line in lines for tag in line.split("\t")[5:]
    )
    assert Counter(genre for track in source.tracks for genre in track.genres) == tags
    assert len(tags) == 87
    splits: dict[str, set[Any]] = defaultdict(set)
    for track in source.tracks:
        splits[track.artists[0]].add(track.split)
    assert all(len(result) == 1 for result in splits.values())  # the official split keeps artists apart


# ---------------------------------------------------------------- FMA

FMA_GENRES = {  # genre_id: #tracks, parent, title, top_level
    2: (5271, 0, "International", 2),
    12: (32923, 0, "Rock", 12),
    25: (9261, 12, "Punk", 12),
    31: (1498, 12, "Metal", 12),
    109: (1503, 25, "Hardcore", 12),
    130: (652, 2, "Europe", 2),
}
FMA_TRACKS = {  # track_id: split, subset, genre_top, genres, genres_all, language_code, title, artist
    2: ("training", "small", "Rock", [109], [12, 25, 109], "en", 'Say "No",\nplease', "AWOL"),
    3: ("validation", "medium", None, [31, 130], [2, 12, 31, 130], None, "NA", "Kurt, Vile & Co"),
    134: ("test", "large", None, [], [], "pt", "É", "Ô"),
    140567: ("training", "small", "International", [2], [2], None, "Last", "AWOL"),
}


@pytest.fixture
def fma(tmp_path: Path) -> Path:
    """FMA's folder, its tables written by pandas as the makers wrote theirs, with the columns of every kind."""
    root = tmp_path / "fma"
    columns = [
        "set.split",
        "set.subset",
        "track.genre_top",
        "track.genres",
        "track.genres_all",
        "track.language_code",
        "track.title",
        "artist.name",
    ]
    table = pd.DataFrame(
        [[*cells, 0, "<p>Two lines\nof it</p>"] for cells in FMA_TRACKS.values()],
        index=pd.Index(FMA_TRACKS, name="track_id"),
        columns=pd.MultiIndex.from_tuples(
            [tuple(name.split(".")) for name in [*columns, "album.comments", "artist.bio"]]
        ),
    ).sort_index(axis=1)
    (root / "fma_metadata").mkdir(parents=True)
    table.to_csv(root / "fma_metadata" / "tracks.csv")
    genres = pd.DataFrame.from_dict(FMA_GENRES, orient="index", columns=["#tracks", "parent", "title", "top_level"])
    genres.to_csv(root / "fma_metadata" / "genres.csv", index_label="genre_id")
    for number in FMA_TRACKS:
        put(root / "fma_large" / f"{number:06}"[:3] / f"{number:06}.mp3")
    return root


def test_fma_is_read_as_by_its_authors(fma: Path) -> None:
    source = load_source(fma)
    tracks = {int(track.id): track for track in source.tracks}
    table = pd.read_csv(fma / "fma_metadata" / "tracks.csv", index_col=0, header=[0, 1])
    titles = {number: title for number, (_, _, title, _) in FMA_GENRES.items()}
    assert [track.id for track in source.tracks] == ["000002", "000003", "000134", "140567"]
    assert all((source.root / track.path).is_file() for track in source.tracks)
    for number, row in table.iterrows():
        track = tracks[number]
        assert set(track.genres) == {titles[item] for item in ast.literal_eval(row["track", "genres_all"])}
        assert track.split == row["set", "split"].replace("training", "train")
        assert (track.artists, track.song) == ((row["artist", "name"],), FMA_TRACKS[number][6])
    assert [track.language for track in source.tracks] == ["en", None, "pt", None]


@pytest.mark.parametrize(
    ("level", "genres"),
    [
        ("own", [("Hardcore",), ("Metal", "Europe"), (), ("International",)]),
        ("top", [("Rock",), ("Rock", "International"), (), ("International",)]),
        ("all", [("Hardcore", "Punk", "Rock"), ("Metal", "Rock", "Europe", "International"), (), ("International",)]),
    ],
)
def test_fma_genres_at_each_level_of_the_hierarchy(fma: Path, level: Any, genres: list[tuple[str, ...]]) -> None:
    assert [track.genres for track in load_source(fma, genre_level=level).tracks] == genres


def test_fma_subsets_hold_the_smaller_ones(fma: Path) -> None:
    (fma / "fma_large").rename(fma / "fma_medium")
    assert [t.id for t in load_source(fma).tracks] == ["000002", "000003", "140567"]
    (fma / "fma_small").mkdir()
    with pytest.raises(ManifestError, match=r"there are fma_small, fma_medium\. Use one of them .*small"):
        load_source(fma)
    source = load_source(fma / "fma_small")
    assert (source.root, [t.path for t in source.tracks]) == (
        fma / "fma_small",
        ["000/000002.mp3", "140/140567.mp3"],
    )


FMA_FAULTS = {
    "no metadata": ("tracks.csv", None, r"tracks\.csv: no such file\. Unpack fma_metadata\.zip"),
    "one header row": ("tracks.csv", "track_id,title\n2,x\n", r"tracks\.csv: expected a header of two rows"),
    "empty": ("tracks.csv", "", r"tracks\.csv: expected a header of two rows"),
    "column lost": ("tracks.csv", ",set,track\n,split,genre\ntrack_id,,\n2,a,b\n", r"no column 'set\.subset'"),
    "no genres.csv": ("genres.csv", None, r"genres\.csv: no such file"),
    "orphan": (
        "genres.csv",
        "genre_id,parent,title\n2,9,International\n",
        r"genre 2 \(International\) has the parent 9",
    ),
    "genre unknown": ("genres.csv", "genre_id,parent,title\n2,0,International\n", r"tracks\.csv, line 4: genre 109"),
    "circle": ("genres.csv", "genre_id,parent,title\n109,25,H\n25,109,P\n", r"line 4: genre 25 is its own ancestor"),
    "no number": ("genres.csv", "genre_id,parent,title\nx,0,P\n", r"line 2: genre_id holds 'x'\. Expected a whole"),
}


@pytest.mark.parametrize(("name", "content", "message"), FMA_FAULTS.values(), ids=FMA_FAULTS.keys())
def test_fma_tables_that_are_missing_or_wrong(fma: Path, name: str, content: str | None, message: str) -> None:
    file = fma / "fma_metadata" / name
    file.unlink() if content is None else put(file, content)
    with pytest.raises(ManifestError, match=message):
        load_source(fma)


def test_fma_without_its_audio_folder(fma: Path) -> None:
    shutil.rmtree(fma / "fma_large")
    with pytest.raises(ManifestError, match="none of fma_small, fma_medium, fma_large, fma_full next to fma_metadata"):
        load_source(fma)


# ---------------------------------------------------------------- folders by genre


@pytest.mark.parametrize("inner", ["", "genres", "Data/genres_original"])
def test_gtzan_is_recognised_by_file_names(tmp_path: Path, inner: str) -> None:
    for genre in ("blues", "hiphop"):
        for number in range(2):
            put(tmp_path / "gtzan" / inner / genre / f"{genre}.{number:05}.wav")
    put(tmp_path / "gtzan" / "features_30_sec.csv", "filename,tempo\n")
    source = load_source(tmp_path / "gtzan")
    assert [(t.id, t.genres) for t in source.tracks] == [
        ("blues/blues.00000.wav", ("blues",)),
        ("blues/blues.00001.wav", ("blues",)),
        ("hiphop/hiphop.00000.wav", ("hiphop",)),
        ("hiphop/hiphop.00001.wav", ("hiphop",)),
    ]
    assert all((source.root / track.path).is_file() for track in source.tracks)


def test_other_genre_folders_need_the_option(tmp_path: Path) -> None:
    put(tmp_path / "jazz" / "album" / "a.mp3")
    put(tmp_path / "rock" / "rock.live.mp3")
    assert [t.genres for t in load_source(tmp_path).tracks] == [(), ()]
    for requested in ({"genres_from_folders": True}, {"dataset": "genre-folders"}):
        assert [t.genres for t in load_source(tmp_path, **requested).tracks] == [("jazz",), ("rock",)]


# ---------------------------------------------------------------- recognition


def test_dataset_name_decides_and_missing_files_are_listed(tmp_path: Path, fma: Path) -> None:
    jamendo_labels(fma)
    with pytest.raises(ConfigError, match="matches mtg-jamendo and fma. Choose one with --dataset mtg-jamendo"):
        load_source(fma)
    assert len(load_source(fma, dataset="fma").tracks) == 4
    assert len(load_source(fma, dataset="audio-folder").tracks) == 4
    with pytest.raises(ConfigError, match="known are music4all, .*did you mean 'mtg-jamendo'"):
        load_source(fma, dataset="jamendo")
    for name in ("music4all", "table"):
        with pytest.raises(ManifestError, match=r"is not .*; expected: .*id"):
            load_source(fma, dataset=name)
    with pytest.raises(ManifestError, match="no such file or folder"):
        load_source(tmp_path / "none", dataset="fma")
    with pytest.raises(ConfigError, match="--genre-level goes with fma; this is read as a folder of audio"):
        load_source(fma / "fma_large" / "000", genre_level="own")
    with pytest.raises(ManifestError, match="the root is no folder"):
        load_source(fma, dataset="mtg-jamendo", root=tmp_path / "none")


def test_dataset_list_has_needs_and_terms(call: Any) -> None:
    listed = call("manifest", "--list", "--json").json["datasets"]
    assert [item["name"] for item in listed] == [item.name for item in DATASETS]
    assert all(item["needs"] and item["terms"] for item in listed)
    shown = call("manifest", "--list").out
    assert "mtg-jamendo: MTG-Jamendo" in shown
    assert "CC BY-NC-SA 4.0" in shown
    assert call("manifest").code == 2


def test_jamendo_to_a_store_and_its_split(call: Any, tmp_path: Path) -> None:
    jamendo_labels(tmp_path / "labels")
    jamendo_audio(tmp_path / "audio")
    done = call(
        "extract",
        tmp_path / "labels",
        "--root",
        tmp_path / "audio",
        "-o",
        tmp_path / "j.zarr",
        "--features",
        "mel",
        "--workers",
        0,
        "--max-failures",
        3,
        "--json",
    )
    assert (done.json["planned"], done.json["reasons"]) == (3, {"NOT_AUDIO": 3})
