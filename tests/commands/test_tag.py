"""``mgc tag``: tags of songs without training, and reasons for songs that cannot be read."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc import api
from mgc.pipeline.extractors import musicnn

needs_weights = pytest.mark.skipif(find_spec("musicnn") is None, reason=f"no weights: {musicnn.INSTALL}")


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Noise, a tone, and a text file with the name of a song."""
    folder = tmp_path / "songs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    soundfile.write(folder / "a noise.wav", 0.1 * rng.normal(size=5 * 16_000), 16_000)
    soundfile.write(folder / "b tone.wav", 0.3 * np.sin(np.arange(5 * 44_100) / 30), 44_100)
    (folder / "c.mp3").write_text("<html>404</html>")
    return folder


@needs_weights
def test_every_song_has_50_probabilities_or_a_reason(call, songs: Path, tmp_path: Path) -> None:
    done = call("tag", songs, "--json")
    assert done.code == 3
    noise, tone, text = done.json["predictions"]
    assert [Path(song["id"]).name for song in (noise, tone, text)] == ["a noise.wav", "b tone.wav", "c.mp3"]
    assert list(noise["scores"]) == list(musicnn.TAGS)
    assert noise["genres"] == [tag for tag, score in noise["scores"].items() if score >= 0.1]
    samples, _ = soundfile.read(songs / "a noise.wav", dtype="float32")
    expected = musicnn.tags(samples, 16_000)
    np.testing.assert_allclose(list(noise["scores"].values()), expected, atol=1e-4)
    assert not np.allclose(list(noise["scores"].values()), list(tone["scores"].values()), atol=0.01)
    assert (text["reason"], text["scores"]) == ("NOT_AUDIO", {})
    assert any("Million Song Dataset" in remark for remark in done.json["remarks"])
    assert call("tag", songs, "-o", tmp_path / "tags.csv").code == 3
    rows = list(csv.DictReader((tmp_path / "tags.csv").read_text().splitlines()))
    assert float(rows[0]["score: rock"]) == pytest.approx(noise["scores"]["rock"], abs=1e-4)
    assert call("tag", songs, "-o", tmp_path / "tags.jsonl").code == 3
    lines = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines] == [None, None, "NOT_AUDIO"]


@needs_weights
def test_threshold_selects_tags_and_failures_decide_the_exit_code(call, songs: Path) -> None:
    (song,) = api.tag([songs / "a noise.wav"], threshold=0.0).predictions
    assert song.genres == list(musicnn.TAGS)
    (song,) = api.tag([songs / "a noise.wav"], threshold=1.0).predictions
    assert song.genres == []
    assert call("tag", songs / "a noise.wav").code == 0
    assert call("tag", songs / "c.mp3").code == 2


def test_missing_weights_and_files_are_refused_before_anything_is_decoded(
    call, songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    musicnn.network.cache_clear()
    monkeypatch.setattr(musicnn, "find_spec", lambda name: None)
    done = call("tag", songs)
    assert (done.code, "pip install --no-deps musicnn==0.1.0" in done.err) == (2, True)
