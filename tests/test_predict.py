"""Songs named on standard input, and many of them."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mgc import api


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, songs_store: Path) -> Path:
    """A small model of sounds alone."""
    run = tmp_path_factory.mktemp("model") / "run"
    api.train(songs_store, run, options={"encoder": "tiny", "epochs": 1, "modalities": "audio", "split": "manifest"})
    return run


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Three tones of a second."""
    for i in range(3):
        tone = 0.3 * np.sin(2 * np.pi * 220 * (i + 1) * np.arange(22_050) / 22_050)
        soundfile.write(tmp_path / f"{i}.wav", tone.astype(np.float32), 22_050)
    return tmp_path


def test_a_list_on_standard_input_goes_on_over_files_that_are_not_there(
    model: Path, songs: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [str(songs / name) for name in ("2.wav", "gone.wav", "0.wav")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([names[0], "", *names[1:]]) + "\n"))
    done = call("predict", model, "-", "--format", "jsonl")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["id"], row["reason"]) for row in rows] == [
        (names[0], None), (names[1], "SRC_MISSING"), (names[2], None)
    ]  # fmt: skip
    alone = call("predict", model, names[2], "--json").json["predictions"][0]["scores"]
    assert rows[2]["scores"] == pytest.approx(alone, abs=1e-5)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert "standard input names no songs" in call("predict", model, "-").err


def test_many_songs_in_several_processes_get_the_scores_of_this_one(model: Path, songs: Path) -> None:
    many = songs / "many"
    many.mkdir()
    for i in range(api.MANY_SONGS):
        shutil.copyfile(songs / f"{i % 3}.wav", many / f"{i:02}.wav")
    spread = api.predict(model, [many])
    here = api.predict(model, [many], workers=0)
    assert len(spread.predictions) == api.MANY_SONGS
    assert [one.id for one in spread.predictions] == [one.id for one in here.predictions]
    for one, other in zip(spread.predictions, here.predictions, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-6)
