"""The command line: what a user types, reads, and gets as an exit code."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.main import get_command

from mgc import cli
from mgc.cache.format.schema import Flag
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.hdf5_writer import only_writer
from mgc.commands import console
from mgc.heads.ablation.runs import names_of
from mgc.pipeline.sources.label_tables import genre_names
from mgc.pipeline.text.encoder import TextEncoder, embed_genres
from mgc.pipeline.text.models import find_text_model

GOOD = 5


def write_tone(path: Path, hz: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = np.arange(22_050) / 22_050
    soundfile.write(path, (0.3 * np.sin(2 * np.pi * hz * seconds)).astype(np.float32), 22_050)


@pytest.fixture
def table(tmp_path) -> Path:
    """Five tones, a missing file, a text named .wav and a path that leaves the folder; lyrics in the table."""
    rows = [
        {
            "id": f"tone{i}",
            "path": f"audio/{i}.wav",
            "genres": "rock|jazz" if i % 2 else "jazz",
            "artist": f"A{i}",
            "lyrics": "the same words" if i < 2 else "",
        }
        for i in range(GOOD)
    ]
    for i in range(GOOD):
        write_tone(tmp_path / "audio" / f"{i}.wav", 220 * (i + 1))
    (tmp_path / "audio" / "page.wav").write_text("<html>404</html>")
    rows += [
        {"id": "gone", "path": "audio/gone.wav", "genres": "rock"},
        {"id": "page", "path": "audio/page.wav", "genres": "rock"},
        {"id": "away", "path": "../../away.wav", "genres": "rock"},
    ]
    path = tmp_path / "songs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "path", "genres", "artist", "lyrics"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


EXTRACT = ("--workers", 0, "--genre-delimiter", "|", "--text-model", "minilm", "--clip-s", 1)


def test_extract_ends_every_track_ok_or_failed_with_a_reason_code(call, table, tmp_path):
    store = tmp_path / "s.zarr"
    done = call("extract", table, "-o", store, *EXTRACT, "--max-failures", 3, "--json")
    assert done.code == 0
    report = done.json
    assert {"planned", "ok", "failed", "pending", "reasons", "store", "seconds"} <= report.keys()
    assert (report["planned"], report["ok"], report["failed"], report["pending"]) == (8, 5, 3, 0)
    assert report["reasons"] == {"SRC_MISSING": 1, "NOT_AUDIO": 1, "PATH_ESCAPE": 1}
    failures = call("store", "failures", store, "--json").json["failures"]
    assert {row["id"]: row["reason"] for row in failures} == {
        "away": "PATH_ESCAPE",
        "gone": "SRC_MISSING",
        "page": "NOT_AUDIO",
    }
    lines = call("store", "failures", store, "--format", "csv").out.splitlines()
    assert lines[0] == "id,path,reason,detail,attempts"
    assert len(list(csv.DictReader(io.StringIO("\n".join(lines))))) == 3
    listed = call("store", "failures", store, "--format", "jsonl").out.splitlines()
    assert [json.loads(line)["id"] for line in listed] == ["away", "gone", "page"]
    assert str(tmp_path) not in "".join(str(row) for row in failures)
    info = call("store", "info", store, "--json").json
    assert info["genres"] == {"jazz": 5, "rock": 5}
    opened = FeatureStore.open(store)
    first, second = (opened.tracks.column("id").to_pylist().index(name) for name in ("tone0", "tone1"))
    np.testing.assert_array_equal(opened.read("lyrics", [first]), opened.read("lyrics", [second]))
    assert opened.tracks.column("lyrics_sha256")[first] == opened.tracks.column("lyrics_sha256")[second]


def test_extract_exits_with_3_above_max_failures_and_completes_the_store(call, table, tmp_path):
    done = call("extract", table, "-o", tmp_path / "s.zarr", *EXTRACT, "--features", "mel", "--max-failures", "5%")
    assert done.code == 3
    assert "planned 8 = ok 5 + failed 3" in done.out
    assert "3 of 8 tracks failed" in done.err
    assert len(FeatureStore.open(tmp_path / "s.zarr").ok_rows) == GOOD


def test_progress_without_a_terminal_is_a_line_at_start_and_end_and_per_interval(call, table, tmp_path, monkeypatch):
    def lines(name: str, every_s: float) -> list[str]:
        monkeypatch.setattr(console, "LOG_INTERVAL_S", every_s)
        done = call("extract", table, "-o", tmp_path / name, *EXTRACT, "--features", "mel", "--part-rows", 2)
        return [line for line in done.err.splitlines() if line.startswith("extract:")]

    first, last = lines("seldom", 1e6)
    assert first == "extract: 0 of 8"
    assert last.startswith("extract: 8 of 8, 3 failed; took ")
    first, *later = lines("always", 0)
    assert first == "extract: 0 of 8"
    assert list(dict.fromkeys(int(line.split()[1]) for line in later)) in ([2, 4, 6, 8], [0, 2, 4, 6, 8])
    assert all(re.search(r"; \S+ (s|min) (left|so far)$", line) for line in later[:-1])
    assert later[-1].startswith("extract: 8 of 8, 3 failed; took ")


def test_librosa_backend_is_in_the_recipe_and_agrees(call, table, tmp_path):
    for backend in ("fast", "librosa"):
        call("extract", table, "-o", tmp_path / backend, *EXTRACT, "--features", "mel", "--audio-backend", backend)
    fast, slow = (FeatureStore.open(tmp_path / backend) for backend in ("fast", "librosa"))
    assert slow.recipe.mel.backend == "librosa"
    assert fast.fingerprints["mel"] != slow.fingerprints["mel"]
    a, b = (store.read("mel", store.ok_rows).astype(np.float64) for store in (fast, slow))
    heard = b > b.max(axis=(1, 2), keepdims=True) - 80
    assert np.abs(a - b)[heard].max() < 0.05 + 2 * 0.016


def test_extract_refuses_other_tracks_than_those_of_the_plan(call, table, tmp_path):
    call("extract", table, "-o", tmp_path / "s.zarr", *EXTRACT, "--features", "mel")
    table.write_text(table.read_text().replace("tone3,", "tone9,").replace("A1", "B1"))
    done = call("extract", table, "-o", tmp_path / "s.zarr", *EXTRACT, "--features", "mel")
    assert done.code == 2
    assert "1 track only in the store: tone3" in done.err
    assert "1 track only in this command: tone9" in done.err
    assert "track tone1, artists: ['A1'] in the store, ['B1'] in this command" in done.err


def test_json_option_prints_one_document_on_stdout_and_remarks_on_stderr(call, table, tmp_path):
    done = call("manifest", table, "--genre-delimiter", "|", "-o", tmp_path / "out" / "m.jsonl", "--json")
    assert (done.json["tracks"], done.json["manifest"]) == (8, str(tmp_path / "out" / "m.jsonl"))
    assert done.json["genres"] == {"rock": 5, "jazz": 5}
    assert "8 tracks" in done.err
    assert f"--root {tmp_path}" in done.err
    again = call("manifest", tmp_path / "out" / "m.jsonl", "--root", tmp_path, "-o", tmp_path / "n.jsonl", "--quiet")
    assert again.err == ""
    first, second = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()] for name in ("out/m.jsonl", "n.jsonl")
    )
    assert first == second


def test_manifest_without_output_prints_counts_and_writes_nothing(call, table, tmp_path):
    found = call("manifest", table, "--genre-delimiter", "|", "--json").json
    assert found["tracks"] == GOOD + 3
    assert (found["artists"], found["with_lyrics"]) == (GOOD, 2)
    assert list(found["genres"].items()) == [("jazz", GOOD), ("rock", GOOD // 2 + 3)]
    shown = call("manifest", table, "--genre-delimiter", "|")
    assert f"{GOOD + 3} tracks, 2 with lyrics, by {GOOD} artists" in shown.out
    assert not list(tmp_path.glob("*.jsonl"))
    wrote = call("manifest", table, "--genre-delimiter", "|", "-o", tmp_path / "m.jsonl").out
    assert wrote == f"{shown.out}{GOOD + 3} tracks written to {tmp_path / 'm.jsonl'}\n"


def test_labels_without_a_file_or_column_are_refused_with_advice(call, table, tmp_path):
    golden, gone = Path(__file__).parents[1] / "cache" / "golden" / "golden.zarr", tmp_path / "gone.csv"
    strange = tmp_path / "strange.csv"
    strange.write_text("id,style\ntone0,rock\n")
    for command in (("manifest", table, "--genre-delimiter", "|"), ("train", golden, "-o", tmp_path / "run")):
        done = call(*command, "--labels", gone)
        assert done.code == 2
        assert f"--labels {gone}: no such file" in done.err
        done = call(*command, "--labels", strange)
        assert done.code == 2
        assert "no column 'genres'; columns found: 'id', 'style'. Rename the column" in done.err
    table.write_text(table.read_text().replace("genres", "style", 1))
    told = call("manifest", table).err
    assert "no column 'genres', but 'style'. Rename the column that contains the genres" in told


def test_manifest_in_a_parent_folder_of_its_audio_needs_no_root(call, table, tmp_path):
    (tmp_path / "deep").mkdir()
    inner = tmp_path / "deep" / "inner"
    inner.mkdir()
    write_tone(inner / "x.wav", 440)
    call("manifest", inner, "-o", tmp_path / "m.jsonl")
    done = call(
        "extract", tmp_path / "m.jsonl", "-o", tmp_path / "m.zarr", "--features", "mel", "--workers", 0, "--json"
    )
    assert done.json["ok"] == 1


def test_config_file_gives_defaults_and_unknown_keys_are_refused_with_the_nearest(call, table, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("features: mel\nclip_s: 1\nworkers: 0\ngenre-delimiter: '|'\nmax-failures: 50%\n")
    done = call("extract", table, "-o", tmp_path / "s.zarr", "--config", config, "--json")
    assert (done.code, done.json["ok"]) == (0, 5)
    assert FeatureStore.open(tmp_path / "s.zarr").recipe.mel.clip_s == 1
    config.write_text("worker: 0\n")
    done = call("extract", table, "-o", tmp_path / "t.zarr", "--config", config)
    assert done.code == 2
    assert "unknown key 'worker'; did you mean 'workers'?" in done.err
    config.write_text("- a\n")
    assert "Write lines such as `epochs: 20`." in call("extract", table, "-o", "x", "--config", config).err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("extract", "{tmp}/nowhere", "-o", "{tmp}/s"), "nowhere"),
        (("store", "info", "{tmp}"), "not a feature store"),
        (("evaluate", "{tmp}", "{tmp}"), "no trained model"),
        (("predict", "{tmp}", "{tmp}/x.mp3"), "no trained model"),
        (("extract", "{tmp}/songs.csv", "-o", "{tmp}/s"), "genre"),
        (("extract", "{tmp}/songs.csv", "-o", "{tmp}/s", "--max-failures", "some"), "a share such as 5%"),
        (("extract", "{tmp}/songs.csv", "--genre-delimiter", "|", "-o", "{tmp}/s", "--features", "chroma"), "Use mel"),
        (("extract", "{tmp}/audio", "-o", "{tmp}/s", "--features", "mel,genres"), "Add lyrics"),
        (
            ("manifest", "{tmp}/songs.csv", "--genre-delimiter", "|", "-o", "{tmp}/songs.csv"),
            "give it the suffix .jsonl",
        ),
        (("manifest", "{tmp}/songs.csv", "--genre-delimiter", "|", "-o", "/proc/no/such.jsonl"), "/proc/no"),
        (("train", "{tmp}/s", "-o", "{tmp}/r"), "not a feature store"),
    ],
)
def test_invalid_input_is_refused_with_advice_and_no_traceback(call, table, tmp_path, args, said):
    before = table.read_bytes()
    done = call(*(arg.format(tmp=tmp_path) for arg in args))
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert table.read_bytes() == before


def test_a_manifest_never_overwrites_the_table_it_is_read_from(call, table, tmp_path):
    call("manifest", table, "--genre-delimiter", "|", "-o", tmp_path / "m.jsonl")
    before = (tmp_path / "m.jsonl").read_bytes()
    done = call("manifest", tmp_path / "m.jsonl", "--limit", 1, "-o", tmp_path / "m.jsonl")
    assert done.code == 2
    assert "is the source of the tracks. Give the manifest another name." in done.err
    assert (tmp_path / "m.jsonl").read_bytes() == before


def test_sigterm_ends_an_extraction_within_ten_seconds_with_committed_work_kept(tmp_path):
    for i in range(40):
        write_tone(tmp_path / "audio" / f"{i:02}.wav", 200 + i)
    store = tmp_path / "s.zarr"
    command = [
        sys.executable,
        "-m",
        "mgc",
        "extract",
        tmp_path / "audio",
        "-o",
        store,
        "--features",
        "mel",
        "--workers",
        "1",
        "--part-rows",
        "1",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while not ((store / "commits").is_dir() and any((store / "commits").iterdir())):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    assert process.wait(timeout=30) == 143
    assert "finished parts are saved. Repeat the same command to continue." in process.communicate()[1]
    kept = len(FeatureStore.open(store).ok_rows)
    assert 1 <= kept < 40
    assert Flag.SHORT in Flag(
        FeatureStore.open(store).tracks.column("flags")[int(FeatureStore.open(store).ok_rows[0])].as_py()
    )


def test_verify_lists_damage_and_repair_keeps_takedowns(call, table, tmp_path):
    store, mel = tmp_path / "songs.zarr", ("--genre-delimiter", "|", "--features", "mel", "--workers", 0)
    assert call("extract", table, "-o", store, *mel, "--part-rows", 4, "--max-failures", "99%").code == 0
    whole = call("store", "verify", store, "--full")
    assert (whole.code, "no damage found" in whole.out) == (0, True)
    shard = store / "mel" / "c" / "1" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    found = call("store", "verify", store, "--json")
    assert found.code == 4
    (damage,) = found.json["damages"]
    assert (damage["kind"], damage["part"], damage["array"]) == ("altered", 1, "mel")
    assert damage["tracks"] == ["tone1", "tone2", "tone3", "tone4"]
    shown = call("store", "verify", store)
    assert "mgc store repair" in shown.out
    repaired = call("store", "repair", store, "--source", table, "--genre-delimiter", "|")
    assert (repaired.code, "1 part extracted again" in repaired.out) == (0, True)
    assert call("store", "verify", store, "--full").code == 0

    taken = call("store", "drop", store, "tone0", "tone3", "--json")
    assert taken.json["dropped"] == ["tone0", "tone3"]
    refused = call("store", "drop", store, "tone1", "nobody")
    assert (refused.code, "No track was taken down" in refused.err) == (2, True)
    assert call("store", "compact", store).out == "2 parts rewritten\n"
    assert call("extract", table, "-o", store, *mel, "--max-failures", 3).code == 0, "a takedown is no failure"
    assert call("extract", table, "-o", store, *mel, "--max-failures", 2).code == 3
    failures = call("store", "failures", store, "--json").json
    assert {row["id"]: row["reason"] for row in failures["failures"]} == {
        "away": "PATH_ESCAPE",
        "gone": "SRC_MISSING",
        "page": "NOT_AUDIO",
        "tone0": "DROPPED",
        "tone3": "DROPPED",
    }
    assert {row["name"]: (row["planned"], row["ok"]) for row in failures["coverage"]["genre"]} == {
        "rock": (5, 1),
        "jazz": (5, 3),
    }
    assert "genres with failed tracks" in call("store", "failures", store).out


def test_watch_ends_when_all_parts_are_committed(call, table, tmp_path):
    store = tmp_path / "songs.zarr"
    options = ("--genre-delimiter", "|", "--features", "mel", "--workers", 0, "--part-rows", 2, "--max-failures", "99%")
    call("extract", table, "-o", store, *options, "--shard", "1/2")
    look = [sys.executable, "-m", "mgc", "store", "info", store, "--watch", "--every", "0.2", "--json"]
    watcher = subprocess.Popen(look, stdout=subprocess.PIPE, text=True)
    first = json.loads(watcher.stdout.readline())
    assert (first["parts"], first["parts_done"]) == (4, 2)
    call("extract", table, "-o", store, *options, "--shard", "2/2")
    last = json.loads(watcher.communicate(timeout=60)[0].splitlines()[-1])
    assert (watcher.returncode, last["parts_done"], last["ok"], last["failed"]) == (0, 4, 5, 3)
    assert last["reasons"] == {"PATH_ESCAPE": 1, "SRC_MISSING": 1, "NOT_AUDIO": 1}
    assert "complete, 4 parts: ok 5, failed 3" in call("store", "info", store, "--watch").out


def test_sealed_store_is_created_extended_converted_and_verified(call, table, tmp_path):
    sealed, options = tmp_path / "songs.h5", ("--genre-delimiter", "|", "--features", "mel", "--workers", 0)
    first = call("extract", table, "-o", sealed, *options, "--max-failures", "99%", "--json").json
    assert (first["store"], first["ok"], first["failed"]) == (str(sealed), 5, 3)
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
    before = sealed.read_bytes()
    assert call("extract", table, "-o", sealed, *options, "--max-failures", "99%", "--json").json["parts_built"] == 0
    assert sealed.read_bytes() == before
    other = call("extract", table, "-o", sealed, *options, "--clip-s", 7)
    assert (other.code, f"the store differs from this command: {sealed}" in other.err) == (2, True)
    with only_writer(sealed):
        busy = call("extract", table, "-o", sealed, *options)
    assert (busy.code, "one writer" in busy.err) == (2, True)
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == [], "a refusal leaves nothing"
    attempts = {row["attempts"] for row in call("store", "failures", sealed, "--json").json["failures"]}
    assert attempts == {None}, "a sealed store has no log"
    write_tone(tmp_path / "audio" / "gone.wav", 500)
    again = call("extract", table, "-o", sealed, *options, "--retry-failed", "--max-failures", "99%", "--json").json
    assert (again["ok"], again["failed"]) == (6, 2)
    assert call("store", "verify", sealed).code == 0
    assert call("store", "info", sealed, "--json").json["ok"] == 6
    assert call("store", "convert", sealed, tmp_path / "songs.zarr").code == 0
    assert call("store", "verify", tmp_path / "songs.zarr", "--full").code == 0
    assert len(FeatureStore.open(tmp_path / "songs.zarr").ok_rows) == 6
    assert call("store", "convert", tmp_path / "songs.zarr", tmp_path / "other.txt").code == 2
    data = bytearray(sealed.read_bytes())
    data[len(data) // 2] ^= 1
    sealed.write_bytes(data)
    hurt = call("store", "verify", sealed, "--json")
    assert (hurt.code, hurt.json["damages"][0]["kind"]) == (4, "altered")
    again = call("extract", table, "-o", sealed, *options, "--max-failures", "99%", "--json")
    assert (again.code, again.json["parts_built"]) == (0, 0), "that nothing is missing is seen without reading arrays"


def test_failed_tracks_are_retried_and_attempts_counted(call, table, tmp_path):
    store, mel = tmp_path / "songs.zarr", ("--genre-delimiter", "|", "--features", "mel", "--workers", 0)
    assert call("extract", table, "-o", store, *mel, "--max-failures", "99%").code == 0
    write_tone(tmp_path / "audio" / "gone.wav", 500)
    again = call("extract", table, "-o", store, *mel, "--retry-failed", "--max-failures", "99%", "--json").json
    assert (again["planned"], again["ok"], again["failed"]) == (8, 6, 2)
    failures = call("store", "failures", store, "--json").json["failures"]
    assert {row["id"]: row["attempts"] for row in failures} == {"away": 2, "page": 2}
    watched = call("store", "info", store, "--watch", "--json").json
    assert (watched["planned"], watched["ok"], watched["failed"]) == (8, 6, 2), "a track tried again counts once"


@pytest.mark.parametrize("text", ["0/3", "4/3", "x", "1", "1/0", "-1/3"])
def test_invalid_shard_is_refused(call, table, tmp_path, text):
    done = call("extract", table, "-o", tmp_path / "s.zarr", f"--shard={text}")
    assert (done.code, "not I/N" in done.err) == (2, True)


def test_verbose_logs_each_part(call, table, tmp_path):
    options = ("--genre-delimiter", "|", "--features", "mel", "--workers", 0, "--part-rows", 4, "--max-failures", "99%")
    quiet = call("extract", table, "-o", tmp_path / "quiet.zarr", *options)
    loud = call("extract", table, "-o", tmp_path / "loud.zarr", *options, "-v")
    assert quiet.code == loud.code == 0
    assert "part 0" not in quiet.err
    assert "part 0: " in loud.err
    assert "part 1: " in loud.err
    assert "part 0" not in loud.out


def commands_of(group, before=()):
    """The words of every command, groups gone through."""
    for name, command in group.commands.items():
        words = (*before, name)
        yield from commands_of(command, words) if hasattr(command, "commands") else [words]


def test_help_of_every_command_has_an_example(call):
    found = list(commands_of(get_command(cli.app)))
    assert {("predict",), ("plan",), ("ablate",), ("store", "select")} <= set(found)
    for words in found:
        done = call(*words, "--help")
        assert done.code == 0
        examples = " ".join(done.out.partition("Example")[2].split())
        assert f"mgc {' '.join(words)}" in examples, words


def test_help_of_train_lists_every_option_of_the_configuration(call):
    from mgc.heads.config import MODEL_OPTIONS, TrainConfig

    told = call("train", "--help").out
    elsewhere = {
        "lambda_": "--lambda",
        "genres": "--genres-file",
        "contrastive": "--no-contrastive",
        "attention": "--no-attention",
        "model_options": "--set",
    }
    for field in dataclasses.fields(TrainConfig):
        flag = elsewhere.get(field.name, "--" + field.name.replace("_", "-"))
        assert flag in told or f"{field.name}=" in told, field.name
    for name in MODEL_OPTIONS:
        assert f"{name}=" in told, name
    assert told.count("reconstructed") >= 1


def test_settings_that_do_not_exist_are_refused_by_name(call, small_store, tmp_path):
    done = call("train", small_store.path, "-o", tmp_path / "r", "--set", "graph_similarty=raw")
    assert done.code == 2
    assert "did you mean 'graph_similarity'" in done.err
    (tmp_path / "c.yaml").write_text("set: [heads=two]\n")
    done = call("train", small_store.path, "-o", tmp_path / "r", "--config", tmp_path / "c.yaml")
    assert done.code == 2
    assert "heads is 'two'" in done.err


def test_version(call):
    from mgc import __version__

    assert call("--version").out.strip() == __version__


def test_genre_name_prompts_change_embeddings_and_are_in_the_recipe(call, table, tmp_path):
    plain, named, copied = (tmp_path / f"{name}.zarr" for name in ("plain", "named", "copied"))
    names = tmp_path / "names.tsv"
    names.write_text("genre\ttext\nrock\thard rock music\njazz\tjazz\npolka\tpolka dance\n")
    allowed = (*EXTRACT, "--max-failures", "99%")
    assert call("extract", table, "-o", plain, *allowed).code == 0
    assert call("extract", table, "-o", named, *allowed, "--genre-names", names).code == 0
    encoder = TextEncoder(find_text_model("minilm"), precision=FeatureStore.open(named).recipe.lyrics.precision)
    one, other = FeatureStore.open(plain), FeatureStore.open(named)
    assert other.recipe.genre_names == {"rock": "hard rock music", "polka": "polka dance"}
    np.testing.assert_array_equal(other.genre_embedding, embed_genres(encoder, ["jazz", "hard rock music"]))
    np.testing.assert_array_equal(one.genre_embedding[0], other.genre_embedding[0])
    differing = [name for name, of_one in one.fingerprints.items() if of_one != other.fingerprints[name]]
    assert differing == ["genre_embedding"]
    assert call("extract", table, "-o", named, *allowed, "--json").json["parts_built"] == 0
    refused = call("extract", table, "-o", plain, *allowed, "--genre-names", names)
    assert refused.code == 2
    assert "genre_names.rock: absent in the store, hard rock music in this command" in refused.err
    assert "mgc store select" in refused.err
    assert "hard rock music" in call("store", "info", named).out
    assert call("store", "verify", named, "--full").code == 0
    # The same from the finished store, with nothing extracted again.
    assert call("store", "select", plain, "--genre-names", names, "-o", copied).code == 0
    third = FeatureStore.open(copied)
    assert (third.recipe, third.fingerprints) == (other.recipe, other.fingerprints)
    np.testing.assert_array_equal(third.genre_embedding, other.genre_embedding)
    np.testing.assert_array_equal(third.read("lyrics", third.ok_rows), one.read("lyrics", one.ok_rows))
    assert names_of(one, third) == names_of(one, other) != names_of(one, one)  # `mgc ablate` learns from either
    assert call("store", "verify", copied, "--full").code == 0


def test_common_prompts_are_built_in_and_invalid_tables_are_refused(call, table, tmp_path):
    assert genre_names("common")["hiphop"] == "hip hop"
    assert not set(genre_names("common").values()) & set(genre_names("common"))  # nothing is read by a spelling
    names = tmp_path / "names.csv"
    for text, said in (
        ("genre,name\nrock,rock\n", "no column 'text'"),
        ("genre,text\nrock,a\nrock,b\n", "line 3: genre 'rock' is listed twice"),
        ("genre,text\nrock,\n", "column 'text' is empty"),
        ("genre,text\n", "lists no genre"),
    ):
        names.write_text(text)
        refused = call("extract", table, "-o", tmp_path / "s.zarr", *EXTRACT, "--genre-names", names)
        assert (refused.code, said in refused.err) == (2, True)
    refused = call(
        "extract", table, "-o", tmp_path / "s.zarr", *EXTRACT, "--features", "mel", "--genre-names", "common"
    )
    assert (refused.code, "genres are not embedded" in refused.err) == (2, True)
    assert not (tmp_path / "s.zarr").exists()
