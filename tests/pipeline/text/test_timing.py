"""Timed lyrics: LRC, SubRip and WebVTT give the same text as plain lyrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mgc.cache.format.schema import Flag
from mgc.pipeline.text.lyrics import clean_lyrics, read_lyrics
from mgc.pipeline.text.timing import without_timing

LINES = ["lanterns drift along the river", "[Chorus]", "you kept my name [x2]", "(ooh) 99", "so let it go"]


def clock(seconds: float, mark: str = ".", digits: int = 2, *, hours: bool = False) -> str:
    whole, fraction = int(seconds), f"{seconds % 1:.{digits}f}"[2:]
    stamp = f"{whole // 60 % 60:02}:{whole % 60:02}{mark}{fraction}"
    return f"{whole // 3600:02}:{stamp}" if hours else stamp


def lrc(lines: Sequence[str], stamp: Callable[[float], str] = clock) -> str:
    head = ["[ar:The Band]", "[ti:Song [live]]", "[offset:+250]", "[la:en]", "[#:made by hand]"]
    return "\n".join(head + [f"[{stamp(4.37 * i)}]{line}" for i, line in enumerate(lines)])


def enhanced_lrc(lines: Sequence[str]) -> str:
    words = ((i, line.split()) for i, line in enumerate(lines))
    return "\n".join(
        f"[{clock(4 * i)}] " + " ".join(f"<{clock(4 * i + j / 3)}> {word}" for j, word in enumerate(line))
        for i, line in words
    )


def subrip(lines: Sequence[str]) -> str:
    times = ((clock(4 * i, ",", 3, hours=True), clock(4 * i + 3.5, ",", 3, hours=True)) for i in range(len(lines)))
    return "\r\n\r\n".join(
        f"{i}\r\n{start} --> {end}\r\n{{\\an8}}<i>{line}</i>"
        for i, ((start, end), line) in enumerate(zip(times, lines, strict=True), 1)
    )


def webvtt(lines: Sequence[str]) -> str:
    blocks = ["WEBVTT - lyrics\nKind: captions", "NOTE made\nby hand", "STYLE\n::cue { color: red }"]
    for i, line in enumerate(lines):
        name = f"line {i}\n" if i % 2 else ""
        head, _, tail = line.partition(" ")
        words = f"<v Ann>{head}<{clock(4 * i + 0.5, digits=3)}> <c.loud.red>{tail}</c>" if tail else line
        blocks.append(f"{name}{clock(4 * i, digits=3)} --> {clock(4 * i + 3, digits=3)} align:start line:0\n{words}")
    return "\n\n".join(blocks)


FORMATS = {
    "LRC": lrc,
    "LRC in milliseconds": lambda lines: lrc(lines, lambda seconds: clock(seconds, digits=3)),
    "LRC with colons": lambda lines: lrc(lines, lambda seconds: clock(seconds, ":")),
    "LRC in seconds": lambda lines: lrc(lines, lambda seconds: clock(seconds)[:5]),
    "LRC with repeats": lambda lines: lrc(lines, lambda seconds: f"{clock(seconds)}][{clock(seconds + 60)}"),
    "enhanced LRC": enhanced_lrc,
    "SubRip": subrip,
    "WebVTT": webvtt,
}


@pytest.mark.parametrize("name", FORMATS)
def test_timed_lyrics_are_the_text_of_plain_ones(name: str) -> None:
    read, plain = read_lyrics(FORMATS[name](LINES).encode()), read_lyrics("\n".join(LINES))
    assert (read.text, read.flags) == (plain.text, Flag.TEXT_CLEANED)
    assert plain.flags == Flag(0)
    assert clean_lyrics(plain.text or "") == (plain.text, False)


@pytest.mark.parametrize("name", FORMATS)
def test_rule_1_leaves_time_stamps(name: str) -> None:
    text, _ = clean_lyrics(FORMATS[name](LINES), 1)
    assert "0:0" in text


@given(st.lists(st.from_regex(r"[a-z(]{1,6}( [a-z)!?,'-]{1,7}){0,5}", fullmatch=True), min_size=1, max_size=6))
def test_words_of_lyrics_are_kept(lines: list[str]) -> None:
    plain = clean_lyrics("\n".join(lines))[0]
    for write in FORMATS.values():
        assert clean_lyrics(write(lines))[0] == plain


@pytest.mark.parametrize(
    "text",
    [
        "[Verse 1: Ann]\nla [x2] la\n[Chorus]\n[Bridge - 2:30]",
        "[By: everybody]\n[La: la la]",
        "meet me at 10:30, not 10:45.5",
        "1\n2\n3\n\nNOTE to self",
        "I --> you",
        "WEB\n\n<chorus> {x2} <3",
        "read [3:16] aloud",
    ],
)
def test_other_brackets_and_times_are_kept(text: str) -> None:
    assert clean_lyrics(text) == (text, False)


def test_cues_without_empty_lines_between_them_keep_their_words() -> None:
    text = "1\n0:01,000 --> 0:02,000\none\n2\n0:02,000 --> 0:03,000\ntwo\n0:04,000 --> 0:05,000\nsix"
    assert clean_lyrics(text) == ("one\ntwo\nsix", True)


def test_timed_song_without_lyrics_is_instrumental_or_empty() -> None:
    assert read_lyrics("[ar:X]\n[00:00.00]Instrumental").flags == Flag.INSTRUMENTAL | Flag.TEXT_CLEANED
    assert read_lyrics("[00:00.00]\n[00:10.00]").flags == Flag.EMPTY_LYRICS | Flag.TEXT_CLEANED


PIECES = [
    "[0:1",
    "]",
    "[00:01.50]",
    "<0:1>",
    "[ar:",
    "<",
    ">",
    "\n",
    " ",
    "WEBVTT",
    "NOTE",
    "1",
    "{\\",
    "}",
    "a",
    "&lt;",
]
CUE = "0:01.0 --> 0:02.0"


@given(st.lists(st.sampled_from([*PIECES, CUE]), max_size=14).map("".join))
@example("[0:1" * 12 + "]" * 12)
@example("<WEBVTT\n\n" + CUE + "\na")
def test_cleaning_timed_text_is_idempotent(raw: str) -> None:
    once, _ = clean_lyrics(raw)
    assert clean_lyrics(once) == (once, False)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "trap", ["[0:1", "[00:01.50]", "<0:1> ", " ", "[ar:]", "[ar:x\n", CUE, CUE + "\n", "{\\", "a<c "]
)
def test_a_million_repeated_characters_take_linear_time(trap: str) -> None:
    text = trap * ((1 << 20) // len(trap))
    without_timing(text)
    without_timing("WEBVTT\n\n" + CUE + "\n" + text + "x")
