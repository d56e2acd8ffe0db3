"""The examples recover the planted genres, artists and languages of a small store."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.worlds.songs_store import FAILED_SONG, N_SONGS, features
from mgc.cache.upkeep.hdf5_writer import seal_store

EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(name: str, store: Path) -> str:
        monkeypatch.setattr(sys, "argv", [name, str(store)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def figure(text: str, before: str) -> float:
    found = re.search(rf"{before}[^\n]*?: ([0-9.]+)", text)
    assert found, text
    return float(found[1])


def test_readme_lists_the_command_of_each_script() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^python examples/(\S+) (\S+)$", text, re.MULTILINE))
    assert lines == {path.name: "songs.h5" if "h5py" in path.name else "songs.zarr" for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize(("name", "form"), [("read_with_zarr.py", "zarr"), ("read_with_h5py.py", "h5")])
def test_plain_readers_do_not_import_mgc(run: Run, songs_store: Path, tmp_path: Path, name: str, form: str) -> None:
    assert not re.search(r"^\s*(import|from) mgc", (EXAMPLES / name).read_text(), re.MULTILINE)
    store = songs_store
    if form == "h5":
        seal_store(songs_store, store := tmp_path / "songs.h5")
    printed = run(name, store)
    lines = [line for line in printed.splitlines() if line.startswith("song")]
    assert len(lines) == N_SONGS
    for i, line in enumerate(lines):
        level = f"{features(i)['mel'].astype(np.float32).mean():.1f} dB"
        assert line.endswith("no features") if i == FAILED_SONG else level in line


def test_language_is_predicted_from_lyrics(run: Run, songs_store: Path) -> None:
    printed = run("language_from_lyrics.py", songs_store)
    assert "18 tracks with lyrics, 2 languages, 12 artists" in printed
    assert figure(printed, "accuracy") > 0.9 > figure(printed, "always the most frequent")


def test_artists_are_retrieved_from_audio(run: Run, songs_store: Path) -> None:
    printed = run("artist_retrieval.py", songs_store)
    assert "22 of 23 tracks have another track by the same artist" in printed
    assert figure(printed, "recall at 1") > 0.8
    assert "by chance 0.045" in printed  # one of 22 others


def test_genres_are_predicted_from_audio_but_not_from_lyrics(run: Run, songs_store: Path) -> None:
    printed = run("genre_probe.py", songs_store)
    by_frequency = figure(printed, "mean average precision of a guess")
    assert figure(printed, "mean average precision from audio") > 0.9
    assert figure(printed, "mean average precision from lyrics") < by_frequency + 0.25
