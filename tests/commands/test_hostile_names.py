"""Names from elsewhere that a terminal or a spreadsheet would obey: no command passes them on as they are."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from small_world import MEL, World
from source_files import put

from mgc.cache.format.recipe import Recipe

HOSTILE = "=a\x1b[2J\x1b]0;t\x07\x9b1m\u202eb\x7f"
OBEYED = frozenset("\x1b\x07\x9b\u202e\x7f\r")
FROZEN = Path(__file__).with_name("options.json")


class HostileWorld(World):
    """Every text of its store is hostile, the details of failures too."""

    def _outcomes(self, rows: range) -> list[dict[str, Any]]:
        return [
            outcome | ({"detail": f"{HOSTILE} detail"} if "detail" in outcome else {})
            for outcome in super()._outcomes(rows)
        ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and a folder of songs with hostile names; the commands add a run."""
    folder = tmp_path_factory.mktemp("hostile")
    tracks = [
        {
            "id": f"{HOSTILE}{i:04d}",
            "path": f"{HOSTILE}{i:04d}.wav",
            "artists": [f"{HOSTILE} artist {i // 2}"],
            "song": f"{HOSTILE} song",
            "genres": [f"{HOSTILE} {name}" for name in (("jazz", "rock") if i % 3 else ("jazz",))],
            "language": HOSTILE,
        }
        for i in range(40)
    ]
    HostileWorld(recipe=Recipe(mel=MEL, lyrics=None), tracks=tracks, failed={1, 5}).write(folder / "s.zarr").close()
    HostileWorld(tracks=tracks).write(folder / "text.zarr").close()
    for i in range(3):
        path = folder / "songs" / HOSTILE / f"{HOSTILE}{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.sin(np.arange(30_000) / 10), 22_050)
    put(folder / "songs" / f"{HOSTILE}page.mp3", f"<html>{HOSTILE}")
    put(folder / "songs" / f"{HOSTILE}.cue", "x")
    row = {"id": HOSTILE, "path": f"{HOSTILE}/{HOSTILE}0.wav", "artist": HOSTILE, "song": HOSTILE, "genres": [HOSTILE]}
    put(folder / "t.jsonl", json.dumps(row) + "\n" + json.dumps(row | {"id": "b", "split": HOSTILE}) + "\n")
    put(folder / "good.jsonl", json.dumps(row | {"genres": ["=1+2", "@x"], "language": HOSTILE}) + "\n")
    put(folder / "merge.csv", f'from,to\n"{HOSTILE}",b\n"b","{HOSTILE}c"\n')
    put(folder / "genres.txt", f"{HOSTILE} polka\n")
    return folder


