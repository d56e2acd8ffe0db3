"""Clean names, detect names that look alike, and find lyrics next to songs.

A name that looks like another one but is a different string would become a separate class, artist or missing
file. :func:`clean_name` makes all safe changes; :func:`remark_names` returns notes on the rest.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping

from ...cache.errors import ConfigError
from ...cache.messages import counted, join_names, limit_lines
from ...cache.normalise import normalise

LISTED_NAMES = 20
LYRICS_SUFFIXES = (".lrc", ".txt")
"""Suffixes of lyrics next to a song, in upper or lower case; later suffixes are preferred."""

_SHAPES = str.maketrans("авеёкмнорстухіјѕԁԛԝһαβεζηικμνορτυχ", "abeekmhopctyxijsdqwhabezhikmnoptyx")
"""Letters of Cyrillic and Greek, in lower case -> the Latin letter of the same shape, in upper or in lower case."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_INVISIBLE = re.compile("[\xad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
# Joiners are part of the spelling in some scripts and in emoji, and nothing next to ASCII or at an end.
_JOINERS = re.compile("(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])")
_PLACEHOLDERS = """
nan,none,null,nil,na,n/a,#n/a,<na>,-,--,–,—,?,.,unknown,undefined,unspecified,(none),(unknown),[none],[unknown],[],(),{},
set(),unknown artist,unknown genre,no genre,not available
"""
_MISSING = frozenset(_PLACEHOLDERS.replace("\n", "").split(","))


def refuse_other_encodings() -> None:
    """Raise ConfigError if the locale makes Python read file names in another encoding than UTF-8.

    Raises
    ------
    ConfigError
        With the locale and the remedy. The command line restarts itself in Python's UTF-8 mode instead.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        name = next((value for key in ("LC_ALL", "LC_CTYPE", "LANG") if (value := os.environ.get(key))), "C")
        raise ConfigError(
            f"the locale {name!r} makes Python read names of files as {encoding}, and here they are UTF-8. Set "
            "PYTHONUTF8=1 before Python starts, or use a UTF-8 locale"
        )


def clean_name(name: str) -> str:
    """Return a name in NFC with single spaces and without invisible characters.

    All white space and control characters count as spaces. Zero-width characters, soft hyphens and direction marks
    are removed. The function is idempotent.
    """
    if name.isascii() and name.isprintable():
        return " ".join(name.split())
    text = _INVISIBLE.sub("", _CONTROL.sub(" ", normalise("NFC", name)))
    text = _JOINERS.sub("", " ".join(text.split()))
    return normalise("NFC", " ".join(text.split()))


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return groups of names that differ only by case, width, spaces, punctuation, invisible or look-alike letters.

    Look-alike letters are those of Cyrillic and Greek that Latin has in the same shape.
    """
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(_skeleton(name).translate(_SHAPES), set()).add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _skeleton(name: str) -> str:
    folded = normalise("NFKC", normalise("NFKD", name).casefold())
    letters = [c for c in folded if unicodedata.category(c)[0] not in "PZC" and not "\ufe00" <= c <= "\ufe0f"]
    return "".join(letters) or folded


def _odd_letters(name: str) -> list[str]:
    """Return the letters of Cyrillic and Greek that stand in a word with Latin ones, in order."""
    if name.isascii():
        return []
    foreign: list[str] = []
    for word in re.findall(r"[^\W\d_]+", name):
        others = [letter for letter in word if unicodedata.name(letter, "").startswith(("CYRILLIC", "GREEK"))]
        if others and any(unicodedata.name(letter, "").startswith("LATIN") for letter in word):
            foreign += others
    return list(dict.fromkeys(foreign))


def _with_scripts(name: str) -> str:
    """Return the name in quotation marks, and which of its letters are of another script."""
    foreign = _odd_letters(name) or [letter for letter in name if letter.lower().translate(_SHAPES) != letter.lower()]
    letters = join_names([f"U+{ord(letter):04X} {unicodedata.name(letter)}" for letter in dict.fromkeys(foreign)], 3)
    return f"{name!r} ({letters})" if foreign else repr(name)


def stands_for_nothing(text: str) -> bool:
    """Return whether a text is probably a missing value that some program wrote as a word, such as ``nan``."""
    return len(text) < 20 and clean_name(text).casefold() in _MISSING


def remark_names(noun: str, tracks: Mapping[str, int], effect: str = "") -> list[str]:
    """Return notes on look-alikes and placeholders among names, given the number of tracks of each.

    Parameters
    ----------
    noun : plural, such as "genres".
    effect : effect of keeping look-alikes apart, for the message.
    """
    notes = []
    groups = look_alikes(tracks)
    for group in groups:
        if len({normalise("NFC", name.casefold()) for name in group}) == 1:
            difference = "differ by case only"
        elif len(set(map(_skeleton, group))) == 1:
            difference = "differ only by case, width, spaces or punctuation"
        else:
            difference = "look alike but use letters of different scripts"
        notes.append(f"{noun} that {difference} are kept apart{effect}: {', '.join(map(_with_scripts, group))}")
    notes = limit_lines(notes, f"such groups of {noun}", LISTED_NAMES)
    listed = {name for group in groups for name in group}
    mixed = [_with_scripts(name) for name in sorted(tracks) if name not in listed and _odd_letters(name)]
    if mixed:
        notes.append(f"{noun} with letters of different scripts in one word: {join_names(mixed)}")
    missing = [f"{name!r} ({counted(n, 'track')})" for name, n in sorted(tracks.items()) if stands_for_nothing(name)]
    if missing:
        notes.append(
            f"{noun} that probably stand for a missing value: {join_names(missing)}; leave the cell empty where there "
            "is none"
        )
    return notes


def lyrics_next_to(names: Iterable[str]) -> Callable[[str], str | None]:
    """Return a function from the name of an audio file to that of its lyrics among `names`, if there are any.

    The two names differ only in the suffix; or also in case or Unicode form, if only one name does.
    """
    texts = [(*os.path.splitext(name), name) for name in names if name.lower().endswith(LYRICS_SUFFIXES)]  # noqa: PTH122
    texts.sort(key=lambda text: (LYRICS_SUFFIXES.index(text[1].lower()), text[1].islower()))
    exact = {stem: name for stem, _, name in texts}
    alike: dict[str, set[str]] = {}
    for stem in exact:
        alike.setdefault(clean_name(stem).casefold(), set()).add(stem)

    def lyrics_of(audio: str) -> str | None:
        stem = os.path.splitext(audio)[0]  # noqa: PTH122 (pathlib keeps the dot of "song.")
        stems = alike.get(clean_name(stem).casefold(), ())
        return exact.get(stem) or (exact[next(iter(stems))] if len(stems) == 1 else None)

    return lyrics_of
