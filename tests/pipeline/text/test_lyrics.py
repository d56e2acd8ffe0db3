"""Lyrics from bytes: decoding, cleaning by rule 1, and non-text input."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mgc.cache.format.schema import Flag
from mgc.pipeline.text.lyrics import MAX_LYRICS_BYTES, clean_lyrics, load_lyrics, read_lyrics

NONE = Flag(0)
WORD = st.text("abcdefghij' \n\u00e9\u4f60", min_size=1, max_size=8)
MARKUP = st.sampled_from(
    [
        "<br>",
        "<b>",
        "</b>",
        "<p class='x'>",
        "&amp;",
        "&lt;",
        "&gt;",
        "&lt;b&gt;",
        "&amp;lt;",
        "<",
        ">",
        "&",
        ";",
        "amp",
        "<!--",
        "-->",
        "<script>",
        "</script>",
        "<3",
        "\0",
        "\x85",
        "\u200b",
        "\r",
        "\u0301",
        "#38",
        "\ud800",
        "&#0;",
    ]
)


@pytest.mark.parametrize(
    ("data", "text", "flags"),
    [
        (b"la la", "la la", NONE),
        ("ça va\n".encode(), "ça va", NONE),
        ("cafe\u0301".encode(), "caf\u00e9", NONE),
        (b"\xef\xbb\xbfla", "la", Flag.TEXT_RECODED),
        ("\ufeffné".encode("utf-16-le"), "né", Flag.TEXT_RECODED),
        ("\ufeffné".encode("utf-16-be"), "né", Flag.TEXT_RECODED),
        ("\ufeffné".encode("utf-32-le"), "né", Flag.TEXT_RECODED),
        ("\ufeffné".encode("utf-32-be"), "né", Flag.TEXT_RECODED),
        ("don’t – né".encode("cp1252"), "don’t – né", Flag.TEXT_RECODED),
        (b"Stra\xdfe <br>\xe9", "Straße\né", Flag.TEXT_RECODED | Flag.TEXT_CLEANED),
        (b"\x81\x8d\xff", None, Flag.LYRICS_FAILED),  # undefined in Windows-1252
        (b"\xff\xfea", None, Flag.LYRICS_FAILED),  # a mark, then half a character
        (b"\xef\xbb\xbf\xff", None, Flag.LYRICS_FAILED),
        (b"h\0i\0", "hi", Flag.TEXT_RECODED),  # UTF-16 without its mark
        (b"words\0", "words", Flag.TEXT_CLEANED),
        (b"ring\a the bell", "ring the bell", Flag.TEXT_CLEANED),
        (b"wo\1rd\2s of a \3song", None, Flag.LYRICS_FAILED),
        ("le caf\xe9 \xe9".encode("cp1252") + b"\0", None, Flag.LYRICS_FAILED),
        (b"", None, Flag.EMPTY_LYRICS),
        (b" \r\n\t\xc2\xa0\n", None, Flag.EMPTY_LYRICS),
        (b"<p></p>&nbsp;", None, Flag.EMPTY_LYRICS | Flag.TEXT_CLEANED),
        (b"\0\0", None, Flag.EMPTY_LYRICS | Flag.TEXT_CLEANED),
        ("\ufffd \u200d".encode(), None, Flag.EMPTY_LYRICS),
        (b"INTRUMENTAL", None, Flag.INSTRUMENTAL),
        (b"\n[Instrumental]\n", None, Flag.INSTRUMENTAL),
        (b"*** instrumental ***\n(Instrumental)", None, Flag.INSTRUMENTAL),
        (b"<i>Instrumental</i>", None, Flag.INSTRUMENTAL | Flag.TEXT_CLEANED),
        (b"instrumental break, then words", "instrumental break, then words", NONE),
        (b"a" * (MAX_LYRICS_BYTES + 1), None, Flag.LYRICS_FAILED),
    ],
)
def test_bytes_become_text_or_a_reason(data: bytes, text: str | None, flags: Flag) -> None:
    read = read_lyrics(data)
    assert (read.text, read.flags) == (text, flags)


def test_a_very_long_run_of_combining_marks_is_cut_and_flagged() -> None:
    lyrics = read_lyrics(("la" + "\u0323" * 200).encode())
    assert lyrics.text is not None
    assert lyrics.text.count("\u0323") <= 30
    assert lyrics.flags == Flag.TEXT_CLEANED


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("one<br/>two<BR >three", "one\ntwo\nthree"),
        ('<div class="lyrics"><p>one</p>\n<p>two <i>soft</i>ly</p></div>', "one\n\n\ntwo softly"),
        ("<!-- ad --><script>var x = '<p>';</script>one<style type=x>p {}</style>", "one"),
        ("I &lt;3 you &amp;amp; me &#39;n&#x27; all &eacute;", "I <3 you & me 'n' all \u00e9"),
        ("&amp;lt;b&amp;gt;bold", "bold"),
        ("ring\a the\x1b bell\x7f so\u00adft \u200bzero\x0bnew\x85line", "ring the bell soft zero\nnew\nline"),
        ("half \ud83d", "half"),
        ("a" + "\u0301" * 40, "\u00e1" + "\u0301" * 29),
    ],
)
def test_markup_and_control_characters_are_removed(raw: str, clean: str) -> None:
    assert clean_lyrics(raw) == (clean, True)


@pytest.mark.parametrize(
    "text",
    [
        "I <3 U",
        "<chorus>",
        "a < b > c",
        "AT&T",
        "love &not hate",
        "R&B; soul",
        "x &unknown; y",
        "tab\there",
        "\u0646\u200c\u0645",
        "\U0001f468\u200d\U0001f469",
        "[Verse 1]\n\nline",
        "-->",
        "<!-- open",
        "<script> open",
    ],
)
def test_angle_brackets_without_markup_are_kept(text: str) -> None:
    cleaned, changed = clean_lyrics(text)
    assert cleaned in (text, text.replace("<script> ", ""))
    assert changed == (cleaned != text)


def test_line_ends_and_outer_space_are_evened_out_without_a_flag() -> None:
    assert clean_lyrics(" one \r\n two\rthree\u2028four\u3000\n\n") == ("one\ntwo\nthree\nfour", False)


@given(st.binary(max_size=80))
@example(b"\xff\xfe\x00\x00")
@example(b"\x00\x00\xfe\xff\x00\x11\x00\x00")
def test_no_bytes_raise_and_one_reason_stands_for_no_text(data: bytes) -> None:
    read = read_lyrics(data)
    reasons = Flag.EMPTY_LYRICS | Flag.INSTRUMENTAL | Flag.LYRICS_FAILED
    assert (read.text is None) == bool(read.flags & reasons)
    assert len((read.flags & reasons).names) <= 1
    if read.text is not None:
        read.text.encode()
        assert "\0" not in read.text


@given(st.lists(WORD | MARKUP | st.characters(), max_size=25).map("".join))
@example("<" * 20 + "b>" * 20)
@example("&am" + "p;am" * 3 + "p;lt;b>")
@example("&#38;#38;lt;b&gt;")
def test_cleaning_lyrics_is_idempotent(raw: str) -> None:
    once, _ = clean_lyrics(raw)
    assert clean_lyrics(once) == (once, False)


@given(st.lists(st.tuples(WORD, st.sampled_from(["i", "b", "span class='a b'", "EM", 'a href="x"'])), max_size=6))
def test_wrapping_lyrics_in_tags_changes_nothing(parts: list[tuple[str, str]]) -> None:
    plain = "x".join(word for word, _ in parts)
    wrapped = "x".join(f"<{tag}>{word}</{tag.split()[0]}>" for word, tag in parts)
    assert clean_lyrics(wrapped) == (clean_lyrics(plain)[0], bool(parts))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "trap",
    [
        *("<!--", "<script>", "<b ", "<", "&amp;", "&", "amp;", "<b", "<b>", "&lt;", "instrumental ", "*", "la", "!?"),
        *("\u200b", "\U0001f468\u200d", "\u0301\u0316", "\u0f73", "&#769;&#790;", "e\u0301", "\n", "\r", "\u3042"),
    ],
)
def test_a_million_repeated_characters_take_linear_time(trap: str) -> None:
    text = trap * (MAX_LYRICS_BYTES // len(trap))
    read_lyrics(text)
    read_lyrics("&" + text + "x")


def test_find_file_ignores_the_unicode_form(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"la\xe9")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "big.txt").write_bytes(b"a" * (MAX_LYRICS_BYTES + 1))
    assert load_lyrics(tmp_path / "a.txt").text == "la\u00e9"
    for name, flags in {
        "none.txt": Flag.NO_LYRICS,
        "a.txt/b.txt": Flag.NO_LYRICS,
        ".": Flag.LYRICS_FAILED,
        "pipe.txt": Flag.LYRICS_FAILED,
        "big.txt": Flag.LYRICS_FAILED,
        "n" * 300: Flag.LYRICS_FAILED,
    }.items():
        read = load_lyrics(tmp_path / name)
        assert (read.text, read.flags) == (None, flags), name


def test_real_lyrics(real_data: Path) -> None:
    read = [load_lyrics(path) for path in sorted((real_data / "songs" / "lyrics").iterdir())]
    assert Counter(lyrics.flags for lyrics in read) == {Flag.INSTRUMENTAL: 35, NONE: 14, Flag.TEXT_RECODED: 1}
    full = [load_lyrics(path) for path in sorted((real_data / "songs_nc" / "lyrics").iterdir())]
    assert all(lyrics.text and lyrics.flags == NONE for lyrics in full)
