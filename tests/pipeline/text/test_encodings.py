"""Lyrics in legacy encodings: correct text, a flag, or a failure; never silently wrong text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from keywords import extract, filter_tracks

from benchmarks.worlds.multilingual import ENCODINGS, LINES, encode
from mgc.cache.errors import ConfigError
from mgc.cache.format.recipe import Recipe
from mgc.cache.format.schema import Flag
from mgc.cache.reading.store import FeatureStore
from mgc.heads.evaluation.predict_options import PredictOptions
from mgc.pipeline.sources.datasets import load_source, songs_source
from mgc.pipeline.sources.manifest import Source, Track
from mgc.pipeline.sources.options import SourceOptions
from mgc.pipeline.text import encodings
from mgc.pipeline.text.encoder import TextSource, text_recipe
from mgc.pipeline.text.encodings import decode_strictly
from mgc.pipeline.text.lyrics import load_lyrics, read_lyrics
from mgc.pipeline.text.models import find_text_model

PAIRS = [(language, encoding) for language, names in ENCODINGS.items() for encoding in names]
SAME = str.maketrans("\uff5e\uff0d", "\u301c\u2212")
"""Characters that cp932 and shift_jis decode in two ways."""


def outcome(text: str, encoding: str) -> str:
    """Return the outcome of a text: ``exact``, ``flagged``, ``failed`` or ``wrong``."""
    read = read_lyrics(encode(text, encoding))
    if read.text is None:
        assert read.flags == Flag.LYRICS_FAILED
        return "failed"
    if read.flags & Flag.ENCODING_DOUBTFUL:
        return "flagged"
    return "exact" if read.text.translate(SAME) == read_lyrics(text).text else "wrong"


def encodable(text: str, encoding: str) -> bool:
    try:
        encode(text, encoding)
    except UnicodeEncodeError:
        return False
    return True


def is_utf_8(data: bytes) -> bool:
    """Whether bytes are valid UTF-8, if only by chance, as the two letters of a shorter text may be."""
    return decode_strictly(data, "utf-8") is not None


def test_encodings_of_songs_are_detected_or_failed() -> None:
    songs = {language: "\n".join(lines) for language, lines in LINES.items()}
    pairs = [pair for pair in PAIRS if encodable(songs[pair[0]], pair[1])]
    outcomes = {(language, encoding): outcome(songs[language], encoding) for language, encoding in pairs}
    assert len({language for language, _ in outcomes}) >= 30
    assert len({encoding for _, encoding in outcomes}) >= 30
    counts = Counter(outcomes.values())
    assert counts["wrong"] == 0
    assert counts["exact"] >= 0.97 * len(outcomes)
    assert {pair for pair, what in outcomes.items() if what == "failed"} == set()


def test_single_lines_are_read_exactly_flagged_or_failed() -> None:
    lines = [(line, encoding) for language, encoding in PAIRS for line in LINES[language] if encodable(line, encoding)]
    counts = Counter(outcome(line, encoding) for line, encoding in lines)
    assert counts["wrong"] == 0
    assert counts["exact"] >= 0.75 * len(lines)
    assert counts["failed"] <= 0.05 * len(lines)


@pytest.mark.parametrize("language", LINES)
def test_first_words_of_a_song_are_never_misread(language: str) -> None:
    for encoding in ENCODINGS[language]:
        for line in LINES[language]:
            words = " ".join(line.split()[:2])[:8]
            if encodable(words, encoding) and not is_utf_8(encode(words, encoding)):
                read = read_lyrics(encode(words, encoding))
                is_right = read.text is None or read.text.translate(SAME) == read_lyrics(words).text
                assert is_right or read.flags & Flag.ENCODING_DOUBTFUL, (words, encoding, read)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_utf_16_and_utf_32_without_a_mark(encoding: str) -> None:
    for lines in LINES.values():
        text = "\n".join(lines)
        assert read_lyrics(text.encode(encoding)) == read_lyrics("\ufeff".encode(encoding) + text.encode(encoding))
        assert read_lyrics(text.encode(encoding)).text == read_lyrics(text).text


@pytest.mark.parametrize(("language", "encoding"), PAIRS)
def test_given_encoding_is_used(language: str, encoding: str) -> None:
    for text in ["\n".join(LINES[language]), *LINES[language]]:
        if encodable(text, encoding):
            read = read_lyrics(encode(text, encoding), encoding=encoding)
            assert read.text == read_lyrics(encode(text, encoding).decode(encoding)).text
            assert not read.flags & (Flag.ENCODING_DOUBTFUL | Flag.LYRICS_FAILED)


def test_given_encoding_keeps_utf_8_and_fails_on_mismatch() -> None:
    russian = LINES["Russian"][0]
    assert read_lyrics(russian.encode(), encoding="cp1251") == read_lyrics(russian)
    assert read_lyrics(b"plain words", encoding="cp1251").flags == Flag(0)
    assert read_lyrics(b"plain words", encoding="UTF-16").text == "plain words"
    assert read_lyrics(("\ufeff" + russian).encode("utf-16-le"), encoding="cp1251").text == russian
    assert read_lyrics(russian.encode("utf-16-le"), encoding="utf-16-le").text == russian
    assert read_lyrics(russian.encode("utf-7"), encoding="utf-7").text == russian
    assert read_lyrics(russian.encode("cp1251"), encoding="utf-8").flags == Flag.LYRICS_FAILED
    assert read_lyrics(b"\x81\xff\xff", encoding="shift_jis").flags == Flag.LYRICS_FAILED


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 4,
        b"\x1b$B\x7f\x7f",
        b"words \x00\x01\x02 and \x03\x04 bytes",
        "Գիշերը գետի վրա լույսեր են լողում".encode("utf-16-be")[1:],
        "\n".join(LINES["Spanish"]).encode("cp037"),
        bytes(byte for i in range(400) for byte in (0x80 + i * 7 % 128, 0x80 + i * 31 % 128)),
    ],
)
def test_binary_lyrics_fail(data: bytes) -> None:
    assert read_lyrics(data).flags == Flag.LYRICS_FAILED


def test_repeated_lines_count_once() -> None:
    few, many = (read_lyrics((LINES["Dutch"][1][:14] + "\n").encode("mac_roman") * n) for n in (1, 500))
    assert few.flags == many.flags


@pytest.mark.parametrize("text", ["ночь " * 200_000, "\n".join(f"ночь {i}" for i in range(60_000)), "я" * 1_000_000])
def test_work_of_detection_is_bounded(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    class Counted(encodings._Sample):
        def __init__(self, text: str, encoding: str) -> None:
            lengths.append(len(text))
            super().__init__(text, encoding)

    monkeypatch.setattr(encodings, "_Sample", Counted)
    encodings.decode_legacy(text.encode("cp1251"))
    assert max(lengths) <= encodings.SAMPLE_BYTES


def test_an_unknown_encoding_is_refused() -> None:
    for name in ("cp12515", "hex", "", "a\0b", "undefined"):
        for kind in (SourceOptions, PredictOptions):
            with pytest.raises(ConfigError, match="lyrics_encoding is .*unknown encoding. Use a name such as cp1251"):
                kind(lyrics_encoding=name)
    assert SourceOptions(lyrics_encoding="Shift_JIS").lyrics_encoding == "Shift_JIS"


def test_the_option_reaches_filters_songs_and_the_store(tmp_path: Path) -> None:
    line = "Őszi szél"  # the encoding of two words cannot be detected
    (tmp_path / "a.txt").write_bytes(line.encode("cp1250"))
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    assert load_lyrics(tmp_path / "a.txt").flags & (Flag.ENCODING_DOUBTFUL | Flag.LYRICS_FAILED)
    assert load_lyrics(tmp_path / "a.txt", encoding="cp1250").text == line
    assert songs_source([tmp_path / "a.wav"], lyrics_encoding="cp1250").lyrics_encoding == "cp1250"
    assert load_source(tmp_path, SourceOptions(lyrics_encoding="cp1250")).lyrics_encoding == "cp1250"
    (tmp_path / "b.txt").write_bytes(b"\xff\xff")
    tracks = [Track(id="b", path="b.wav", lyrics_path="b.txt")]
    kept, _ = filter_tracks(tracks, root=tmp_path, require_lyrics=True, lyrics_encoding="cp1251")
    assert kept == tracks

    source = Source(root=tmp_path, tracks=[Track(id="a", path="a.wav", lyrics_path="a.txt")], lyrics_encoding="cp1250")
    recipe = Recipe(mel=None, lyrics=text_recipe(find_text_model("minilm")))
    extract(source, tmp_path / "s", recipe=recipe, text=TextSource(model="minilm"), features=("lyrics",))
    with FeatureStore.open(tmp_path / "s") as store:
        assert store.tracks.column("lyrics_sha256").to_pylist() == [read_lyrics(line).sha256]
