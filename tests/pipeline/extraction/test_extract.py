"""Extraction without the command line: workers, parts, and isolation of failed tracks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import xarray
import zarr
from keywords import extract

from mgc.cache.errors import ConfigError, MgcError, RecipeMismatchError, TextModelError
from mgc.cache.format import plan as plan_format
from mgc.cache.format.plan import read_plan
from mgc.cache.format.recipe import MelRecipe, Recipe
from mgc.cache.format.records import read_part
from mgc.cache.format.schema import Flag
from mgc.cache.reading.store import FeatureStore
from mgc.cache.writing.commits import commit_part
from mgc.pipeline.extraction.builder import PartJob
from mgc.pipeline.extraction.part import build_and_commit, claim
from mgc.pipeline.sources.manifest import Source, Track, write_manifest
from mgc.pipeline.text.encoder import TextEncoder, TextSource, text_recipe
from mgc.pipeline.text.models import find_text_model

MEL = MelRecipe(clip_s=1.0)


def tones(folder: Path, n: int) -> Source:
    tracks = []
    for i in range(n):
        t = np.arange(22_050) / 22_050
        soundfile.write(folder / f"{i}.wav", (0.2 * np.sin(2 * np.pi * (200 + 50 * i) * t)).astype(np.float32), 22_050)
        tracks.append(Track(id=f"t{i}", path=f"{i}.wav", genres=("rock",)))
    return Source(root=folder, tracks=tracks)


def tree(store: Path) -> dict[str, bytes | None]:
    paths = [path for path in sorted(store.rglob("*")) if path.relative_to(store).parts[0] != "log"]
    return {str(path.relative_to(store)): path.read_bytes() if path.is_file() else None for path in paths}


def test_dask_workers_and_this_process_make_the_same_store(tmp_path):
    source = tones(tmp_path, 7)
    recipe = Recipe(mel=MEL, lyrics=None)
    counts = []
    for name, workers in (("here", 0), ("dask", 2)):
        report = extract(
            source,
            tmp_path / name,
            recipe=recipe,
            text=None,
            part_rows=2,
            workers=workers,
            on_progress=lambda *report: counts.append(report[1]),
        )
        assert (report.ok, report.parts_built) == (7, 4)
    assert tree(tmp_path / "here") == tree(tmp_path / "dask")
    assert counts[-1] == 7
    assert len(list((tmp_path / "dask" / "log").iterdir())) in (1, 2)


def test_resume_builds_only_pending_parts(tmp_path):
    source = tones(tmp_path, 6)
    recipe = Recipe(mel=MEL, lyrics=None)

    class StopError(Exception):
        pass

    def stop(step, done, total, note=""):
        if done == 4:
            raise StopError

    with pytest.raises(StopError):
        extract(source, tmp_path / "s", recipe=recipe, text=None, part_rows=2, on_progress=stop)
    assert len(FeatureStore.open(tmp_path / "s").ok_rows) == 4
    report = extract(source, tmp_path / "s", recipe=recipe, text=None, part_rows=2)
    assert (report.ok, report.parts_built) == (6, 1)
    extract(source, tmp_path / "whole", recipe=recipe, text=None, part_rows=2)
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")


def test_appended_tracks_start_at_a_new_part_and_touch_nothing(tmp_path):
    source, recipe = tones(tmp_path, 7), Recipe(mel=MEL, lyrics=None)
    store, some = tmp_path / "s", Source(root=tmp_path, tracks=tones(tmp_path, 7).tracks[1:4])
    extract(some, store, recipe=recipe, text=None, part_rows=2)
    before = tree(store)
    with pytest.raises(RecipeMismatchError, match=r"4 tracks only in this command: t0, t4, t5, t6\n.*with --append"):
        extract(source, store, recipe=recipe, text=None)
    report = extract(source, store, recipe=recipe, text=None, append=True)
    assert (report.planned, report.ok, report.parts_built) == (7, 7, 2)
    assert {key: value for key, value in tree(store).items() if key in before and "zarr.json" not in key} == {
        key: value for key, value in before.items() if "zarr.json" not in key
    }
    opened = FeatureStore.open(store)
    assert opened.tracks.column("id").to_pylist() == ["t1", "t2", "t3", "t0", "t4", "t5", "t6"]
    assert opened.tracks.column("row").to_pylist() == [0, 1, 2, 4, 5, 6, 7]
    assert opened.status.tolist() == [1, 1, 1, 0, 1, 1, 1, 1]
    whole = tmp_path / "whole"
    extract(source, whole, recipe=recipe, text=None, part_rows=2)
    np.testing.assert_array_equal(
        opened.read("mel", [4, 0, 1, 2, 5, 6, 7]), FeatureStore.open(whole).read("mel", range(7))
    )
    assert extract(source, store, recipe=recipe, text=None).parts_built == 0
    assert extract(some, store, recipe=recipe, text=None, append=True).parts_built == 0
    group = zarr.open_group(store, mode="r")
    assert group["mel"].shape[0] == 8
    assert xarray.open_zarr(store, chunks=None).sizes["track"] == 8


def test_retry_uses_new_rows_and_counts_each_track_once(tmp_path):
    source, recipe = tones(tmp_path, 5), Recipe(mel=MEL, lyrics=None)
    whole = (tmp_path / "3.wav").read_bytes()
    (tmp_path / "3.wav").unlink()
    (tmp_path / "1.wav").write_bytes(b"")
    first = extract(source, tmp_path / "s", recipe=recipe, text=None, part_rows=2)
    assert (first.planned, first.ok, first.reasons) == (5, 3, {"SRC_MISSING": 1, "EMPTY": 1})
    assert extract(source, tmp_path / "s", recipe=recipe, text=None).parts_built == 0
    (tmp_path / "3.wav").write_bytes(whole)
    again = extract(source, tmp_path / "s", recipe=recipe, text=None, retry_failed=True)
    assert (again.planned, again.ok, again.failed, again.parts_built) == (5, 4, 1, 1)
    opened = FeatureStore.open(tmp_path / "s")
    assert opened.tracks.column("id").to_pylist() == ["t0", "t1", "t2", "t3", "t4", "t1", "t3"]
    assert opened.newest.tolist() == [True, False, True, False, True, True, True]
    assert opened.ok_rows.tolist() == [0, 2, 4, 7]
    third = extract(source, tmp_path / "s", recipe=recipe, text=None, retry_failed=True)
    assert (third.ok, third.failed, third.parts_built) == (4, 1, 1)


def test_interrupted_retry_is_completed_not_restarted(tmp_path):
    source, recipe = tones(tmp_path, 6), Recipe(mel=MEL, lyrics=None)
    for i in range(6):
        (tmp_path / f"{i}.wav").write_bytes(b"")
    extract(source, tmp_path / "s", recipe=recipe, text=None, part_rows=2)

    class StopError(Exception):
        pass

    def stop(step, done, total, note=""):
        if done == 8:
            raise StopError

    with pytest.raises(StopError):
        extract(source, tmp_path / "s", recipe=recipe, text=None, retry_failed=True, on_progress=stop)
    report = extract(source, tmp_path / "s", recipe=recipe, text=None, retry_failed=True)
    assert (report.planned, report.failed, report.parts_built) == (6, 6, 2)
    assert len(read_plan(tmp_path / "s").generations) == 2


def test_concurrent_extractions_share_the_parts(tmp_path):
    source, recipe = tones(tmp_path, 40), Recipe(mel=MEL, lyrics=None)
    script = "import sys; from mgc.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        script,
        "extract",
        tmp_path / "songs.jsonl",
        "-o",
        tmp_path / "s",
        "--features",
        "mel",
        "--clip-s",
        "1",
        "--part-rows",
        "1",
        "--workers",
        "0",
        "--json",
    ]
    write_manifest(source, tmp_path / "songs.jsonl")
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    reports = [json.loads(process.communicate(timeout=300)[0]) for process in both]
    assert [report["ok"] for report in reports] == [40, 40]
    built = [report["parts_built"] for report in reports]
    assert 40 <= sum(built) <= 44
    assert min(built) >= 4, "one process built no part"
    extract(source, tmp_path / "alone", recipe=recipe, text=None, part_rows=1)
    assert tree(tmp_path / "s") == tree(tmp_path / "alone")


def test_shards_of_a_job_array_make_the_store_of_one(tmp_path):
    source, recipe = tones(tmp_path, 7), Recipe(mel=MEL, lyrics=None)
    extract(source, tmp_path / "alone", recipe=recipe, text=None, part_rows=1)
    built = [extract(source, tmp_path / "s", recipe=recipe, text=None, part_rows=1, shard=(i, 3)) for i in (3, 1, 2)]
    assert [report.parts_built for report in built] == [2, 3, 2]
    assert [report.pending for report in built] == [5, 2, 0]
    assert tree(tmp_path / "s") == tree(tmp_path / "alone")


@pytest.mark.parametrize("owner", ["dead", "alive", "elsewhere"])
def test_commit_succeeds_without_or_against_a_claim(tmp_path, owner):
    source, recipe = tones(tmp_path, 1), Recipe(mel=MEL, lyrics=None)
    with pytest.raises(KeyboardInterrupt):
        extract(source, tmp_path / "s", recipe=recipe, text=None, on_progress=interrupt)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    who = {
        "dead": (socket.gethostname(), ended.pid),
        "alive": (socket.gethostname(), os.getpid()),
        "elsewhere": ("another-host", 1),
    }[owner]
    (tmp_path / "s" / "staging").mkdir()
    file = tmp_path / "s" / "staging" / "commits+0~claim"
    file.write_text(json.dumps({"host": who[0], "pid": who[1], "id": "x"}))
    with claim(tmp_path / "s", 0) as claimed:
        assert claimed == (owner == "dead")
    if owner == "elsewhere":
        os.utime(file, (0, 0))
        with claim(tmp_path / "s", 0) as claimed:
            assert claimed
    if owner == "alive":
        file.unlink()
    assert extract(source, tmp_path / "s", recipe=recipe, text=None).ok == 1
    assert not (tmp_path / "s" / "staging").exists()


def interrupt(*progress):
    raise KeyboardInterrupt


def test_part_rows_cannot_change_and_other_files_are_not_overwritten(tmp_path):
    source = tones(tmp_path, 2)
    recipe = Recipe(mel=MEL, lyrics=None)
    extract(source, tmp_path / "s", recipe=recipe, text=None, part_rows=2)
    with pytest.raises(RecipeMismatchError, match="part_rows: 2 in the store, 1 in this command"):
        extract(source, tmp_path / "s", recipe=recipe, text=None, part_rows=1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(ConfigError, match="not empty and not a feature store"):
        extract(source, tmp_path / "photos", recipe=recipe, text=None)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    with pytest.raises(ConfigError, match="a file has the name of the store"):
        extract(source, tmp_path / "0.wav", recipe=recipe, text=None)
    with pytest.raises(ConfigError, match="no tracks to extract"):
        extract(Source(root=tmp_path, tracks=[]), tmp_path / "none", recipe=recipe, text=None)


def test_damaged_lyrics_do_not_fail_the_track(tmp_path):
    source = tones(tmp_path, 5)
    (tmp_path / "good.txt").write_text("words of a song")
    (tmp_path / "bad.txt").write_bytes(b"\x81\x8d\x00\xff" * 20)
    (tmp_path / "empty.txt").write_text(" \n")
    paths = ["good.txt", "bad.txt", "empty.txt", "../outside.txt", "nowhere.txt"]
    tracks = [
        Track(id=track.id, path=track.path, lyrics_path=path) for track, path in zip(source.tracks, paths, strict=True)
    ]
    files = find_text_model("minilm")
    recipe = Recipe(mel=MEL, lyrics=text_recipe(files))
    store = tmp_path / "s"
    extract(Source(root=tmp_path, tracks=tracks), store, recipe=recipe, text=TextSource(model="minilm"))
    opened = FeatureStore.open(store)
    assert opened.ok_rows.tolist() == [0, 1, 2, 3, 4]
    flags = [Flag(bits) for bits in opened.tracks.column("flags").to_pylist()]
    wanted = [Flag(0), Flag.LYRICS_FAILED, Flag.EMPTY_LYRICS, Flag.LYRICS_FAILED, Flag.NO_LYRICS]
    text_flags = Flag.LYRICS_FAILED | Flag.EMPTY_LYRICS | Flag.NO_LYRICS
    assert [result & text_flags for result in flags] == wanted
    assert opened.read("lyrics_tokens", [0]).tolist() == [6]
    assert opened.read("lyrics_tokens", [1, 2, 3, 4]).tolist() == [0, 0, 0, 0]
    assert np.isnan(opened.read("lyrics_pooled", [1])).all()


def test_failed_audio_clears_its_lyrics_and_changes_no_other_bytes(tmp_path, monkeypatch):
    """The plan and the lyrics alone decide which texts are encoded together."""
    tracks = [
        Track(id=track.id, path=track.path, lyrics=words)
        for track, words in zip(
            tones(tmp_path, 4).tracks, ["a song", "words " * 40, "a song", "more words"], strict=True
        )
    ]
    source, recipe = (
        Source(root=tmp_path, tracks=tracks),
        Recipe(mel=MEL, lyrics=text_recipe(find_text_model("minilm"))),
    )
    requested: list[list[str]] = []

    def spied(encoder, texts, run=TextEncoder.encode_all):
        requested.append(texts)
        return run(encoder, texts)

    monkeypatch.setattr(TextEncoder, "encode_all", spied)
    extract(source, tmp_path / "whole", recipe=recipe, text=TextSource(model="minilm"))
    (tmp_path / "1.wav").write_bytes(b"")
    report = extract(source, tmp_path / "damaged", recipe=recipe, text=TextSource(model="minilm"))
    assert report.reasons == {"EMPTY": 1}
    assert requested == [["a song", ("words " * 40).strip(), "more words"]] * 2  # a repeated text is encoded once
    whole, damaged = FeatureStore.open(tmp_path / "whole"), FeatureStore.open(tmp_path / "damaged")
    for name in ("lyrics", "lyrics_pooled", "lyrics_tokens"):
        np.testing.assert_array_equal(whole.read(name, [0, 2, 3]), damaged.read(name, [0, 2, 3]))
        np.testing.assert_array_equal(whole.read(name, [0]), whole.read(name, [2]))
        assert whole.read(name, [1]).any()
    raw = zarr.open_group(tmp_path / "damaged", mode="r")
    assert not raw["lyrics"][1].any()
    assert np.isnan(raw["lyrics_pooled"][1]).all()
    assert raw["lyrics_tokens"][1] == 0
    assert damaged.tracks.column("lyrics_sha256").to_pylist()[1] is None


def test_long_lyrics_and_missing_labels_are_flagged(tmp_path):
    source = tones(tmp_path, 2)
    tracks = [
        Track(id="endless", path="0.wav", genres=("rock",), lyrics="love " * 10_000),
        Track(id="unlabelled", path="1.wav", lyrics="love"),
    ]
    recipe = Recipe(mel=MEL, lyrics=text_recipe(find_text_model("minilm")))
    extract(Source(root=source.root, tracks=tracks), tmp_path / "s", recipe=recipe, text=TextSource(model="minilm"))
    store = FeatureStore.open(tmp_path / "s")
    flags = [Flag(bits) & (Flag.LYRICS_TRUNCATED | Flag.NO_LABEL) for bits in store.tracks.column("flags").to_pylist()]
    assert flags == [Flag.LYRICS_TRUNCATED, Flag.NO_LABEL]
    assert store.read("lyrics_tokens", [0, 1]).tolist() == [512, 3]
    assert store.read("lyrics_tokens_full", [0, 1]).tolist() == [10_002, 3]
    assert store.ok_rows.tolist() == [0, 1]


def test_another_encoder_than_the_recipes_is_refused(tmp_path):
    source = tones(tmp_path, 1)
    (tmp_path / "0.txt").write_text("words")
    track = Track(id="t0", path="0.wav", lyrics_path="0.txt")
    result = text_recipe(find_text_model("minilm"))
    wanted = type(result)(**{**vars(result), "weights_sha256": "0" * 64})
    with pytest.raises(TextModelError, match="another encoder than minilm"):
        extract(
            Source(root=source.root, tracks=[track]),
            tmp_path / "s",
            recipe=Recipe(mel=MEL, lyrics=wanted),
            text=TextSource(model="minilm"),
        )
    assert issubclass(TextModelError, MgcError)


def test_a_part_reads_the_plan_twice_to_build_and_to_commit(tmp_path, monkeypatch):
    """Each reading checks every generation. The second one sees whether a feature set was removed meanwhile."""
    source, recipe, store = tones(tmp_path, 4), Recipe(mel=MEL, lyrics=None), tmp_path / "s"
    extract(source, store, recipe=recipe, text=None, part_rows=2, shard=(10**9, 10**9))
    read: list[str] = []
    read_record = plan_format.read_record
    monkeypatch.setattr(plan_format, "read_record", lambda store, key: read.append(key) or read_record(store, key))
    for part in range(2):
        read.clear()
        build_and_commit(PartJob(store=store, part=part, root=tmp_path, text=None))
        assert read.count("plan.json") == 2
    plan = read_plan(store)
    arrays, outcomes = read_part(store, plan, 0)
    read.clear()
    commit_part(store, 0, arrays, outcomes, plan=plan, new_version=True)
    assert read.count("plan.json") == 1
    assert len(FeatureStore.open(store).ok_rows) == 4
