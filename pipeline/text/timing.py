"""Remove time stamps and tags of timed lyrics (LRC, enhanced LRC, SubRip, WebVTT)."""

from __future__ import annotations

import re

_STAMP = r"\d{1,3}:\d{1,2}"
_FRACTION = r"(?:[:.,]\d{1,3}){1,2}"
_LINE_STAMPS = re.compile(rf"^(?:\[{_STAMP}(?:{_FRACTION})?\][ \t]*)+", re.MULTILINE)
# Without the look-behind, a long run of blanks would be searched again from each of them.
_WORD_STAMPS = re.compile(rf"(?<![ \t])[ \t]*(?:(?:\[{_STAMP}{_FRACTION}\]|<{_STAMP}(?:{_FRACTION})?>)[ \t]*)+")
# Section names such as [By: all] or [Chorus: all] are capitalised and stay.
_TAG_NAMES = "al|ar|au|by|encoding|id|kana|key|la|lang|language|length|lr|offset|re|ti|tool|total|ve|#"
_TAG_LINE = re.compile(rf"^\[(?:{_TAG_NAMES}|{_TAG_NAMES.upper()}):.*\]$\n?", re.MULTILINE)

_CUE_TIME = r"(?:\d{1,4}:)?\d{1,2}:\d{2}[.,]\d{1,3}"
_CUE_TIMES = re.compile(rf"{_CUE_TIME}[ \t]*-->[ \t]*{_CUE_TIME}(?:[ \t].*)?")
_CUE_TAG = re.compile(r"</?(?:c|v|lang|ruby|rt)(?:[.\s][^<>\n]*)?>|\{\\[^{}\n]*\}")
_WEBVTT = re.compile(r"WEBVTT(?:[ \t].*)?")
_NO_CUE = re.compile(r"(?:NOTE|STYLE|REGION)(?:[ \t].*)?")


def without_timing(text: str) -> str:
    """Remove time stamps, and the lines and tags of a timed format that contain no lyrics.

    Parameters
    ----------
    text : lines without white space around them, separated by newlines.

    Notes
    -----
    LRC: ``[01:02.30]`` and ``[01:02]`` at the start of a line, ``[01:02.30]`` and ``<01:02.30>`` anywhere, and lines
    such as ``[ar:...]`` or ``[offset:...]``. SubRip and WebVTT, if there is a line ``00:01.000 --> 00:02.000``: that
    line with the cue's number or name before it, tags such as ``<c.yellow>``, ``<v Ann>`` or ``{\\an8}``, and empty
    lines. WebVTT: its header, and the blocks NOTE, STYLE and REGION. Other text in brackets stays.
    """
    text = _without_cues(text)
    text = _LINE_STAMPS.sub("", _TAG_LINE.sub("", text))
    return _WORD_STAMPS.sub(
        lambda stamps: " " if stamps.group()[0] in " \t" or stamps.group()[-1] in " \t" else "", text
    )


def _without_cues(text: str) -> str:
    lines = text.split("\n")
    is_webvtt = bool(_WEBVTT.fullmatch(lines[0]))
    if not is_webvtt and not ("-->" in text and any(map(_CUE_TIMES.fullmatch, lines))):
        return text
    kept: list[str] = []
    n_before, n_in_block, is_skipped = 0, 0, False  # kept before the line, lines of its block, whether it has no words
    for line in lines:
        if not line:
            n_in_block = 0
            continue
        if n_in_block == 0:
            is_skipped = is_webvtt and bool(_WEBVTT.fullmatch(line) or _NO_CUE.fullmatch(line))
        if _CUE_TIMES.fullmatch(line):
            is_named = n_in_block > 0 and len(kept) > n_before and (n_in_block == 1 or kept[-1].isdecimal())
            if is_named:
                kept.pop()
            is_skipped = False
        n_before = len(kept)
        if not (is_skipped or _CUE_TIMES.fullmatch(line)):
            kept.append(line)
        n_in_block += 1
    return _CUE_TAG.sub("", "\n".join(kept))