SMALL = ("--encoder", "tiny", "--modalities", "audio", "--no-graph", "--no-attention", "--no-contrastive")
COMMANDS: Sequence[tuple[Sequence[str], int]] = (
    (("manifest", "songs", "-o", "m.jsonl"), 0),
    (("manifest", "songs", "--json"), 0),
    (("manifest", "t.jsonl", "--root", "songs"), 2),
    (("manifest", "good.jsonl", "--root", "songs"), 0),
    (("manifest", "songs", "--merge-genres", "merge.csv"), 2),
    (("manifest", "songs", "--dataset", HOSTILE), 2),
    (("manifest", HOSTILE), 2),
    (("plan", "songs", "--features", "mel", "--workers", "0", "--sample", "4"), 0),
    (("extract", "songs", "-o", "new.zarr", "--features", "mel", "--workers", "0", "--clip-s", "1", "-v"), 3),
    (("extract", "good.jsonl", "-o", "new.zarr", "--features", "mel", "--workers", "0", "--clip-s", "1"), 2),
    (("extract", "songs", "-o", HOSTILE + ".txt", "--features", HOSTILE), 2),
    (("cluster", "songs", "-o", "c.zarr", "--features", "mel", "--tasks", "1", "--hours", "1", "--memory-gb", "1"), 0),
    (("cluster", HOSTILE, "-o", "c.zarr"), 2),
    (("extractors",), 0),
    (("train", "s.zarr", "-o", "run", *SMALL, "--epochs", "1", "-v"), 0),
    (("train", "s.zarr", "-o", "run", "--dry-run", *SMALL), 0),
    (("train", "s.zarr", "-o", "other", "--genres-file", "genres.txt", *SMALL), 2),
    (("train", "s.zarr", "-o", "other", "--set", f"{HOSTILE}=1"), 2),
    (("evaluate", "run", "s.zarr"), 0),
    (("evaluate", "run", "s.zarr", "--split", "all", "--json"), 0),
    (("compare", "run", "run"), 0),
    (("ablate", "text.zarr", "-o", "ablation", "--dry-run", "--encoder", "tiny", "--tables", "systems"), 0),
    (("predict", "run", "s.zarr"), 0),
    (("predict", "run", "s.zarr", "--format", "csv"), 0),
    (("predict", "run", "s.zarr", "--format", "jsonl"), 0),
    (("predict", "run", "s.zarr", "-o", "scores.csv"), 0),
    (("predict", "run", "s.zarr", "--json"), 0),
    (("predict", "run", "songs"), 3),
    (("predict", "run", "songs", "--format", "csv"), 3),
    (("predict", "run", "songs", "--windows", "all"), 3),
    (("predict", "run", "songs", "--timeline", "timeline.html"), 3),
    (("predict", "run", "songs", "--timeline", f"{HOSTILE}.txt"), 2),
    (("predict", "run", f"{HOSTILE}.mp3"), 2),
    (("explain", "run", f"{HOSTILE}.mp3"), 2),
    (("explain", "run", "s.zarr", "--track", HOSTILE), 2),
    (("explain", "run", "s.zarr", "--track", f"{HOSTILE}0002", "-o", "explanation.html"), 0),
    (("tag", f"{HOSTILE}.mp3"), 2),
    (("tag", "songs", "--timeline", "tags.html"), 3 if find_spec("musicnn") else 2),
    (("embed", "run", "s.zarr", "-o", "v.parquet"), 0),
    (("embed", "run", "songs", "-o", f"{HOSTILE}.txt"), 2),
    (("similar", "v.parquet", f"{HOSTILE}0000"), 0),
    (("similar", "v.parquet", f"{HOSTILE}9999"), 2),
    (("report", "run", "--audio-root", "songs"), 0),
    (("report", "s.zarr"), 0),
    (("report", HOSTILE), 2),
    (("store", "info", "s.zarr"), 0),
    (("store", "info", "s.zarr", "--watch"), 0),
    (("store", "info", "s.zarr", "--json"), 0),
    (("store", "info", HOSTILE), 2),
    (("store", "copy", "s.zarr", "copy.zarr"), 0),
    (("store", "copy", HOSTILE, "copy.zarr"), 2),
    (("store", "failures", "s.zarr"), 0),
    (("store", "labels", "s.zarr", "--run", "run", "-o", "merge.csv"), 0),
    (("store", "labels", HOSTILE), 2),
    (("store", "failures", "s.zarr", "--format", "csv"), 0),
    (("store", "failures", "s.zarr", "--format", "jsonl"), 0),
    (("store", "failures", "new.zarr"), 0),
    (("store", "verify", "s.zarr", "--full"), 0),
    (("store", "duplicates", "s.zarr"), 0),
    (("store", "repair", "s.zarr"), 0),
    (("store", "repair", "new.zarr", "--source", "songs"), 0),
    (("store", "select", "s.zarr", "-o", "some.zarr", "--genre", f"{HOSTILE} rock"), 0),
    (("store", "select", "s.zarr", "-o", "none.zarr", "--genre", f"{HOSTILE} polka"), 2),
    (("store", "merge", "s.zarr", "some.zarr", "-o", "merged.zarr"), 2),
    (("store", "merge", "s.zarr", "some.zarr", "-o", "merged.zarr", "--prefix", HOSTILE, "--prefix", "b"), 0),
    (("store", "export", "s.zarr", "--to", "npy", "-o", HOSTILE + "npy"), 0),
    (("store", "export", "s.zarr", "--to", "parquet", "-o", "parquet", "--licence", HOSTILE), 0),
    (("store", "export", "s.zarr", "--to", "npy", "-o", "songs"), 2),
    (("store", "export", "s.zarr", "--to", "npy", "-o", "new", "--feature", HOSTILE), 2),
    (("store", "convert", "s.zarr", "s.h5"), 0),
    (("store", "drop", "s.zarr", f"{HOSTILE}9999"), 2),
    (("store", "drop", "s.zarr", f"{HOSTILE}0000"), 0),
    (("store", "drop", "s.zarr", "--feature", HOSTILE), 2),
    (("store", "compact", "s.zarr"), 0),
)


def test_commands_escape_control_characters_and_formulas(
    call: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "100")
    shown = 0
    for words, code in COMMANDS:
        done = call(*words)
        assert done.code == code, (words, done.out, done.err)
        assert not OBEYED & set(done.out + done.err), (words, done.out, done.err)
        assert "Traceback" not in done.err, words
        shown += "\\u001b[2J" in done.out + done.err
        if words == ("predict", "run", "songs"):
            assert "1 file without audio skipped" in done.err
        if words[-2:] == ("--format", "csv"):
            assert_no_formula(done.out)
        elif words[-1] == "--json":
            json.loads(done.out)
    assert shown >= 20, "the names are not shown, so nothing was tried"
    assert not OBEYED & set((place / "run" / "best" / "README.md").read_text(encoding="utf-8"))
    for page in place.glob("*.html"):
        assert not OBEYED & set(page.read_text(encoding="utf-8")), page
    text = (place / "scores.csv").read_text(encoding="utf-8")
    assert not OBEYED & set(text)
    assert_no_formula(text)
    ids = [json.loads(line)["id"] for line in call("predict", "run", "s.zarr", "--format", "jsonl").out.splitlines()]
    assert ids[0].startswith(HOSTILE), "a reader of JSON has the name as it is"


def assert_no_formula(text: str) -> None:
    rows = list(csv.reader(io.StringIO(text)))
    assert rows
    for cell in (cell for row in rows for cell in row):
        assert cell[:1] not in "=+-@\t\r" or not cell or is_number(cell), cell


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_every_command_is_tested_with_hostile_names() -> None:
    groups = {"mgc", "mgc store"}
    every = set(json.loads(FROZEN.read_text())) - groups - {"mgc demo"}  # the demo reads nothing
    tried = {" ".join(("mgc", *words[: 2 if words[0] == "store" else 1])) for words, _ in COMMANDS}
    assert tried == every
